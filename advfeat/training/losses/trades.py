"""TRADES: trades clean accuracy against predictions that are stable under perturbations.

Zhang et al. (2019), https://arxiv.org/abs/1901.08573.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from advfeat.attacks.pgd import GradientAttack
from advfeat.checks import check_eps
from advfeat.models import model_fn
from advfeat.objectives.classification import kl_from_prediction
from advfeat.objectives.losses import kl_divergence
from advfeat.training.losses.base import (
    AdversarialObjective,
    attacked_images,
    forward_both,
    weighted_accuracy,
    weighted_mean,
)
from advfeat.types import (
    Array,
    AttackFn,
    Batch,
    Descended,
    Key,
    LogitLoss,
    ModelFn,
    Number,
    pytree,
)


@pytree
class NearStart(GradientAttack):
    """PGD that starts near the example instead of at it, where the divergence has zero gradient.

    Attributes:
      spread: standard deviation of the start's Gaussian noise.
    """

    spread: Float[Array, ""]

    def start(
        self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any, index: Array
    ) -> tuple[Float[Array, "*x"], Any]:
        """Returns the example plus Gaussian noise, projected onto ball and box."""
        del model_fn, index
        noise = self.spread * jax.random.normal(key, x.shape)
        return self.threat.project(x, x + noise.astype(x.dtype)), y


@pytree
class Trades(AdversarialObjective):
    """Clean loss plus KL divergence to the attacked prediction, a `LossFn`; see `trades`.

    Attributes:
      beta: the weight of the divergence.
    """

    beta: Float[Array, ""]

    def prepare(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Batch:
        """Attacks the network's clean predictions; the labels are not used."""
        variables = jax.lax.stop_gradient({"params": params, **model_state})
        clean = jax.vmap(model_fn(self.model, variables))(batch["image"])
        found = attacked_images(self.attack, key, self.model, variables, batch, clean)
        return {**batch, "attacked": found}

    def descend(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Descended:
        """Returns the loss, the new model state and metrics (`accuracy` at attacked images)."""
        clean, attacked, model_state = forward_both(self.model, key, params, model_state, batch)
        divergence = weighted_mean(jax.vmap(kl_divergence)(clean, attacked), batch)
        value = (
            weighted_mean(jax.vmap(self.loss)(clean, batch["label"]), batch)
            + self.beta * divergence
        )
        return value, (
            model_state,
            {
                "loss": value,
                "divergence": divergence,
                "accuracy": weighted_accuracy(attacked, batch),
                "clean_accuracy": weighted_accuracy(clean, batch),
            },
        )


def trades(
    model: Any,
    loss: LogitLoss,
    attack: AttackFn,
    *,
    beta: Number = 6.0,
    spread: Number = 1e-3,
) -> Trades:
    """Returns the TRADES objective `min_w E loss(f(x), y) + beta max_{x' allowed} KL(p(x) ||
    p(x'))`.

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573, equation 5, with beta for their
    1 / lambda. The attack ascends the divergence from the clean prediction. Its gradient is zero at
    the example itself, so the attack starts at `spread` times Gaussian noise, as in the authors'
    code (here projected onto ball and box). The weights' gradient flows through both predictions.

    Args:
      model: a flax module with `apply(variables, images, train=...)`.
      loss: of one example's logits at its label, on the clean images.
      attack: a `pgd` with one round; its objective and its start are replaced.
      beta: >= 0; 0 is standard training.
      spread: standard deviation of the start, in [0, 1] pixels.

    Returns:
      A `LossFn`: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.

    Raises:
      ValueError: if beta or spread is negative or infinite, or the attack is not a `pgd`.

    >>> import advfeat
    >>> from advfeat import models
    >>> attack = advfeat.pgd(advfeat.linf(0.031), steps=10, step_size=0.007, keep=None)
    >>> float(trades(models.create("linear", num_classes=10), advfeat.cross_entropy, attack).beta)
    6.0
    """
    for name, value in (("beta", beta), ("spread", spread)):
        check_eps(value, name=name, finite=True)
    if not isinstance(attack, GradientAttack):
        raise ValueError(f"attack must be a pgd for trades, got {type(attack).__name__}")
    if attack.rounds > 1:
        raise ValueError(f"attack must have one round for trades, got {attack.rounds}")
    fields = {f.name: getattr(attack, f.name) for f in dataclasses.fields(GradientAttack)}
    fields |= {"objective": kl_from_prediction(), "random_start": True}
    near = NearStart(**fields, spread=jnp.asarray(spread, jnp.float32))
    return Trades(model, loss, near, jnp.asarray(beta, jnp.float32))
