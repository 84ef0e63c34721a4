"""Estimates: numbers with their confidence intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

SHARE = (0.0, 1.0)
"""The limits of a rate, a probability or an area under a curve of them."""
CORRELATION = (-1.0, 1.0)
"""The limits of a correlation, a cosine or a similarity."""
FREE = (-float("inf"), float("inf"))
"""No limits."""

LEVEL = 0.95

Unit = Literal["rate", "points", "number"]
Ends = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number measured on a sample, with its 95 % confidence interval.

    Attributes:
      mean: the estimate.
      low: lower end of the interval; None if there are too few data.
      high: upper end of the interval; None if there are too few data.
      n: number of points (images) measured.
      seeds: number of independently trained networks measured.
      unit: "rate" (a share, shown in per cent), "points" (a difference of rates) or "number".
      at: the interval at another level, `0 < level < 1` -> (low, high); None if there is none. It
        is not stored in summaries.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    seeds: int = 1
    unit: Unit = "rate"
    at: Callable[[float], Ends] | None = dataclasses.field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        """Formats the estimate as in a table: `90.0 % [82.4, 95.1]`."""
        scale, sign = (1.0, "") if self.unit == "number" else (100.0, " %")
        digits = 3 if self.unit == "number" else 1
        if self.low is None or self.high is None:
            return f"{scale * self.mean:.{digits}f}{sign} (too few to tell)"
        ends = f"[{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"
        return f"{scale * self.mean:.{digits}f}{sign} {ends}"

    @property
    def known(self) -> bool:
        """Whether it has an interval."""
        return self.low is not None and self.high is not None

    def _asdict(self) -> dict[str, Any]:
        """Returns the fields as stored in summaries."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "seeds": self.seeds,
            "unit": self.unit,
        }

    def complement(self) -> Estimate:
        """Returns one minus the rate: the error of an accuracy.

        >>> Estimate(0.75, 0.5, 0.875, 10).complement()
        Estimate(mean=0.25, low=0.125, high=0.5, n=10, seeds=1, unit='rate')
        """
        if self.unit != "rate":
            raise ValueError(f"only a rate has a complement, not a {self.unit}")
        return self.mapped(lambda value: 1.0 - value)

    def in_unit(self, unit: Unit) -> Estimate:
        """Returns the estimate with another unit, which `computed` cannot know."""
        return dataclasses.replace(self, unit=unit)

    def mapped(self, function: Callable[[float], float], unit: Unit | None = None) -> Estimate:
        """Maps the estimate and its interval by a monotone function, such as `lambda v: 2.0**v`."""

        def ends(pair: Ends) -> Ends:
            low, high = sorted(function(end) for end in pair)
            return low, high

        at = self.at
        low, high = (
            (None, None) if self.low is None or self.high is None else ends((self.low, self.high))
        )
        return Estimate(
            function(self.mean),
            low,
            high,
            self.n,
            self.seeds,
            self.unit if unit is None else unit,
            None if at is None else lambda level: ends(at(level)),
        )


def estimated(
    mean: float, at: Callable[[float], Ends] | None, *, n: int, seeds: int = 1, unit: Unit = "rate"
) -> Estimate:
    """Builds an estimate from its interval at any level; None means too few data."""
    low, high = (None, None) if at is None else at(LEVEL)
    return Estimate(float(mean), low, high, n, seeds, unit, at)
