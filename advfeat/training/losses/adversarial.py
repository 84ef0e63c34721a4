"""Adversarial training: minimises the loss at adversarial examples.

Madry et al. (2018), https://arxiv.org/abs/1706.06083.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PyTree

from advfeat.training.losses.base import (
    AdversarialObjective,
    check_attack,
    forward,
    weighted_accuracy,
    weighted_mean,
)
from advfeat.types import AttackFn, Batch, Descended, Key, LogitLoss, pytree


@pytree
class Adversarial(AdversarialObjective):
    """Mean loss at adversarial examples, a `LossFn`; see `adversarial`."""

    def descend(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Descended:
        """Returns the loss, the new model state and metrics, all at the attacked images."""
        logits, model_state = forward(
            self.model, key, params, model_state, batch["attacked"], batch
        )
        value = weighted_mean(jax.vmap(self.loss)(logits, batch["label"]), batch)
        return value, (model_state, {"loss": value, "accuracy": weighted_accuracy(logits, batch)})


def adversarial(model: Any, loss: LogitLoss, attack: AttackFn) -> Adversarial:
    """Returns the robust objective `min_w E max_{x' allowed} loss(f_w(x'), y)`.

    Madry et al. (2018), https://arxiv.org/abs/1706.06083, equation 2.1; the gradient at the inner
    maximum is the gradient of the maximum (Danskin). The attack runs in evaluation mode with the
    weights' gradients stopped; the update sees the attacked batch in training mode.

    Args:
      model: a flax module with `apply(variables, images, train=...)`.
      loss: of one example's logits at its label.
      attack: on ONE example; `pgd(..., keep=None)` saves the forward pass that only compares
        iterates.

    Returns:
      A `LossFn`: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.

    Raises:
      ValueError: if `attack` is not callable.

    >>> import advfeat
    >>> from advfeat import models
    >>> attack = advfeat.pgd(advfeat.linf(8 / 255), steps=7, keep=None)
    >>> loss_fn = adversarial(
    ...     models.create("resnet18", num_classes=10), advfeat.cross_entropy, attack)
    >>> loss_fn.attack.threat.eps * 255
    Array(8., dtype=float32)
    """
    check_attack(attack)
    return Adversarial(model, loss, attack)
