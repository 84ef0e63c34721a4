"""Arithmetic that still holds at the ends of the floating-point range."""

from __future__ import annotations

import jax.numpy as jnp

from advfeat.types import Array


def over(x: Array, scale: Array) -> Array:
    """`x / scale`, for a scale >= 0 that many values share; 0 where the scale is 0.

    XLA divides by a shared number by multiplying by its reciprocal, which is a subnormal number,
    rounded to 0, for scales above 2**126 in float32. So both are first brought towards the middle
    of the range by a power of two, which rounds nothing.

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
    """`x` divided by its largest magnitude, and that magnitude; (0, 0) stays (0, 0).

    A gradient of 3e-25 is a direction too, and so is one of 1e38, but their squares are 0 and
    infinite.

    >>> [part.tolist() for part in scaled(jnp.array([0.5, -2.0]))]
    [[0.25, -1.0], 2.0]
    """
    largest = jnp.max(jnp.abs(x))
    return over(x, largest), largest


def finite(gradient: Array) -> Array:
    """A gradient whose entries that are infinite or NaN are 0.

    One such entry (the root of a black pixel has an infinite slope) would otherwise make every step
    along the gradient NaN, and an attack that goes nowhere looks like a robust network.

    >>> finite(jnp.array([1.0, jnp.inf, jnp.nan])).tolist()
    [1.0, 0.0, 0.0]
    """
    return jnp.where(jnp.isfinite(gradient), gradient, jnp.zeros_like(gradient))


def whole(value: Array, *, ulps: float = 2.0) -> Array:
    """The nearest whole number where a value is within rounding of it; else the value as it is.

    A product such as 0.6 * 25 is 15, but in float32 it is 15.000001, above 15 and not equal to it:
    a floor, a comparison or a tie then goes the wrong way. Rounding a factor and then the product
    makes one unit at most; two leave room for a factor that was itself computed.

    Args:
      value: floating point, of any shape.
      ulps: how far off still counts, in units of the dtype's relative precision.

    Returns:
      Like `value`.

    >>> whole(jnp.float32(0.6) * jnp.array([25.0, 25.01])).tolist()
    [15.0, 15.006000518798828]
    """
    nearest = jnp.round(value)
    off = ulps * jnp.finfo(value.dtype).eps * jnp.abs(nearest)
    return jnp.where(jnp.abs(value - nearest) <= off, nearest, value)
