"""Confidence intervals over test points and, with several networks, over their seeds.

Networks are rows and points are columns. Each point is seen by every network, so the variance of
the grand mean has a part from the points, one from the seeds and a residual (a two-way layout
without repetition). The seeds' part, estimated from few seeds, uses Student's quantile with one
degree of freedom fewer than there are seeds. The seeds' spread contains the residual once more; of
it, only the share is subtracted that keeps the coverage at 95 % for every spread (`shared`),
because three seeds that happen to agree do not show that all would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # which imports its parts on their first use, as `import advfeat` wants it
from jaxtyping import Float, Shaped

from advfeat.stats.estimate import FREE, Ends, Estimate, Unit, estimated

Values = Shaped[np.ndarray, "... N"] | Sequence[Any]
"""Values of N points, of one network or of several: booleans or numbers, as an array or a list."""

FEW = 10
"""With fewer values than this, or points in fewer, a mean has no trustworthy interval."""
_RELIABLE = 20  # with fewer points that differ from the rest, their variance is unreliable
_ROUNDING = 1e-5
_HIDES_TAIL, _SHOWS_TAIL, _HIDDEN = 25, 75, 0.4
"""The share of the level's tails used for a mean of few values; it rises to all of them between the
two counts. Otherwise intervals of ten lognormal values would cover in 90 % (docs/intervals.md)."""


class _Parts(NamedTuple):
    """Variance of the grand mean: from the points (including the residual) and from the seeds."""

    points: Any
    seeds: Any
    freedom: int  # degrees of freedom of the seeds' part; 0 for one seed


def t_quantile(level: float, freedom: Any) -> Any:
    """Returns Student's quantile for a two-sided interval."""
    return scipy.special.stdtrit(freedom, 0.5 + level / 2)


def _normal(level: float) -> float:
    return float(scipy.special.ndtri(0.5 + level / 2))


def shared(seeds: int) -> float:
    """Returns the share of the residual that may be subtracted from the seeds' spread.

    Chosen by exact coverage over all ratios of the two variances: at least 0.947 for 2 to 8 seeds
    (docs/intervals.md).
    """
    return (seeds - 2) / (seeds + 1)


def _covariance(array: Float[np.ndarray, "S N"]) -> Float[np.ndarray, "S S"]:
    """Returns the covariance of the rows over points; zero for one point."""
    seeds, points = array.shape
    return np.cov(array).reshape(seeds, seeds) if points > 1 else np.zeros((seeds, seeds))


def _parts(
    rows: Float[np.ndarray, "*sets S"], covariance: Float[np.ndarray, "*sets S S"], points: int
) -> _Parts:
    """Decomposes the variance, from row means and their covariance."""
    seeds = rows.shape[-1]
    whole = covariance.mean(axis=(-2, -1))
    if seeds == 1:
        return _Parts(whole / points, np.zeros_like(whole), 0)
    between = rows.var(axis=-1, ddof=1) / seeds
    rest = (np.trace(covariance, axis1=-2, axis2=-1) - seeds * whole) / (seeds - 1)
    spread = between - shared(seeds) * rest / (seeds * points)
    return _Parts(whole / points, np.maximum(spread, 0.0), seeds - 1)


def _korn_graubard(mean: Any, count: Any, level: float) -> tuple[Any, Any]:
    """Returns the Clopper-Pearson interval of a rate for an effective number of points.

    Korn and Graubard, 1998, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data". Exact for independent points of one network.
    """
    tail, hits = (1 - level) / 2, mean * count
    low = scipy.special.betaincinv(np.where(mean > 0, hits, 1.0), count - hits + 1, tail)
    high = scipy.special.betaincinv(hits + 1, np.where(mean < 1, count - hits, 1.0), 1 - tail)
    return np.where(mean > 0, low, 0.0), np.where(mean < 1, high, 1.0)


def _rate_ends(mean: Any, parts: _Parts, counted: Any, most: Any, level: float) -> tuple[Any, Any]:
    """Returns intervals of rates by an effective number of points, between 1 and `most`.

    `counted` is the effective number if the variance does not determine one.
    """
    normal, spread = _normal(level), mean * (1 - mean)
    square = normal**2 * parts.points
    if parts.freedom:
        square = square + t_quantile(level, parts.freedom) ** 2 * parts.seeds
    unsure = (square > 0) & (spread > 0)
    effective = np.where(unsure, spread * normal**2 / np.where(unsure, square, 1.0), counted)
    return _korn_graubard(mean, np.clip(effective, 1.0, most), level)


def _hits(name: str, values: Values) -> Float[np.ndarray, "seeds N"]:
    """Validates and returns hits."""
    array = np.atleast_2d(np.asarray(values, np.float64))
    if np.ndim(values) not in (1, 2) or array.size == 0:
        raise ValueError(f"{name} must have shape [N] or [seeds, N], got {np.shape(values)}")
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} must lie in [0, 1], got {array.min()} to {array.max()}")
    return array


