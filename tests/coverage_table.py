"""How often the intervals hold the truth: `python tests/coverage_table.py` prints docs' tables.

Every cell draws networks and points anew, some thousand times, and counts how often the 95 %
interval holds what was drawn from. Hits of a network are right where a point's number lies below
the network's own rate, and the networks' rates are logit-normal. Of the points' numbers all
networks see the same ("same"), each its own ("independent"), or half of them are shared ("mixed").
Rates and differences need only the counts of the patterns across networks, which are multinomial,
so that 10,000 points cost what ten do; a test holds this against the public functions.
"""

import itertools

import numpy as np
from scipy import special

from advfeat.stats import intervals

SIZES = (10, 30, 100, 445, 1000, 10_000)
RATES = (0.002, 0.02, 0.1, 0.5, 0.77, 0.95, 0.998)
SEEDS = (1, 2, 3, 5, 8)
SPREADS = {"0": 0.0, "1": 0.0565, "3.4": 0.193, "6.5": 0.372}  # points at 0.77: logits
SHARING = ("independent", "same", "mixed")


def networks(rng, rate, logits, shape):
    """Rates of networks, and their expectation, which is the truth."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    centre = special.logit(rate)
    truth = special.expit(centre + logits * nodes) @ weights / weights.sum()
    return special.expit(centre + logits * rng.standard_normal(shape)), float(truth)


def patterns(rates, sharing):
    """`[K, S]` who is right together, and `[B, K]` how likely that is, of `[B, S]` rates."""
    ways = np.array(list(itertools.product((0, 1), repeat=rates.shape[-1])), bool)
    right = rates[:, None]
    own = np.where(ways, right, 1 - right).prod(axis=-1)
    # One number for all: it lies below the rates of the right ones and above all others.
    upper = np.where(ways, right, 1.0).min(axis=-1)
    lower = np.where(ways, 0.0, right).max(axis=-1)
    together = np.maximum(upper - lower, 0.0)
    share = {"independent": 0.0, "same": 1.0, "mixed": 0.5}[sharing]
    odds = share * together + (1 - share) * own
    return ways.astype(float), odds / odds.sum(axis=-1, keepdims=True)


def moments(ways, counts, points):
    """The rows' means `[B, S]` and covariance `[B, S, S]` from the patterns' counts."""
    rows = counts @ ways / points
    products = np.einsum("bk,ks,kt->bst", counts, ways, ways, optimize=True) / points
    covariance = products - rows[..., None] * rows[..., None, :]
    return rows, covariance * points / max(points - 1, 1)


def rates_ends(rng, points, rate, seeds, logits, sharing, draws, level=0.95):
    """Ends of `rate`, the truth and the standard error of the best estimate."""
    skill, truth = networks(rng, rate, logits, (draws, seeds))
    ways, odds = patterns(skill, sharing)
    counts = rng.multinomial(points, odds)
    return rate_of_patterns(ways, counts, points, level), truth


def rate_of_patterns(ways, counts, points, level=0.95):
    rows, covariance = moments(ways, counts, points)
    seeds, middle = rows.shape[-1], rows.mean(axis=-1)
    if seeds == 1:
        return intervals._rate_ends(
            middle, intervals._Parts(0.0, 0.0, 0), points, points, level)  # fmt: skip
    events = np.minimum(counts @ ways.any(axis=1), counts @ ~ways.all(axis=1))
    most = np.where(events >= intervals._RELIABLE, points * seeds, points)
    parts = intervals._parts(rows, covariance, points)
    return intervals._rate_ends(middle, parts, points, most, level)


def differences_ends(rng, points, rate, gain, seeds, logits, sharing, draws, same=False, level=0.95):
    first, high = networks(rng, rate + gain, logits, (draws, seeds))
    second, low = networks(rng, rate, logits, (draws, seeds))
    ways, odds = patterns(np.concatenate([first, second], axis=-1), sharing)
    counts = rng.multinomial(points, odds)
    rows, covariance = moments(ways, counts, points)
    signs = np.repeat([1.0, -1.0], seeds) / seeds
    middle = rows @ signs
    variance = np.einsum("s,bst,t->b", signs, covariance, signs) * (points - 1) / points
    one, two = slice(None, seeds), slice(seeds, None)
    if same:
        both = rows[:, one] - rows[:, two]
        cov = (covariance[:, one, one] + covariance[:, two, two]
               - covariance[:, one, two] - covariance[:, two, one])  # fmt: skip
        sides = [intervals._parts(both, cov, points)]
    else:
        sides = [intervals._parts(rows[:, part], covariance[:, part, part], points)
                 for part in (one, two)]  # fmt: skip
    ends = intervals._difference_ends(middle, variance, points, sides, level)
    return ends, high - low


def held(ends, truth):
    return float(np.mean((ends[0] <= truth + 1e-12) & (ends[1] >= truth - 1e-12)))
