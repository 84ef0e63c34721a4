"""Rates with their intervals, and what may be claimed from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

HOLDS, FAILS, OPEN = "holds", "does not hold here", "not decidable at this size"
RELEVANT = 0.05
"""A difference of rates below this is taken for none."""
SHARE = (0.0, 1.0)
"""The limits of a share, a probability or an area under a curve of them."""
CORRELATION = (-1.0, 1.0)
"""The limits of a correlation, a cosine or a likeness."""
_ROUNDING = 1e-5


def _wilson(mean: float, count: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval for a proportion out of `count`, which need not be whole."""
    square = quantile**2
    centre = (mean + square / (2 * count)) / (1 + square / count)
    half = quantile * np.sqrt(mean * (1 - mean) / count + square / (4 * count**2))
    half /= 1 + square / count
    # At 0 and 1 the bound is exact in theory and 1e-18 off in floating point.
    low = 0.0 if mean == 0 else max(0.0, centre - half)
    return low, 1.0 if mean == 1 else min(1.0, centre + half)


def rate(hits: Any, *, level: float = 0.95) -> dict[str, Any]:
    """A rate with its interval over test points and, where there are several, over seeds.

    With one seed it is Wilson's interval. With more, the variance of the mean has a part from the
    points (of the per-point means) and a part from the seeds; both enter Wilson's formula as an
    effective number of points, and the quantile is Student's with Satterthwaite's degrees of
    freedom, since three seeds say little about their own spread.

    Args:
      hits: `[N]` or `[seeds, N]`, booleans, 0 or 1: one row per independently trained network.
      level: the interval's coverage.

    Returns:
      `{"mean", "low", "high", "n", "seeds"}` with rates in [0, 1] and n the number of points.

    Raises:
      ValueError: for an empty array, another rank, or entries outside [0, 1].

    >>> rate([True] * 90 + [False] * 10)["mean"]
    0.9
    """
    array = np.atleast_2d(np.asarray(hits, np.float64))
    if np.ndim(hits) not in (1, 2) or array.size == 0:
        raise ValueError(f"hits must have shape [N] or [seeds, N], got {np.shape(hits)}")
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError("hits must lie in [0, 1]")
    seeds, points = array.shape
    mean = float(array.mean())
    variance = float(array.mean(axis=0).var()) / points
    quantile = float(stats.norm.ppf(0.5 + level / 2))
    if seeds > 1:
        # The rows' spread holds some sampling of the points once more: that errs on the wide side.
        between = float(array.mean(axis=1).var(ddof=1)) / seeds
        total = variance + between
        if total > 0 and between > 0:
            freedom = total**2 / (between**2 / (seeds - 1) + variance**2 / max(points - 1, 1))
            quantile = float(stats.t.ppf(0.5 + level / 2, freedom))
        variance = total
    effective = mean * (1 - mean) / variance if variance > 0 else float(points)
    low, high = _wilson(mean, max(effective, 1.0), quantile)
    return {"mean": mean, "low": low, "high": high, "n": points, "seeds": seeds}


def difference(effect: Any, control: Any, *, level: float = 0.95) -> dict[str, Any]:
    """The difference of two rates measured on the same points, paired point by point.

    Of values that are no rates, take the `mean` of the differences: the points added here are for
    hits, and make of small differences, however sure, a wide interval.

    Two points are added for the interval, one for each side (Bonett and Price, 2012): without them
    it has no width where every point says the same.

    Args:
      effect: `[N]` or `[seeds, N]`.
      control: `[N]` or `[seeds, N]`, the same N points.
      level: the interval's coverage.

    Returns:
      `{"mean", "low", "high", "n"}` in [-1, 1]; the interval is over points and seeds.

    Raises:
      ValueError: for an empty array, another rank, or points that differ in number.

    >>> difference([1, 1, 1, 0], [0, 0, 0, 0])["mean"]
    0.75
    """
    for name, array in (("effect", effect), ("control", control)):
        if np.ndim(array) not in (1, 2) or np.size(array) == 0:
            raise ValueError(f"{name} must have shape [N] or [seeds, N], got {np.shape(array)}")
    first = np.atleast_2d(np.asarray(effect, np.float64))
    second = np.atleast_2d(np.asarray(control, np.float64))
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"both must be of the same points, got {first.shape} and {second.shape}")
    paired = first.mean(axis=0) - second.mean(axis=0)
    mean, points = float(paired.mean()), len(paired)
    padded = np.append(paired, [1.0, -1.0])
    centre, variance = float(padded.mean()), float(padded.var()) / len(padded)
    pieces = variance**2 / (points + 1)
    for array in (first, second):
        if len(array) > 1:
            part = float(array.mean(axis=1).var(ddof=1)) / len(array)
            variance, pieces = variance + part, pieces + part**2 / (len(array) - 1)
    freedom = variance**2 / pieces
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * float(np.sqrt(variance))
    return {
        "mean": mean,
        "low": max(-1.0, centre - half),
        "high": min(1.0, centre + half),
        "n": points,
    }


