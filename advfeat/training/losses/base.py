"""Base classes of objectives: an attack prepares the batch, then a loss descends on it.

The two halves are separate because some procedures repeat only one of them: weight perturbation
takes two gradients at the same attacked images; gradient accumulation works on parts of a batch.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from advfeat.edges import on_training_batch, one_key
from advfeat.models import model_fn
from advfeat.models.statistics import statistics_of
from advfeat.training.padding import filled, real_rows
from advfeat.types import (
    Array,
    AttackFn,
    Batch,
    Descended,
    Key,
    LogitLoss,
    pytree,
    static,
)


@pytree
class TrainingObjective:
    """A training objective, a `LossFn`: a pure function of key, params, state and batch.

    Subclasses are pytrees, so that those of equal structure share one compiled train step: numbers,
    including those of an attack (eps, step size), are leaves. A subclass defines `descend`
    and, if it needs more than the batch, `prepare`.

    Attributes:
      model: a flax module with `apply(variables, images, train=...)`, static.
      loss: of one example's logits at its label, static.
    """

    model: Any = static()
    loss: LogitLoss = static()

    def prepare(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Batch:
        """Adds attacked images, if the objective has an attack; no gradient flows through them.

        Every draw depends only on the step's key and the example's id, so a batch may be prepared
        in parts with the same key.
        """
        del key, params, model_state
        return batch

    def descend(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Descended:
        """Returns the training-mode loss of a prepared batch, the new model state and metrics.

        The loss is a mean weighted by `batch["weight"]`. Rows of weight 0 have no effect, not even
        on batch statistics; they must be finite (`padding.filled`).
        """
        raise NotImplementedError

    def __call__(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Descended:
        """Prepares and descends: the function for an external training loop to differentiate."""
        on_training_batch(batch)
        key_prepare, key_descend = jax.random.split(one_key(key))
        prepared = self.prepare(key_prepare, params, model_state, filled(batch))
        return self.descend(key_descend, params, model_state, prepared)


@pytree
class AdversarialObjective(TrainingObjective):
    """Base class of objectives with an attack, whose images become `batch["attacked"]`.

    Attributes:
      attack: on ONE example, a leaf.
    """

    attack: AttackFn

    def prepare(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Batch:
        """Attacks every example at its label; see `attacked_images`."""
        variables = {"params": params, **model_state}
        found = attacked_images(self.attack, key, self.model, variables, batch, batch["label"])
        return {**batch, "attacked": found}


def attacked_images(
    attack: AttackFn, key: Key, model: Any, variables: PyTree, batch: Batch, aim: PyTree
) -> Float[Array, "B H W C"]:
    """Attacks every example and returns the images.

    The network is in evaluation mode and gradients to its weights are stopped, so the attack
    affects neither batch statistics nor gradients, and none of its steps is kept in memory.

    Args:
      attack: on ONE example.
      key: folded with each example's id.
      model: a flax module.
      variables: parameters and state of the model.
      batch: with `image` and `id`.
      aim: with a leading axis of the batch, passed to the attack as the label.
    """
    network = model_fn(model, jax.lax.stop_gradient(variables))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(one_key(key), batch["id"])
    result = jax.vmap(attack, (0, None, 0, 0))(keys, network, batch["image"], aim)
    return jax.lax.stop_gradient(result.best.x)


def forward(
    model: Any,
    key: Key,
    params: PyTree,
    model_state: PyTree,
    images: Float[Array, "B H W C"],
    batch: Batch,
) -> tuple[Float[Array, "B K"], PyTree]:
    """Returns logits in training mode and the new model state.

    Args:
      model: a flax module.
      key: for dropout.
      params: parameters of the model.
      model_state: its other collections.
      images: clean or attacked.
      batch: its weights select the rows that enter batch statistics.
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
        # A part of a batch may consist of padding only, which has no statistics.
        some, before = jnp.any(real), {name: model_state[name] for name in updated}
        leaves = zip(jax.tree.leaves(updated), jax.tree.leaves(before), strict=True)
        updated = jax.tree.unflatten(
            jax.tree.structure(updated), [jnp.where(some, new, old) for new, old in leaves]
        )
    return logits, {**model_state, **updated}


def forward_both(
    model: Any, key: Key, params: PyTree, model_state: PyTree, batch: Batch
) -> tuple[Float[Array, "B K"], Float[Array, "B K"], PyTree]:
    """Returns the logits of clean and of attacked images, and the new model state.

    Two passes, so that clean and attacked images have separate batch statistics; both update them.
    """
    key_clean, key_attacked = jax.random.split(key)
    clean, model_state = forward(model, key_clean, params, model_state, batch["image"], batch)
    attacked, model_state = forward(
        model, key_attacked, params, model_state, batch["attacked"], batch
    )
    return clean, attacked, model_state


def weighted_mean(values: Float[Array, " B"], batch: Batch) -> Float[Array, ""]:
    """Returns the weighted mean of values; padding has weight 0."""
    weight = batch["weight"]
    # A padded row may contain anything, and 0 times infinity would be NaN.
    kept = jnp.where(weight > 0, values, 0.0)
    return jnp.sum(weight * kept) / jnp.maximum(jnp.sum(weight), 1e-9)


def weighted_accuracy(logits: Float[Array, "B K"], batch: Batch) -> Float[Array, ""]:
    """Returns the weighted accuracy of a batch."""
    hit = jnp.argmax(logits, axis=-1) == batch["label"]
    return weighted_mean(hit.astype(jnp.float32), batch)


def check_attack(attack: Any) -> None:
    """Checks that an attack is given.

    Raises:
      ValueError: if it is not callable.
    """
    if not callable(attack):
        raise ValueError(f"attack must be an attack such as pgd(threat), got {attack!r}")
