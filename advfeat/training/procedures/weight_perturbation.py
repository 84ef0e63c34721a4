"""Adversarial weight perturbation: the gradient is taken at the worst weights nearby.

Wu et al. (2020), https://arxiv.org/abs/2004.05884.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from advfeat.checks import check_eps, check_share
from advfeat.numerics import over
from advfeat.threats.norms import l2_length
from advfeat.training.procedures.base import (
    Procedure,
    check_accumulate,
    gradients,
    prepared,
    updated,
)
from advfeat.training.state import TrainState
from advfeat.types import Array, Batch, Key, LossFn, Metrics


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class WeightPerturbation(Procedure):
    """The gradient at perturbed weights, applied to the unperturbed ones. See `awp`.

    Attributes:
      gamma: `[]`, the perturbation's length over the weights', layer by layer.
      warmup: `[]`, the share of the training before it begins.
    """

    gamma: Array
    warmup: Array

    def step(
        self,
        key: Key,
        loss_fn: LossFn,
        optimiser: optax.GradientTransformation,
        state: TrainState,
        batch: Batch,
        share: Array,
    ) -> tuple[TrainState, Metrics]:
        """Attack once, ascend in the weights, descend from there; the metrics are those there."""
        key_prepare, key_descend = jax.random.split(key)
        weights = (state.params, state.model_state)
        batch = prepared(loss_fn, key_prepare, *weights, batch, self.accumulate)
        uphill, _ = gradients(loss_fn, key_descend, *weights, batch, self.accumulate)
        gamma = jnp.where(share >= self.warmup, self.gamma, 0.0)
        worse = jax.tree.map(
            lambda w, g: w + perturbation(gamma, w, g), state.params, uphill["params"]
        )
        gradient, (model_state, metrics) = gradients(
            loss_fn, key_descend, worse, state.model_state, batch, self.accumulate
        )
        state = updated(optimiser, state, gradient["params"], model_state)
        return state._replace(step=state.step + 1), metrics


def perturbation(gamma: Array, weight: Array, gradient: Array) -> Array:
    """`gamma * |w| * g / |g|` for one layer's kernel, and nothing for vectors and zero gradients.

    Biases and the scales of batch normalisation are left alone, as in the authors' code.
    """
    if weight.ndim < 2:
        return jnp.zeros_like(weight)
    unit = over(gradient, l2_length(gradient))
    return (gamma * l2_length(weight) * unit).astype(weight.dtype)


def awp(
    *, gamma: float | Array = 0.01, warmup: float | Array = 0.0, accumulate: int = 1
) -> WeightPerturbation:
    """Adversarial weight perturbation: `min_w max_v E loss(w + v)`, `|v_l| <= gamma |w_l|`.

    Wu et al. (2020), https://arxiv.org/abs/2004.05884, equations 7 to 9 with one step: layer by
    layer `v = gamma |w| g / |g|`, g the gradient at the attacked batch; the weights then move along
    the gradient at w + v. The batch is attacked once, at the unperturbed weights. Momentum and
    weight decay see w. It goes with any objective of this package; a foreign loss with its attack
    inside is attacked twice.

    Args:
      gamma: `[]`, the paper's 0.005 to 0.01.
      warmup: `[]`, the share of the training before the perturbation begins (the authors begin it
        after 10 of 200 epochs).
      accumulate: in how many parts a batch is attacked and differentiated.

    Raises:
      ValueError: for a gamma that is negative or infinite, a warm-up outside [0, 1], or a count
        below 1.

    >>> float(awp(gamma=0.5).gamma)
    0.5
    """
    check_eps(gamma, name="gamma", finite=True)
    check_share(warmup, name="warmup")
    check_accumulate(accumulate)
    return WeightPerturbation(
        jnp.asarray(gamma, jnp.float32), jnp.asarray(warmup, jnp.float32), accumulate=accumulate
    )
