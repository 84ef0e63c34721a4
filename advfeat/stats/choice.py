"""Estimates selected after the fact, and several estimates read together.

The best of ten methods looks better than it is: the interval of a single method does not account
for the selection. An interval at level 1 - 0.05 / k does: k such intervals all hold in at least
95 % of runs (Bonferroni), whichever is picked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped

from advfeat.stats.estimate import Ends, Estimate, estimated

Name = TypeVar("Name")


def together(estimates: Mapping[Name, Estimate]) -> dict[Name, Estimate]:
    """Widens intervals so that all hold simultaneously, for ranking or comparing with a limit.

    Args:
      estimates: estimates by name.

    Returns:
      The same estimates with wider intervals, each at level `1 - (1 - level) / k` for k of them.

    Raises:
      ValueError: if there are none.

    >>> from advfeat.stats import rate
    >>> alone = rate([1] * 30 + [0] * 20)
    >>> both = together({"a": alone, "b": alone})
    >>> both["a"].low < alone.low, both["a"].low == alone.at(0.975)[0]
    (True, True)
    """
    if not estimates:
        raise ValueError("estimates must hold at least one")
    return {name: _widened(found, len(estimates)) for name, found in estimates.items()}


def chosen(
    estimates: Mapping[Name, Estimate], best: Callable[..., Any] = max
) -> tuple[Name, Estimate]:
    """Selects the best of several estimates by the reported number itself.

    The number is left as it was measured and is thus optimistic; say so beside it. The interval
    accounts for the selection.

    Args:
      estimates: estimates by name; ties go to the first.
      best: `max` or `min`.

    Returns:
      Name and estimate of the best.

    Raises:
      ValueError: if there are none.

    >>> from advfeat.stats import rate
    >>> found = {"a": rate([1] * 30 + [0] * 20), "b": rate([1] * 35 + [0] * 15)}
    >>> name, top = chosen(found)
    >>> name, top.mean, top.low == found["b"].at(0.975)[0]
    ('b', 0.7, True)
    """
    wide = together(estimates)
    name: Name = best(wide, key=lambda each: wide[each].mean)
    return name, wide[name]


def _widened(found: Estimate, count: int) -> Estimate:
    at = found.at
    if at is None:
        return found

    def wider(level: float) -> Ends:
        return at(1 - (1 - level) / count)

    return estimated(found.mean, wider, n=found.n, seeds=found.seeds, unit=found.unit)


def chosen_by_others(hits: Mapping[Name, Shaped[np.ndarray, "S N"]]) -> list[Name]:
    """Selects for each seed the name that is best on the mean of all other seeds, first if tied.

    The comparison uses other points and the seed's own networks, which had no part in the
    selection, so the selected name performs there as well as elsewhere, on average.

    Args:
      hits: by name `[S, N]`, S at least 2, on points used for selection only.

    >>> hits = {"a": np.array([[1, 1], [0, 0]]), "b": np.array([[0, 0], [1, 1]])}
    >>> chosen_by_others(hits)
    ['b', 'a']
    """
    seeds = len(next(iter(hits.values())))
    return [
        max(hits, key=lambda name: np.delete(hits[name], seed, axis=0).mean())
        for seed in range(seeds)
    ]
