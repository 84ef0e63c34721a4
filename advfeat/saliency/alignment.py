"""Alignment between a gradient and its image.

Etmann et al. (2019), https://arxiv.org/abs/1905.04172, definition 1.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from advfeat.threats.norms import L2
from advfeat.types import Array


def alignment(x: Float[Array, "*x"], gradient: Float[Array, "*x"]) -> Float[Array, ""]:
    """Computes `|<x, g>| / |g|`; for a linear score without bias, the distance to its zero set.

    Args:
      x: ONE example.
      gradient: gradient of a score at `x`.

    Returns:
      The alignment, in the image's units; 0 for a zero gradient. Divided by `|x|` it is the
      absolute cosine.

    >>> float(alignment(jnp.array([3.0, 1.0]), jnp.array([2.0, 0.0])))
    3.0
    """
    return jnp.abs(jnp.sum(x * L2.direction(x, gradient)))
