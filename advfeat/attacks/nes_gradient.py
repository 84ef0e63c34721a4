"""Gradients estimated from scores, for attacks on networks whose true gradient is useless.

Estimates the gradient of the Gaussian-smoothed network from antithetic pairs of forward passes:
Wierstra et al. (2014), "Natural Evolution Strategies", as used for attacks by Ilyas et al. (2018),
https://arxiv.org/abs/1804.08598, section 2.1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, erfc

from advfeat.checks import check_between, check_positive
from advfeat.numerics import finite
from advfeat.types import (
    Array,
    Key,
    ModelFn,
    Randomised,
    as_model_fn,
    pytree,
    randomised,
    static,
    with_key,
)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _call(pairs: int, model_fn: ModelFn, sigma: Array, key: Key, x: Array) -> Array:
    del pairs, sigma, key
    return model_fn(x)


def _forward(
    pairs: int, model_fn: ModelFn, sigma: Array, key: Key, x: Array
) -> tuple[Array, tuple[Any, ...]]:
    return _call(pairs, model_fn, sigma, key, x), (model_fn, sigma, key, x)


def _backward(pairs: int, kept: tuple[Any, ...], cotangent: Array) -> tuple[Any, ...]:
    model_fn, sigma, key, x = kept

    def add(index: Array, total: Array) -> Array:
        noise = jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        up, down = jnp.clip(x + sigma * noise, 0.0, 1.0), jnp.clip(x - sigma * noise, 0.0, 1.0)
        # Pairs with a non-finite output are dropped. The cast supports networks of another
        # precision than the image, e.g. with float64 weights.
        rise = finite(jnp.vdot(cotangent, model_fn(up) - model_fn(down))).astype(x.dtype)
        return total + rise * (up - down)

    sigma = sigma.astype(x.dtype)
    total = jax.lax.fori_loop(0, pairs, add, jnp.zeros_like(x))
    return None, None, None, (total / (pairs * _mean_square(sigma, x))).astype(x.dtype)


def _mean_square(sigma: Array, x: Array) -> Array:
    """Computes the mean squared difference of a pair, per pixel.

    It is `4 sigma^2` far from the faces of the box and `sigma^2` on a face, where one of the two
    points is clipped. With n standard normal and a, b the room below and above over sigma, it is
    `sigma^2` times the mean of `(min(|n|, a) + min(|n|, b))^2`.
    """

    def together(low: Array, high: Array) -> Array:  # the mean of min(|n|, low) * min(|n|, high)
        below = erf(low / np.sqrt(2)) - low * np.sqrt(2 / np.pi) * jnp.exp(-0.5 * high**2)
        return below + low * high * erfc(high / np.sqrt(2))

    # No draw exceeds 10 sigma, and without the cap infinity times 0 would be NaN.
    below, above = (jnp.clip(room / sigma, 0.0, 10.0) for room in (x, 1.0 - x))
    mixed = together(jnp.minimum(below, above), jnp.maximum(below, above))
    return sigma**2 * (together(below, below) + together(above, above) + 2 * mixed)


_call.defvjp(_forward, _backward)


@pytree
class _Estimated:
    """Key, example -> logits with an estimated gradient; `pairs` is static."""

    model_fn: ModelFn
    sigma: Array
    pairs: int = static()

    def __call__(self, key: Key, x: Array) -> Array:
        key_model, key_noise = jax.random.split(key)
        return _call(self.pairs, with_key(self.model_fn, key_model), self.sigma, key_noise, x)


def with_nes_gradient(model_fn: ModelFn, *, sigma: float | Array, pairs: int = 32) -> Randomised:
    """Wraps a network so that its gradient is estimated from scores at every evaluation.

    Args:
      model_fn: the network, for ONE example.
      sigma: `[]`, standard deviation of the noise, in units of [0, 1] pixels. It should span the
        structure that masks the gradient, e.g. one quantisation step. Noisy points are clipped to
        the box, and the estimate corrects for it: it is unbiased for a linear network, also on the
        faces of the box.
      pairs: pairs of forward passes per gradient. The cosine between the estimate and the gradient
        of the smoothed network is about `sqrt(pairs / (pairs + D))`, with D pixel values.

    Returns:
      A network for any gradient attack: forward passes are exact, each backward pass costs
      `2 * pairs` forward passes.

    Raises:
      ValueError: for `pairs` below 1, or a sigma that is not positive and finite.

    >>> network = with_nes_gradient(lambda x: jnp.round(4 * x), sigma=0.2, pairs=500)
    >>> gradient = jax.grad(lambda x: network(x)[0])(jnp.array([0.5, 0.5]))
    >>> bool(jnp.max(jnp.abs(gradient - jnp.array([4.0, 0.0]))) < 1.0)
    True
    """
    check_positive(pairs, name="pairs")
    check_between(sigma, name="sigma", closed=(False, False))
    sigma = jnp.asarray(sigma, jnp.float32)
    return randomised(_Estimated(as_model_fn(model_fn), sigma, pairs))
