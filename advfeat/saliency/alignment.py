"""Alignment between a gradient and its image, and cosines between images.

Etmann et al. (2019), https://arxiv.org/abs/1905.04172, definition 1.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

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


def cosines(
    one: Shaped[np.ndarray, " N *example"],
    other: Shaped[np.ndarray, " N *example"],
    *,
    centred: bool = False,
) -> Float[np.ndarray, " N"]:
    """Computes the cosine of each pair of examples, `[N]` float64.

    Args:
      one: `[N, ...]`, such as images.
      other: like `one`, such as gradients or changes of the images.
      centred: whether to subtract each example's mean first.

    Returns:
      `[N]` in [-1, 1]; 0 if one of the pair is zero.

    >>> cosines(np.array([[1.0, 0.0], [3.0, 4.0]]), np.array([[2.0, 0.0], [0.0, 0.0]])).tolist()
    [1.0, 0.0]
    """

    def unit(array: np.ndarray) -> np.ndarray:
        flat = np.asarray(array).reshape(len(array), -1).astype(np.float64)
        flat = flat - flat.mean(axis=1, keepdims=True) if centred else flat
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)

    return np.asarray(np.sum(unit(one) * unit(other), axis=1))