def rate(hits: Values, *, among: Values | None = None) -> Estimate:
    """Estimates a rate with its interval over test points and, if there are several, over seeds.

    With one seed it is the Clopper-Pearson interval, whose coverage is at least nominal. With more,
    the variance of the mean determines an effective number of points (Korn and Graubard, 1998),
    which is at most the actual number if too few points differ.

    Args:
      hits: in [0, 1]: booleans, or shares (of a randomised network's draws).
        One row per independently trained network.
      among: booleans of the same shape: the rate among these only, e.g. the share of correctly
        classified images that an attack fools. By default all.

    Returns:
      The rate; n is the number of points (if restricted, the mean over seeds of the counted ones).

    Raises:
      ValueError: for an empty array, another rank, entries outside [0, 1], or no selected point.

    >>> rate([True] * 90 + [False] * 10)
    Estimate(mean=0.9, low=0.823..., high=0.950..., n=100, seeds=1, unit='rate')
    >>> rate([1, 1, 0, 0], among=[1, 1, 1, 0]).mean
    0.666...
    """
    array = _hits("hits", hits)
    weight = np.ones_like(array)
    if among is not None:
        weight = np.atleast_2d(np.asarray(among, bool)).astype(np.float64)
        if weight.shape != array.shape:
            raise ValueError(
                f"among must have the shape of hits, {array.shape}, got {weight.shape}"
            )
        if not weight.any():
            raise ValueError("among must hold at least one point")
    seeds = len(array)
    mean = float((array * weight).sum() / weight.sum())
    counted = float(weight.sum()) / seeds
    if seeds == 1 and not np.any((array > 0) & (array < 1)):
        # Exact: hits of one network are binomial.
        parts, most = _Parts(0.0, 0.0, 0), counted
    else:
        # Linearisation of the ratio: its grand mean is 0, its variance that of the rate.
        line = weight * (array - mean) / weight.mean()
        parts = _parts(line.mean(axis=1), _covariance(line), array.shape[1])
        sides = (weight * array, weight * (1 - array))
        events = min(int(side.any(axis=0).sum()) for side in sides)
        most = counted * (seeds if events >= _RELIABLE else 1)

    def at(level: float) -> Ends:
        low, high = _rate_ends(mean, parts, counted, most, level)
        return float(low), float(high)

    return estimated(mean, at, n=round(counted), seeds=seeds)


def difference(effect: Values, control: Values, *, same_networks: bool = False) -> Estimate:
    """Estimates the difference of two rates on the same points, paired point by point.

    For values that are not rates, use `mean` of the differences: the points added here suit hits,
    and would widen the interval of small differences, however certain. Two points are added for the
    interval, one for each side (Bonett and Price, 2012); without them it would have no width if all
    points agree. The two sides may have different numbers of networks; their spreads are treated as
    independent (Welch) unless they are the same networks.

    Args:
      effect: in [0, 1].
      control: in [0, 1], at the same N points.
      same_networks: whether each row is the same network on both sides, e.g. its accuracy with and
        without an attack; the spread is then that of each network's own difference.

    Returns:
      The difference, in [-1, 1], in points.

    Raises:
      ValueError: for an empty array, another rank, entries outside [0, 1], different numbers of
        points, or different numbers of networks that should be the same.

    >>> difference([1, 1, 1, 0], [0, 0, 0, 0]).mean
    0.75
    """
    first, second = _hits("effect", effect), _hits("control", control)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"both must be of the same points, got {first.shape} and {second.shape}")
    if same_networks and first.shape != second.shape:
        raise ValueError(f"both must be of the same networks, got {first.shape}, {second.shape}")
    points = first.shape[1]
    paired = first.mean(axis=0) - second.mean(axis=0)
    sides = [
        _parts(each.mean(axis=1), _covariance(each), points)
        for each in ([first - second] if same_networks else [first, second])
    ]

    middle, variance = float(paired.mean()), float(paired.var())

    def at(level: float) -> Ends:
        low, high = _difference_ends(middle, variance, points, sides, level)
        return float(low), float(high)

    seeds = max(len(first), len(second))
    return estimated(middle, at, n=points, seeds=seeds, unit="points")


def _difference_ends(
    mean: Any, variance: Any, points: int, sides: Sequence[_Parts], level: float
) -> tuple[Any, Any]:
    """Returns the interval of paired differences from mean, variance and the sides' seeds."""
    centre = points * mean / (points + 2)
    of_points = (points * (variance + mean**2) + 2) / (points + 2) - centre**2
    square = t_quantile(level, points + 1) ** 2 * of_points / (points + 2)
    sides = [part for part in sides if part.freedom]
    if sides:
        of_seeds = sum(part.seeds for part in sides)
        pieces = sum(part.seeds**2 / part.freedom for part in sides)
        freedom = np.where(pieces > 0, of_seeds**2 / np.where(pieces > 0, pieces, 1.0), 1.0)
        square = square + t_quantile(level, freedom) ** 2 * of_seeds
    half = np.sqrt(square)
    return np.maximum(centre - half, -1.0), np.minimum(centre + half, 1.0)


