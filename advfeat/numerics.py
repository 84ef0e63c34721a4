"""Arithmetic that stays accurate at the ends of the floating-point range."""

from __future__ import annotations

import jax.numpy as jnp

from advfeat.types import Array


def over(x: Array, scale: Array) -> Array:
    """Computes `x / scale` for a shared scale >= 0; 0 where the scale is 0.

    XLA divides by a shared number by multiplying with its reciprocal. For scales above 2**126 in
    float32 the reciprocal is subnormal and flushed to 0. Both operands are therefore first moved
    towards the middle of the range by a power of two, which is exact.

    Args:
      x: any shape.
      scale: broadcasts to `x`; one number, or one per row.

    >>> over(jnp.array([1e38, 3e38]), jnp.float32(3e38)).round(4).tolist()
    [0.3333, 1.0]
    """
    middle = jnp.finfo(scale.dtype).maxexp // 2
    high, low = 2.0**middle, 2.0**-middle
    factor = jnp.where(scale > high, low, jnp.where(scale < low, high, 1.0)).astype(scale.dtype)
    # The inner `where` keeps 1 / 0 out of the derivative.
    safe = jnp.where(scale > 0, scale * factor, jnp.ones_like(scale))
    return jnp.where(scale > 0, x * factor / safe, jnp.zeros_like(x))


def scaled(x: Array) -> tuple[Array, Array]:
    """Divides `x` by its largest magnitude and returns both; (0, 0) stays (0, 0).

    Gradients of 3e-25 and 1e38 define valid directions, but their squares are 0 and infinite.

    >>> [part.tolist() for part in scaled(jnp.array([0.5, -2.0]))]
    [[0.25, -1.0], 2.0]
    """
    largest = jnp.max(jnp.abs(x))
    return over(x, largest), largest


def finite(gradient: Array) -> Array:
    """Sets infinite and NaN entries of a gradient to 0.

    A single such entry (e.g. from the infinite slope of a square root at a black pixel) would make
    every step along the gradient NaN, and the stalled attack would suggest a robust network.

    >>> finite(jnp.array([1.0, jnp.inf, jnp.nan])).tolist()
    [1.0, 0.0, 0.0]
    """
    return jnp.where(jnp.isfinite(gradient), gradient, jnp.zeros_like(gradient))


def whole(value: Array, *, ulps: float = 2.0) -> Array:
    """Snaps values to the nearest integer if they are within rounding error of it.

    The product 0.6 * 25 equals 15, but in float32 it is 15.000001, so a floor, comparison or tie
    goes the wrong way. Rounding a factor and then the product causes an error of at most one unit;
    two units allow for a factor that was itself computed.

    Args:
      value: floating point, of any shape.
      ulps: tolerance, in units of the dtype's relative precision.

    Returns:
      Like `value`.

    >>> whole(jnp.float32(0.6) * jnp.array([25.0, 25.01])).tolist()
    [15.0, 15.006000518798828]
    """
    nearest = jnp.round(value)
    off = ulps * jnp.finfo(value.dtype).eps * jnp.abs(nearest)
    return jnp.where(jnp.abs(value - nearest) <= off, nearest, value)
