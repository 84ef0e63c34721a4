"""Estimates of what has no value point by point: numbers of whole sets, and bare counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy  # which imports its parts on their first use, as `import advfeat` wants it

from advfeat.stats.estimate import FREE, Ends, Estimate, estimated
from advfeat.stats.intervals import FEW, rate


def of_set(
    compute: Callable[[np.ndarray], float],
    values: Any,
    *,
    parts: int = 100,
    limits: Ends = FREE,
) -> Estimate:
    """A number of a whole set (a Fréchet distance), for a set of this size.

    The variance is a delete-a-third jackknife's (Shao and Wu, 1989): a bootstrap would draw points
    twice, and to a distance of two points those are a point without spread. Such numbers depend on
    how many points there are; the interval is for sets as large as this one.

    Args:
      compute: `[n, ...]` points, for any n from two thirds of N, to the number.
      values: `[N, ...]`.
      parts: how many parts of two thirds are drawn.
      limits: what the number cannot go beyond.

    Returns:
      The number, with unit "number". Fewer than `FEW` points have no interval.

    Raises:
      ValueError: for no point.

    >>> found = of_set(lambda part: float(part.mean()), np.arange(90.0))
    >>> found.mean, 3.5 < (found.high - found.low) / 2 < 8
    (44.5, True)
    """
    array = np.asarray(values)
    if array.ndim < 1 or len(array) == 0:
        raise ValueError(f"values must hold at least one point, got {array.shape}")
    count, rng = len(array), np.random.default_rng(0)
    value = float(compute(array))
    if count < FEW:
        return estimated(value, None, n=count, unit="number")
    part = 2 * count // 3
    drawn = [compute(array[rng.choice(count, part, replace=False)]) for _ in range(parts)]
    # Without replacement: parts vary by (1 - part/count) of what sets of their size do.
    error = float(np.std(drawn, ddof=1)) * float(np.sqrt(part / (count - part)))

    def at(level: float) -> Ends:
        half = float(scipy.special.stdtrit(min(parts, count) - 1, 0.5 + level / 2)) * error
        return max(value - half, limits[0]), min(value + half, limits[1])

    return estimated(value, at, n=count, unit="number")


def counted(hits: Any, points: int) -> Estimate:
    """A rate of which only counts are known: how many points, not which.

    Which points several networks miss decides how much more than one they tell. They are taken to
    miss the same ones as far as their counts allow: no other arrangement gives a wider interval.

    Args:
      hits: `[]` or `[seeds]`, whole numbers.
      points: N.

    Returns:
      As `rate`.

    Raises:
      ValueError: for more hits than points, or fewer than none.

    >>> counted(90, 100) == rate([True] * 90 + [False] * 10)
    True
    """
    found = np.asarray(hits)
    if found.ndim > 1 or points < 1 or not ((found >= 0) & (found <= points)).all():
        raise ValueError(f"hits must lie in [0, {points}], one number a seed, got {hits!r}")
    return rate(np.arange(points) < found[..., None])
