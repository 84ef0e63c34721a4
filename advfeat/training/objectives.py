"""What a train step descends: a pure function of key, params, model state and batch.

Objectives are frozen dataclasses, so that equal ones share one compiled train step; what an attack
needs (eps, step size) is a leaf.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from advfeat.losses import cross_entropy
from advfeat.models import model_fn
from advfeat.types import Array, AttackFn, Batch, Key, LogitLoss, Metrics


def _train_loss(
    model: Any, loss: LogitLoss, key: Key, params: Any, model_state: Any, batch: Batch
) -> tuple[Array, tuple[Any, Metrics]]:
    """The weighted mean loss of a batch with the network in training mode."""
    variables = {"params": params, **model_state}
    logits, updated = model.apply(
        variables, batch["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    weight = batch["weight"]
    total = jnp.maximum(jnp.sum(weight), 1e-9)
    value = jnp.sum(weight * jax.vmap(loss)(logits, batch["label"])) / total
    hit = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
    metrics = {"loss": value, "accuracy": jnp.sum(weight * hit) / total}
    return value, ({**model_state, **updated}, metrics)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Standard:
    """The mean loss on the batch as it is: a `LossFn`. Make one with `standard`."""

    model: Any = dataclasses.field(metadata={"static": True})
    loss: LogitLoss = dataclasses.field(metadata={"static": True})

    def __call__(
        self, key: Key, params: Any, model_state: Any, batch: Batch
    ) -> tuple[Array, tuple[Any, Metrics]]:
        """Returns the loss, the new model state and metrics."""
        return _train_loss(self.model, self.loss, key, params, model_state, batch)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adversarial:
    """The mean loss at attacked inputs: a `LossFn`. Make one with `adversarial`."""

    model: Any = dataclasses.field(metadata={"static": True})
    loss: LogitLoss = dataclasses.field(metadata={"static": True})
    attack: AttackFn

    def __call__(
        self, key: Key, params: Any, model_state: Any, batch: Batch
    ) -> tuple[Array, tuple[Any, Metrics]]:
        """Returns the loss, the new model state and metrics."""
        key_attack, key_model = jax.random.split(key)
        frozen = jax.lax.stop_gradient({"params": params, **model_state})
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key_attack, batch["id"])
        network = model_fn(self.model, frozen)
        result = jax.vmap(self.attack, (0, None, 0, 0))(
            keys, network, batch["image"], batch["label"]
        )
        attacked = {**batch, "image": jax.lax.stop_gradient(result.best.x)}
        return _train_loss(self.model, self.loss, key_model, params, model_state, attacked)


def standard(model: Any, loss: LogitLoss = cross_entropy) -> Standard:
    """Empirical risk minimisation.

    Args:
      model: a flax module with `apply(variables, images, train=...)`.
      loss: logits `[K]`, label `[]` -> `[]`.

    Returns:
      A `LossFn`: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.
    """
    return Standard(model, loss)


def adversarial(model: Any, loss: LogitLoss, attack: AttackFn) -> Adversarial:
    """The robust objective: `min_w E max_{x' allowed} loss(f_w(x'), y)`.

    Madry et al. (2018), https://arxiv.org/abs/1706.06083, equation 2.1; the gradient at the inner
    maximum is the gradient of the maximum (Danskin). The attack sees the network in evaluation
    mode and with its weights cut off; the update sees the attacked batch in training mode.

    Args:
      model: a flax module with `apply(variables, images, train=...)`.
      loss: logits `[K]`, label `[]` -> `[]`.
      attack: on ONE example; `pgd(..., score_last=False)` spares the pass that only chooses
        between iterates.

    Returns:
      A `LossFn`: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.
    """
    return Adversarial(model, loss, attack)


OBJECTIVES = {"standard": standard, "adversarial": adversarial}