def computed(
    compute: Callable[..., float],
    *hits: Any,
    level: float = 0.95,
    draws: int = 300,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> dict[str, Any]:
    """Any number computed from hits (a gap, a ratio, a correlation), with its interval.

    As in `rate`, the variance has a part from the points and a part from the seeds, and the
    quantile is Student's with Satterthwaite's degrees of freedom. The points' part is a bootstrap's
    (which draws points, the same for all seeds), the seeds' part a jackknife's, since three seeds
    are too few to draw from. A number that no draw changes gets an interval without width.

    Args:
      compute: the arrays, in their order, to the number; it takes any number of seeds and points.
      *hits: `[seeds, ..., N]` each: the same seeds in all, points of its own in each. What is to
        be compared on the same points goes into one array, along the axes between.
      level: the interval's coverage.
      draws: of the bootstrap.
      limits: what the number cannot go beyond.

    Returns:
      `{"mean", "low", "high", "n", "seeds"}`, n the least number of points.

    Raises:
      ValueError: for no array, an empty one, or another number of seeds in one of them.

    >>> right = np.repeat([True, False], [90, 10])[None]
    >>> {k: round(v, 2) for k, v in computed(lambda hits: 2 * hits.mean(), right).items()}
    {'mean': 1.8, 'low': 1.68, 'high': 1.92, 'n': 100, 'seeds': 1}
    """
    arrays = [np.asarray(array) for array in hits]
    if not arrays or any(array.ndim < 2 or array.size == 0 for array in arrays):
        raise ValueError(f"hits must have shape [seeds, ..., N], got {[np.shape(h) for h in hits]}")
    seeds, points = len(arrays[0]), min(array.shape[-1] for array in arrays)
    if any(len(array) != seeds for array in arrays):
        raise ValueError(f"hits must be of the same seeds, got {[len(a) for a in arrays]}")
    value = float(compute(*arrays))
    rng = np.random.default_rng(0)

    def drawn(array: np.ndarray) -> np.ndarray:
        return array[..., rng.integers(0, array.shape[-1], array.shape[-1])]

    redrawn = [compute(*map(drawn, arrays)) for _ in range(draws)]
    variance = float(np.var(redrawn, ddof=1))
    quantile = float(stats.norm.ppf(0.5 + level / 2))
    if seeds > 1:
        others = [compute(*(np.delete(array, s, axis=0) for array in arrays)) for s in range(seeds)]
        between = float(np.var(others)) * (seeds - 1)
        total = variance + between
        if between > 0:
            freedom = total**2 / (between**2 / (seeds - 1) + variance**2 / max(points - 1, 1))
            quantile = float(stats.t.ppf(0.5 + level / 2, freedom))
        variance = total
    half = quantile * float(np.sqrt(variance))
    low, high = max(value - half, limits[0]), min(value + half, limits[1])
    return {"mean": value, "low": low, "high": high, "n": points, "seeds": seeds}


def mean(
    values: Any, *, limits: tuple[float, float] = (-np.inf, np.inf)
) -> dict[str, Any]:
    """A mean with its interval, of values that are no rates.

    Student's interval over points; over seeds as well, where there are several, as `computed`.

    Args:
      values: `[N]` or `[seeds, N]`.
      limits: what no value can go beyond, so that the interval ends there too.

    Returns:
      As `computed`, and `"unit": "number"`: tables show it as it is, not in per cent. One value
      has no interval: its ends are None.

    Raises:
      ValueError: for no value, or one beyond the limits.

    >>> {k: v for k, v in mean([1.0, 3.0]).items() if k != "unit"}
    {'mean': 2.0, 'low': -10.7062..., 'high': 14.7062..., 'n': 2, 'seeds': 1}
    >>> mean([0.7, 0.9, 1.0], limits=(0.0, 1.0))["high"]
    1.0
    """
    array = np.atleast_2d(np.asarray(values, np.float64))
    if np.any((array < limits[0] - _ROUNDING) | (array > limits[1] + _ROUNDING)):
        raise ValueError(f"values must lie in {list(limits)}, got {array.min()} to {array.max()}")
    if len(array) > 1:
        found = computed(lambda part: float(part.mean()), array, limits=limits)
        return {**found, "unit": "number"}
    points = array.shape[1]
    if points == 0:
        raise ValueError("values must hold at least one")
    middle = float(array.mean())
    ends: tuple[float | None, float | None] = (None, None)
    if points > 1:
        half = float(stats.t.ppf(0.975, points - 1) * stats.sem(array[0]))
        ends = (max(middle - half, limits[0]), min(middle + half, limits[1]))
    return {"mean": middle, "low": ends[0], "high": ends[1], "n": points, "seeds": 1,
            "unit": "number"}  # fmt: skip


def claim(
    text: str,
    effect: dict[str, Any],
    *controls: dict[str, Any],
    paired: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A claim with its verdict: the effect beside the strongest of its controls.

    Args:
      text: the claim, a sentence.
      effect: a rate, or a mean.
      *controls: the same without the effect.
      paired: the difference of effect and control where both are of the same points; it decides
        then. Otherwise the two intervals do.

    Returns:
      `{"claim", "effect", "control", "verdict"}`. "holds" if the effect's low lies above every
      control's high (or the paired difference above 0); "does not hold here" if the effect can be
      at most `RELEVANT` above the control of the highest mean (means have units of their own: not
      above it at all); else, or without an interval, "not decidable at this size".

    >>> low, high = rate([0] * 90 + [1] * 10), rate([1] * 90 + [0] * 10)
    >>> claim("It works.", high, low)["verdict"]
    'holds'
    """
    strongest = max(controls, key=lambda control: control["mean"])
    relevant = 0.0 if effect.get("unit") == "number" else RELEVANT
    if any(rate["low"] is None for rate in ([effect, *controls] if paired is None else [paired])):
        return {"claim": text, "effect": effect, "control": strongest, "verdict": OPEN}
    if paired is None:
        holds = effect["low"] > max(control["high"] for control in controls)
        up, down = effect["high"] - effect["mean"], strongest["mean"] - strongest["low"]
        most = effect["mean"] - strongest["mean"] + float(np.hypot(up, down))
    else:
        holds, most = paired["low"] > 0, paired["high"]
    verdict = HOLDS if holds else FAILS if most < relevant else OPEN
    return {"claim": text, "effect": effect, "control": strongest, "verdict": verdict}


def turned_into(
    sources: np.ndarray, targets: np.ndarray, success: np.ndarray, num_classes: int
) -> np.ndarray:
    """Which class can be turned into which: `[C, C]`, rows the source, columns the target.

    Args:
      sources: `[N]` the original labels.
      targets: `[N]` what they were perturbed towards.
      success: `[N]` whether that worked.
      num_classes: C.

    Returns:
      The share of successes; NaN where no example was tried.
    """
    tried = np.zeros((num_classes, num_classes))
    worked = np.zeros((num_classes, num_classes))
    np.add.at(tried, (sources, targets), 1.0)
    np.add.at(worked, (sources, targets), np.asarray(success, np.float64))
    return np.divide(worked, tried, out=np.full_like(tried, np.nan), where=tried > 0)
