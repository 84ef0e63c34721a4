"""MART: adversarial training that emphasises misclassified examples.

Wang et al. (2020), "Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
https://openreview.net/forum?id=rklOg6EFwS.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from advfeat.checks import check_eps
from advfeat.objectives.losses import boosted_cross_entropy, kl_divergence
from advfeat.training.losses.base import (
    AdversarialObjective,
    check_attack,
    forward_both,
    weighted_accuracy,
    weighted_mean,
)
from advfeat.types import Array, AttackFn, Batch, Descended, Key, LogitLoss, Number, pytree


@pytree
class Mart(AdversarialObjective):
    """Boosted loss plus a KL divergence weighted by `1 - p_y`, a `LossFn`; see `mart`.

    Attributes:
      beta: the weight of the divergence.
    """

    beta: Float[Array, ""]

    def descend(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Descended:
        """Returns the loss, the new model state and metrics (`accuracy` at attacked images)."""
        clean, attacked, model_state = forward_both(self.model, key, params, model_state, batch)
        label = batch["label"]
        doubt = 1.0 - jax.vmap(jnp.take)(jax.nn.softmax(clean), label)
        divergence = weighted_mean(doubt * jax.vmap(kl_divergence)(clean, attacked), batch)
        value = weighted_mean(jax.vmap(self.loss)(attacked, label), batch) + self.beta * divergence
        return value, (
            model_state,
            {
                "loss": value,
                "divergence": divergence,
                "accuracy": weighted_accuracy(attacked, batch),
                "clean_accuracy": weighted_accuracy(clean, batch),
            },
        )


def mart(
    model: Any,
    loss: LogitLoss = boosted_cross_entropy,
    attack: AttackFn | None = None,
    *,
    beta: Number = 6.0,
) -> Mart:
    """Returns the MART objective `min_w E loss(f(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x))`.

    Wang et al. (2020), equation 11: the loss is the boosted cross-entropy of their equation 8, and
    beta their lambda (5 in the paper, 6 in its code). x' comes from an attack on the labels. The
    weights' gradient flows through all three factors.

    Args:
      model: a flax module with `apply(variables, images, train=...)`.
      loss: of one example's logits at its label, on the attacked images.
      attack: on ONE example, such as `pgd(threat, steps=10, keep=None)`.
      beta: >= 0.

    Returns:
      A `LossFn`: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.

    Raises:
      ValueError: if beta is negative or infinite, or no attack is given.

    >>> import advfeat
    >>> from advfeat import models
    >>> attack = advfeat.pgd(advfeat.linf(0.031), steps=10, step_size=0.007, keep=None)
    >>> mart(models.create("linear", num_classes=10), attack=attack).loss.__name__
    'boosted_cross_entropy'
    """
    check_attack(attack)
    check_eps(beta, name="beta", finite=True)
    return Mart(model, loss, attack, jnp.asarray(beta, jnp.float32))  # type: ignore[arg-type]
