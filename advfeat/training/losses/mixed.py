"""Weighted mean of clean and adversarial loss, the first recipe of adversarial training.

Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572, section 6.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from advfeat.checks import check_share
from advfeat.training.losses.base import (
    AdversarialObjective,
    check_attack,
    forward_both,
    weighted_accuracy,
    weighted_mean,
)
from advfeat.types import Array, AttackFn, Batch, Descended, Key, LogitLoss, Number, pytree


@pytree
class Mixed(AdversarialObjective):
    """Weighted mean of clean and adversarial loss, a `LossFn`; see `mixed`.

    Attributes:
      alpha: the weight of the clean loss.
    """

    alpha: Float[Array, ""]

    def descend(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Descended:
        """Returns the loss, the new model state and metrics (`accuracy` at attacked images)."""
        clean, attacked, model_state = forward_both(self.model, key, params, model_state, batch)
        losses = jax.vmap(self.loss)
        value = self.alpha * weighted_mean(losses(clean, batch["label"]), batch)
        value += (1.0 - self.alpha) * weighted_mean(losses(attacked, batch["label"]), batch)
        return value, (
            model_state,
            {
                "loss": value,
                "accuracy": weighted_accuracy(attacked, batch),
                "clean_accuracy": weighted_accuracy(clean, batch),
            },
        )


def mixed(model: Any, loss: LogitLoss, attack: AttackFn, *, alpha: Number = 0.5) -> Mixed:
    """Returns the mixed objective `min_w E alpha loss(x, y) + (1 - alpha) loss(x', y)`.

    Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572, section 6, where x' is one FGSM step
    and alpha is 1/2. alpha 1 is standard training, alpha 0 adversarial training. The two batches
    pass through the network in turn, and both update its batch statistics.

    Args:
      model: a flax module with `apply(variables, images, train=...)`.
      loss: of one example's logits at its label.
      attack: on ONE example; the paper's is `fgsm(threat, keep=None)`.
      alpha: the weight of the clean loss, in [0, 1].

    Returns:
      A `LossFn`: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.

    Raises:
      ValueError: if alpha lies outside [0, 1].

    >>> import advfeat
    >>> from advfeat import models
    >>> attack = advfeat.fgsm(advfeat.linf(0.25), keep=None)
    >>> network = models.create("linear", num_classes=10)
    >>> mixed(network, advfeat.cross_entropy, attack, alpha=1.5)
    Traceback (most recent call last):
    ...
    ValueError: alpha must lie in [0, 1], got 1.5
    """
    check_attack(attack)
    check_share(alpha, name="alpha")
    return Mixed(model, loss, attack, jnp.asarray(alpha, jnp.float32))
