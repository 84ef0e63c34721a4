"""Standard training: empirical risk minimisation."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PyTree

from advfeat.objectives.losses import cross_entropy
from advfeat.training.losses.base import (
    TrainingObjective,
    forward,
    weighted_accuracy,
    weighted_mean,
)
from advfeat.types import Batch, Descended, Key, LogitLoss, pytree


@pytree
class Standard(TrainingObjective):
    """Mean loss on clean images, a `LossFn`; see `standard`."""

    def descend(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Descended:
        """Returns the loss, the new model state and metrics."""
        logits, model_state = forward(self.model, key, params, model_state, batch["image"], batch)
        value = weighted_mean(jax.vmap(self.loss)(logits, batch["label"]), batch)
        return value, (model_state, {"loss": value, "accuracy": weighted_accuracy(logits, batch)})


def standard(model: Any, loss: LogitLoss = cross_entropy) -> Standard:
    """Returns empirical risk minimisation, `min_w E loss(f_w(x), y)`.

    Args:
      model: a flax module with `apply(variables, images, train=...)`.
      loss: of one example's logits at its label.

    Returns:
      A `LossFn`: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.

    >>> import jax
    >>> from advfeat import models
    >>> one, two = (standard(models.create("linear", num_classes=3)) for _ in range(2))
    >>> jax.tree.structure(one) == jax.tree.structure(two)  # they share one compiled train step
    True
    """
    return Standard(model, loss)
