"""What every objective shares: an attack that prepares the batch, and a loss that descends on it.

The two halves are apart because some procedures need only one of them again: weight perturbation
takes two gradients at the same attacked images, accumulation attacks and descends in small parts.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from advfeat.edges import on_training_batch, one_key
from advfeat.models import model_fn
from advfeat.models.statistics import statistics_of
from advfeat.training.padding import filled, real_rows
from advfeat.types import Array, AttackFn, Batch, Key, LogitLoss, Metrics

D = TypeVar("D", bound="Descent")


@dataclasses.dataclass(frozen=True)
class Descent:
    """An objective of training, a `LossFn`: a pure function of key, params, state and batch.

    A subclass is a frozen, registered dataclass, so that equal ones share one compiled train step;
    numbers and what an attack holds (eps, step size) are leaves. It defines `descend` and, if it
    looks at more than the batch, `prepare`.

    Attributes:
      model: a flax module with `apply(variables, images, train=...)`, static.
      loss: logits `[K]`, label `[]` -> `[]`, static.
    """

    model: Any = dataclasses.field(metadata={"static": True})
    loss: LogitLoss = dataclasses.field(metadata={"static": True})

    def prepare(self, key: Key, params: Any, model_state: Any, batch: Batch) -> Batch:
        """The batch with what the attack found; no gradient flows through it.

        Every draw belongs to the step's key and the example's id, so a batch may be prepared in
        parts, with the same key for all of them.
        """
        del key, params, model_state
        return batch

    def descend(
        self, key: Key, params: Any, model_state: Any, batch: Batch
    ) -> tuple[Array, tuple[Any, Metrics]]:
        """The loss of a prepared batch with the network in training mode, its state, metrics.

        The loss is a mean over the batch, weighted by `batch["weight"]`. Rows of weight 0 count for
        nothing, not in batch statistics either; they must be finite (`padding.filled`).
        """
        raise NotImplementedError

    def __call__(
        self, key: Key, params: Any, model_state: Any, batch: Batch
    ) -> tuple[Array, tuple[Any, Metrics]]:
        """Both: what a foreign train loop differentiates."""
        on_training_batch(batch)
        key_prepare, key_descend = jax.random.split(one_key(key))
        prepared = self.prepare(key_prepare, params, model_state, filled(batch))
        return self.descend(key_descend, params, model_state, prepared)

    def scaled(self: D, share: float | Array) -> D:
        """The same objective with its attack's eps and step size times `share`: a warm-up."""
        del share
        return self


@dataclasses.dataclass(frozen=True)
class Attacked(Descent):
    """Base of the objectives with an attack: `prepare` adds its images as `batch["attacked"]`.

    Attributes:
      attack: on ONE example, a leaf.
    """

    attack: AttackFn

    def prepare(self, key: Key, params: Any, model_state: Any, batch: Batch) -> Batch:
        """Attacks the labels; see `attacked_images`."""
        variables = {"params": params, **model_state}
        found = attacked_images(self.attack, key, self.model, variables, batch, batch["label"])
        return {**batch, "attacked": found}

    def scaled(self: D, share: float | Array) -> D:
        """The same objective with its attack's eps and step size times `share`: a warm-up.

        Raises:
          ValueError: for an attack without a threat model.
        """
        return dataclasses.replace(self, attack=scaled_attack(self.attack, share))  # type: ignore[attr-defined,call-arg]


def attacked_images(
    attack: AttackFn, key: Key, model: Any, variables: Any, batch: Batch, aim: Any
) -> Array:
    """The images `[B, H, W, C]` that an attack on every example comes to.

    The network is in evaluation mode and its weights are cut off, so neither batch statistics nor
    gradients depend on the attack, and no step of it is kept in memory.

    Args:
      attack: on ONE example.
      key: folded with each example's id.
      model: a flax module.
      variables: its parameters and state.
      batch: with `image` and `id`.
      aim: `[B, ...]`, what the attack takes as its label.
    """
    network = model_fn(model, jax.lax.stop_gradient(variables))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(one_key(key), batch["id"])
    result = jax.vmap(attack, (0, None, 0, 0))(keys, network, batch["image"], aim)
    return jax.lax.stop_gradient(result.best.x)


def scaled_attack(attack: Any, share: float | Array) -> Any:
    """An attack with the eps of its threat model, and its step size, times `share`.

    Raises:
      ValueError: for an attack without a threat model.
    """
    threat = getattr(attack, "threat", None)
    if threat is None:
        raise ValueError(
            f"an eps warm-up needs an attack with a threat model, got {type(attack).__name__}"
        )
    changes: dict[str, Any] = {
        "threat": dataclasses.replace(threat, eps=_times(threat.eps, share))
    }
    if getattr(attack, "step_size", None) is not None:
        changes["step_size"] = _times(attack.step_size, share)
    return dataclasses.replace(attack, **changes)


def _times(size: Array, share: float | Array) -> Array:
    share = jnp.asarray(share, jnp.float32)
    return jnp.where(share > 0, size * share, 0.0)  # an infinite size times 0 would be NaN


def forward(
    model: Any, key: Key, params: Any, model_state: Any, images: Array, batch: Batch
) -> tuple[Array, Any]:
    """Logits `[B, K]` of a batch in training mode, and the new model state.

    Args:
      model: a flax module.
      key: of dropout.
      params: its parameters.
      model_state: its other collections.
      images: `[B, H, W, C]`.
      batch: whose weights say which rows the batch statistics are of.
    """
    real = real_rows(batch)
    with statistics_of(real):
        logits, updated = model.apply(
            {"params": params, **model_state},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
    if real is not None and updated:
        # A part of a batch may hold nothing but padding, which has no statistics.
        some, before = jnp.any(real), {name: model_state[name] for name in updated}
        leaves = zip(jax.tree.leaves(updated), jax.tree.leaves(before), strict=True)
        updated = jax.tree.unflatten(
            jax.tree.structure(updated), [jnp.where(some, new, old) for new, old in leaves]
        )
    return logits, {**model_state, **updated}


def mean(values: Array, batch: Batch) -> Array:
    """`[]`, the mean of `[B]` values weighted by the batch's weights: padding counts nothing."""
    weight = batch["weight"]
    # A padded row may hold anything: times 0, infinity would be NaN.
    kept = jnp.where(weight > 0, values, 0.0)
    return jnp.sum(weight * kept) / jnp.maximum(jnp.sum(weight), 1e-9)


def accuracy(logits: Array, batch: Batch) -> Array:
    """`[]`, the weighted share of a batch that is classified as labelled."""
    hit = jnp.argmax(logits, axis=-1) == batch["label"]
    return mean(hit.astype(jnp.float32), batch)


def check_attack(attack: Any) -> None:
    """Checks that there is an attack to train with.

    Raises:
      ValueError: if it cannot be called.
    """
    if not callable(attack):
        raise ValueError(f"attack must be an attack such as pgd(threat), got {attack!r}")
