"""Confidence intervals of arbitrary functions of hits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

from advfeat.stats.estimate import FREE, Ends, Estimate, estimated
from advfeat.stats.intervals import FEW, shared, t_quantile

_REST_DRAWS, _PADDINGS = 100, 20


def computed(
    compute: Callable[..., float],
    *hits: Shaped[np.ndarray, "seeds ... _"],
    draws: int = 300,
    limits: Ends = FREE,
) -> Estimate:
    """Estimates any function of hits (a gap, a ratio, a correlation) with its interval.

    The points' part of the variance comes from a bootstrap over points, the same points for all
    seeds; the seeds' part comes from a jackknife with Student's quantile, since three seeds are too
    few to resample. What resampling the points adds to the latter is partly subtracted, as in
    `rate`. If the values are hits, the interval is that of the points plus four more, two of them
    hits and two not (Agresti and Coull, 1998). For hits with axes in between, one added point is a
    hit everywhere, one nowhere, one at a single place and one everywhere else. Without them, a
    bootstrap over identical points would show no uncertainty. For a ratio of hits to hits,
    `rate(among=...)` is sharper.

    Args:
      compute: maps the arrays, in their order, to the number; it accepts any number of seeds and
        points.
      *hits: the last axis is that of the points: the same seeds in all, different points in each.
        Quantities compared on the same points go into one array, along the axes in between.
      draws: number of bootstrap draws.
      limits: bounds of the number.

    Returns:
      The number, with n the smallest number of points. There is no interval for fewer than `FEW`
      points, or if the number is not finite on the points or on some bootstrap draw.

    Raises:
      ValueError: for no array, an empty one, one that is not finite, or arrays with different
        numbers of seeds.

    >>> right = np.repeat([True, False], [90, 10])[None]
    >>> computed(lambda hits: 2 * hits.mean(), right).mean
    1.8
    """
    arrays = [np.asarray(array) for array in hits]
    if not arrays or any(array.ndim < 2 or array.size == 0 for array in arrays):
        raise ValueError(f"hits must have shape [seeds, ..., N], got {[np.shape(h) for h in hits]}")
    seeds, points = len(arrays[0]), min(array.shape[-1] for array in arrays)
    if any(len(array) != seeds for array in arrays):
        raise ValueError(f"hits must be of the same seeds, got {[len(a) for a in arrays]}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("hits must be finite")
    value = float(compute(*arrays))
    unknown = estimated(value, None, n=points, seeds=seeds, unit="number")
    if points < FEW:
        return unknown
    with np.errstate(invalid="ignore"):
        centre, of_points, of_seeds = _redrawn(compute, arrays, draws)
    if not np.isfinite([value, centre, of_points, of_seeds]).all():
        return unknown

    def at(level: float) -> Ends:
        square = t_quantile(level, points - 1) ** 2 * of_points
        if of_seeds > 0:
            square += t_quantile(level, seeds - 1) ** 2 * of_seeds
        half = float(np.sqrt(square))
        low, high = min(value, centre - half), max(value, centre + half)
        return max(low, limits[0]), min(high, limits[1])

    return estimated(value, at, n=points, seeds=seeds, unit="number")


def _redrawn(
    compute: Callable[..., float], arrays: list[np.ndarray], draws: int
) -> tuple[float, float, float]:
    """Returns the number with added points, and its variance: the points' part and the seeds'."""
    seeds, rng = len(arrays[0]), np.random.default_rng(0)
    hits = [bool(np.isin(array, (0, 1)).all()) for array in arrays]

    def without(sample: list[np.ndarray]) -> np.ndarray:
        return np.array(
            [compute(*(np.delete(a, one, axis=0) for a in sample)) for one in range(seeds)]
        )

    # If all ways to add points are the same, one is enough.
    ways = _PADDINGS if any(array[0, ..., 0].size > 1 for array in arrays) else 1
    padded = [
        [_padded(a, rng) if hit else a for a, hit in zip(arrays, hits, strict=True)]
        for _ in range(ways if any(hits) else 1)
    ]
    centre = float(np.mean([compute(*each) for each in padded]))
    samples = [
        [a[..., rng.integers(0, a.shape[-1], a.shape[-1])] for a in padded[draw % len(padded)]]
        for draw in range(draws)
    ]
    of_points = float(np.var([compute(*sample) for sample in samples], ddof=1))
    of_seeds = 0.0
    if seeds > 1:
        full = without(arrays)
        of_seeds = float(np.var(full)) * (seeds - 1)
    if shared(max(seeds, 2)) > 0:
        moved = [np.var(without(sample) - full) for sample in samples[:_REST_DRAWS]]
        of_seeds -= shared(seeds) * float(np.mean(moved)) * (seeds - 1)
    return centre, of_points, max(of_seeds, 0.0)


def _padded(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Appends four points, the same for all seeds."""
    places = np.zeros(array.shape[1:-1], bool)
    if places.size > 1:
        places.flat[rng.integers(places.size)] = True
    more = np.stack([places, ~places, np.ones_like(places), np.zeros_like(places)], axis=-1)
    more = np.broadcast_to(more, (len(array), *more.shape))
    return np.concatenate([array, more.astype(array.dtype)], axis=-1)
