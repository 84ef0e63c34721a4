"""Numbers that are meant to be whole, and of which rounding has made something beside it."""

from __future__ import annotations

import jax.numpy as jnp

from advfeat.types import Array


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
