"""Which iterate an attack keeps: rules that compare a candidate with the best one so far."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advfeat.types import Array, Best

Keep = Callable[[Best, Best], Array]
"""Candidate, incumbent -> `[]` bool, whether the candidate replaces the incumbent."""


def by_score(candidate: Best, incumbent: Best) -> Array:
    """Prefers the higher score, for visualisations."""
    return candidate.score > incumbent.score


def by_success(candidate: Best, incumbent: Best) -> Array:
    """Prefers success, then the higher score, for attacks within a threat model.

    Selecting by score alone overestimated robust accuracy by up to 1.1 points: the iterate of
    highest cross-entropy is not always misclassified.
    """
    same = candidate.success == incumbent.success
    return jnp.where(same, candidate.score > incumbent.score, candidate.success)


def by_distance(candidate: Best, incumbent: Best) -> Array:
    """Prefers success, then the smaller distance (without success, the higher score)."""
    nearer = candidate.distance < incumbent.distance
    better = jnp.where(candidate.success, nearer, candidate.score > incumbent.score)
    return jnp.where(candidate.success == incumbent.success, better, candidate.success)


def choose(keep: Keep, candidate: Best, incumbent: Best) -> Best:
    """Returns the preferred of two iterates. A candidate with a NaN score never wins."""
    take = keep(candidate, incumbent) & ~jnp.isnan(candidate.score)
    return jax.tree.map(lambda new, old: jnp.where(take, new, old), candidate, incumbent)


def none_yet(x0: Array, start: Array) -> Best:
    """Returns the initial incumbent, which loses to any evaluated point."""
    return Best(
        x=start,
        score=jnp.full_like(x0, -jnp.inf, shape=(), dtype=jnp.float32),
        success=jnp.full_like(x0, False, shape=(), dtype=bool),
        distance=jnp.full_like(x0, jnp.inf, shape=(), dtype=jnp.float32),
    )
