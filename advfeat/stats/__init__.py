"""Estimates with intervals of verified coverage, and claims judged by one rule.

docs/intervals.md gives the coverage of every interval, by simulation.
"""

from advfeat.stats.bootstrap import computed
from advfeat.stats.choice import chosen, chosen_by_others, together
from advfeat.stats.claims import (
    MARGIN,
    OPEN,
    SMALL,
    Claim,
    Verdict,
    claim,
    judge,
    margin_words,
)
from advfeat.stats.estimate import CORRELATION, FREE, SHARE, Estimate
from advfeat.stats.intervals import FEW, apart, difference, mean, rate
from advfeat.stats.sets import counted, of_set

__all__ = [
    "CORRELATION",
    "FEW",
    "FREE",
    "MARGIN",
    "OPEN",
    "SHARE",
    "SMALL",
    "Claim",
    "Estimate",
    "Verdict",
    "apart",
    "chosen",
    "chosen_by_others",
    "claim",
    "computed",
    "counted",
    "difference",
    "judge",
    "margin_words",
    "mean",
    "of_set",
    "rate",
    "together",
]