def apart(effect: Estimate, control: Estimate) -> Estimate:
    """Estimates the difference of two independent estimates from their intervals.

    The method of variance estimates recovery (Zou and Donner, 2008) is as accurate as the two
    intervals, including skewed ones. Use it for estimates on different points or networks.

    >>> wide = apart(rate([1] * 9 + [0]), rate([1] + [0] * 9))
    >>> round(wide.mean, 2), wide.low > 0, wide.unit
    (0.8, True, 'points')
    """
    unit: Unit = "number" if "number" in (effect.unit, control.unit) else "points"
    one, other = effect.at, control.at
    gap, n = effect.mean - control.mean, min(effect.n, control.n)
    seeds = min(effect.seeds, control.seeds)
    if one is None or other is None:
        return estimated(gap, None, n=n, seeds=seeds, unit=unit)

    def at(level: float) -> Ends:
        (low, high), (below, above) = one(level), other(level)
        down = float(np.hypot(effect.mean - low, above - control.mean))
        up = float(np.hypot(high - effect.mean, control.mean - below))
        return gap - down, gap + up

    return estimated(gap, at, n=n, seeds=seeds, unit=unit)


def mean(values: Values, *, limits: Ends = FREE) -> Estimate:
    """Estimates a mean with its interval, for values that are not rates.

    Over points, each end is the wider of Student's interval and Hall's (1992, "On the removal of
    skewness by transformation"). Scores that accumulate at a limit are skewed, and Student's
    interval of two dozen of them covers 92 % instead of 95. Few values often show nothing of a long
    tail, so up to 25 values get the 98 % interval if 95 % is requested; from 75 on, the requested
    level is used. Over seeds as in `rate`. If all points are equal, the interval allows for as many
    unseen points at a limit as these could have missed (Clopper and Pearson's bound); without
    limits there is no interval.

    Args:
      values: one a point, finite.
      limits: bounds of the values, at which the interval ends as well.

    Returns:
      The mean, with unit "number". There is no interval for fewer than `FEW` points, or for equal
      points without limits.

    Raises:
      ValueError: for no value, a value that is not finite, or one beyond the limits.

    >>> mean([1.0, 3.0])
    Estimate(mean=2.0, low=None, high=None, n=2, seeds=1, unit='number')
    >>> mean(np.linspace(0.7, 1.0, 11), limits=(0.0, 0.9 + 0.1)).mean
    0.85
    """
    array = np.atleast_2d(np.asarray(values, np.float64))
    if np.ndim(values) not in (1, 2) or array.size == 0:
        raise ValueError(
            f"values must hold at least one, in shape [N] or [seeds, N], got {np.shape(values)}"
        )
    if not np.isfinite(array).all():
        raise ValueError("values must be finite: a mean of NaN or infinity says nothing")
    if np.any((array < limits[0] - _ROUNDING) | (array > limits[1] + _ROUNDING)):
        raise ValueError(f"values must lie in {list(limits)}, got {array.min()} to {array.max()}")
    seeds, points = array.shape
    middle, columns = float(array.mean()), array.mean(axis=0)
    parts = _parts(array.mean(axis=1), _covariance(array), points)

    # Tolerate rounding by one unit in the last place of a limit.
    middle, equal = float(np.clip(middle, *limits)), bool(np.ptp(columns) == 0)
    error, skew = (0.0, 0.0) if equal else _moments(columns)

    def at(level: float) -> Ends:
        if equal:
            missed = 1 - ((1 - level) / 2) ** (1 / points)
            below, above = missed * (middle - limits[0]), missed * (limits[1] - middle)
        else:
            below, above = _reach(points, error, skew, level)
        student = 0.0
        if parts.freedom:
            student = float(t_quantile(level, parts.freedom) ** 2 * parts.seeds)
        low, high = middle - np.hypot(below, student**0.5), middle + np.hypot(above, student**0.5)
        return max(float(low), limits[0]), min(float(high), limits[1])

    tells = points >= FEW and not (equal and not np.isfinite(limits).all())
    return estimated(middle, at if tells else None, n=points, seeds=seeds, unit="number")


def _moments(values: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """Returns the standard error of the mean, and its skewness."""
    count, spread = len(values), float(values.std(ddof=1))
    skew = float((((values - values.mean()) / spread) ** 3).mean())
    return spread / count**0.5, skew / count**0.5


def _reach(count: int, error: float, skew: float, level: float) -> tuple[float, float]:
    """Returns the interval's reach below and above the mean: the wider of Student's and Hall's."""
    shown = np.clip((count - _HIDES_TAIL) / (_SHOWS_TAIL - _HIDES_TAIL), 0, 1)
    level = 1 - (1 - level) * (_HIDDEN + (1 - _HIDDEN) * float(shown))
    student = float(t_quantile(level, count - 1))
    if abs(skew) < 1e-6:
        return student * error, student * error

    def back(bound: float) -> float:  # Hall's cubic, inverted
        return float((np.cbrt(1 + skew * (bound - skew / 6)) - 1) / (skew / 3))

    return error * max(student, back(student)), error * max(student, -back(-student))
