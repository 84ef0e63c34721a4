"""Adversarial weight perturbation: takes the gradient at the worst weights nearby.

Wu et al. (2020), https://arxiv.org/abs/2004.05884.
"""

from __future__ import annotations

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
    updated,
)
from advfeat.training.state import TrainState
from advfeat.types import Array, Batch, Key, LossFn, Metrics, pytree


@pytree
class WeightPerturbation(Procedure):
    """Applies the gradient at perturbed weights to the unperturbed ones; see `awp`.

    Attributes:
      gamma: `[]`, length of the perturbation relative to the weights', per layer.
      warmup: `[]`, the share of the training before the perturbation begins.
    """

    gamma: Array
    warmup: Array

    def finish(
        self,
        key: Key,
        loss_fn: LossFn,
        optimiser: optax.GradientTransformation,
        state: TrainState,
        batch: Batch,
        share: Array,
    ) -> tuple[TrainState, Metrics]:
        """Ascends in the weights and descends from there; metrics are from there."""
        _, key_descend = jax.random.split(key)
        weights = (state.params, state.model_state)
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
    """Returns `gamma * |w| * g / |g|` for a layer's kernel; zero for vectors or a zero gradient.

    Biases and batch-normalisation scales stay unperturbed, as in the authors' code.
    """
    if weight.ndim < 2:
        return jnp.zeros_like(weight)
    unit = over(gradient, l2_length(gradient))
    return (gamma * l2_length(weight) * unit).astype(weight.dtype)


def awp(
    *, gamma: float | Array = 0.01, warmup: float | Array = 0.0, accumulate: int = 1
) -> WeightPerturbation:
    """Returns adversarial weight perturbation: `min_w max_v E loss(w + v)`, `|v_l| <= gamma |w_l|`.

    Wu et al. (2020), https://arxiv.org/abs/2004.05884, equations 7 to 9 with one step: per layer,
    `v = gamma |w| g / |g|` with g the gradient at the attacked batch; the weights then move along
    the gradient at w + v. The batch is attacked once, at the unperturbed weights. Momentum and
    weight decay apply to w. Works with any objective of this package; a foreign loss that contains
    its own attack is attacked twice.

    Args:
      gamma: `[]`; the paper uses 0.005 to 0.01.
      warmup: `[]`, the share of the training before the perturbation begins (the authors begin it
        after 10 of 200 epochs).
      accumulate: number of parts in which a batch is attacked and differentiated.

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
