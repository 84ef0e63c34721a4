"""Measures distances between representations, and their order under distortions."""

from __future__ import annotations

import jax
import numpy as np

import advfeat
from advfeat.features import representations
from advfeat.images import distortions
from advfeat.types import Array, Key, ModelFn

from .plan import STRENGTHS

NEAR = 0.1
"""Relative distance below which two images count as having the same representation."""


def rank_agreements(fn: ModelFn, images: np.ndarray, name: str, *, seed: int) -> np.ndarray:
    """Returns how often the layer orders a distortion by its strength, `[N]`."""
    graded = distortions.graded(name, images, STRENGTHS, seed=seed)
    return np.asarray(
        advfeat.attack_dataset(jax.random.key(0), _ordered, fn, images, graded, batch_size=50)
    )


def _ordered(key: Key, fn: ModelFn, x: Array, graded: Array) -> Array:
    del key
    return representations.rank_agreement(fn, x, graded)


def as_pixels(x: jax.Array) -> jax.Array:
    """Returns the image itself, as a trivial representation."""
    return x


def distances(fn: ModelFn, images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns relative distances in a layer, `[N]`."""
    return np.asarray(
        advfeat.attack_dataset(jax.random.key(0), _distance, fn, images, others, batch_size=50)
    )


def _distance(key: Key, fn: ModelFn, x: Array, other: Array) -> Array:
    del key
    return representations.relative_distance(fn, x, other)
