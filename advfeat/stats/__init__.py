"""Estimates with intervals that hold what they promise, and claims judged by one rule.

The coverage of every interval, by simulation: docs/intervals.md.
"""

from advfeat.stats.claims import (
    MARGIN,
    OPEN,
    Claim,
    Verdict,
    claim,
    judge,
)
from advfeat.stats.estimate import CORRELATION, FREE, SHARE, Estimate
from advfeat.stats.intervals import FEW, apart, computed, difference, mean, rate
from advfeat.stats.tables import turned_into

__all__ = [
    "CORRELATION",
    "FEW",
    "FREE",
    "MARGIN",
    "OPEN",
    "SHARE",
    "Claim",
    "Estimate",
    "Verdict",
    "apart",
    "claim",
    "computed",
    "difference",
    "judge",
    "mean",
    "rate",
    "turned_into",
]
