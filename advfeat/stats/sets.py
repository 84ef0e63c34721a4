"""Estimates without per-point values: numbers of whole sets, and bare counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy  # which imports its parts on their first use, as `import advfeat` wants it
from jaxtyping import Real, Shaped

from advfeat.stats.estimate import FREE, Ends, Estimate, estimated
from advfeat.stats.intervals import FEW, rate


def of_set(
    compute: Callable[[Shaped[np.ndarray, " n *point"]], float],
    values: Shaped[np.ndarray, " N *point"],
    *,
    parts: int = 100,
    limits: Ends = FREE,
) -> Estimate:
    """Estimates a number of a whole set (e.g. a Fréchet distance), for a set of this size.

    The variance comes from a delete-a-third jackknife (Shao and Wu, 1989): a bootstrap would draw
    points twice, which a distance between distributions mistakes for points without spread. Such
    numbers depend on the number of points; the interval is for sets of this size.

    Args:
      compute: maps n points, for any n from two thirds of N, to the number.
      values: the points.
      parts: number of subsets of two thirds to draw.
      limits: bounds of the number.

    Returns:
      The number, with unit "number". There is no interval for fewer than `FEW` points.

    Raises:
      ValueError: if there are no points.

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
    # Without replacement, the subsets' variance is (1 - part/count) times that of sets of their
    # size.
    error = float(np.std(drawn, ddof=1)) * float(np.sqrt(part / (count - part)))

    def at(level: float) -> Ends:
        half = float(scipy.special.stdtrit(min(parts, count) - 1, 0.5 + level / 2)) * error
        return max(value - half, limits[0]), min(value + half, limits[1])

    return estimated(value, at, n=count, unit="number")


def counted(hits: float | Sequence[float] | Real[np.ndarray, "*seeds"], points: int) -> Estimate:
    """Estimates a rate from counts alone, without knowing which points were hits.

    How much several networks add to one depends on which points they miss. They are assumed to miss
    the same points as far as their counts allow, the arrangement with the widest interval.

    Args:
      hits: their number, whole, or one a seed.
      points: N.

    Returns:
      As for `rate`.

    Raises:
      ValueError: for a count that is negative or larger than the number of points.

    >>> counted(90, 100) == rate([True] * 90 + [False] * 10)
    True
    """
    found = np.asarray(hits)
    if found.ndim > 1 or points < 1 or not ((found >= 0) & (found <= points)).all():
        raise ValueError(f"hits must lie in [0, {points}], one number a seed, got {hits!r}")
    return rate(np.arange(points) < found[..., None])
