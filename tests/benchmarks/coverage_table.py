"""How often the intervals hold the truth.

`python tests/benchmarks/coverage_table.py` prints docs' tables.

Every cell draws networks and points anew, some thousand times, and counts how often the 95 %
interval holds what was drawn from. Hits of a network are right where a point's number lies below
the network's own rate, and the networks' rates are logit-normal. Of the points' numbers all
networks see the same ("same"), each its own ("independent"), or half of them are shared ("mixed").
Rates and differences need only the counts of the patterns across networks, which are multinomial,
so that 10,000 points cost what ten do; a test holds this against the public functions.
"""

import itertools
import time

import numpy as np
from scipy import special, stats

from advfeat.stats import computed, intervals, mean, rate

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
    """Ends of `rate`, and the truth."""
    skill, truth = networks(rng, rate, logits, (draws, seeds))
    ways, odds = patterns(skill, sharing)
    counts = rng.multinomial(points, odds)
    return rate_of_patterns(ways, counts, points, level), truth


def rate_of_patterns(ways, counts, points, level=0.95):
    rows, covariance = moments(ways, counts, points)
    seeds, middle = rows.shape[-1], rows.mean(axis=-1)
    if seeds == 1:
        return intervals._rate_ends(middle, intervals._Parts(0.0, 0.0, 0), points, points, level)
    events = np.minimum(counts @ ways.any(axis=1), counts @ ~ways.all(axis=1))
    most = np.where(events >= intervals._RELIABLE, points * seeds, points)
    parts = intervals._parts(rows, covariance, points)
    return intervals._rate_ends(middle, parts, points, most, level)


def differences_ends(
    rng, points, rate, gain, seeds, logits, sharing, draws, same=False, level=0.95
):
    """Ends of `difference`, networks of their own on each side, and the truth."""
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
        cov = (
            covariance[:, one, one]
            + covariance[:, two, two]
            - covariance[:, one, two]
            - covariance[:, two, one]
        )
        sides = [intervals._parts(both, cov, points)]
    else:
        sides = [
            intervals._parts(rows[:, part], covariance[:, part, part], points)
            for part in (one, two)
        ]
    ends = intervals._difference_ends(middle, variance, points, sides, level)
    return ends, high - low


def held(ends, truth):
    return float(np.mean((ends[0] <= truth + 1e-12) & (ends[1] >= truth - 1e-12)))


def least(cells):
    """The least coverage of cells, as a table has it, and how many there are."""
    return f"{100 * min(cells):.1f}"


def rates(draws):
    rng = np.random.default_rng(0)
    yield ["points", *(f"{seeds} seed{'s' * (seeds > 1)}" for seeds in SEEDS)]
    for points in SIZES:
        row = []
        for seeds in SEEDS:
            how = itertools.product(SPREADS.values(), SHARING) if seeds > 1 else [(0.0, "same")]
            row.append(
                least(
                    [
                        held(*rates_ends(rng, points, share, seeds, logits, sharing, draws))
                        for share, (logits, sharing) in itertools.product(RATES, list(how))
                    ]
                )
            )
        yield [f"{points:,}", *row]


def rates_among(draws):
    """Of those right without an attack, how many it fools: the clean accuracy is 0.8."""
    rng = np.random.default_rng(0)
    yield ["points", "1 seed", "3 seeds", "3 seeds, spread 6.5"]
    for points in (10, 30, 100, 445):
        row = []
        for seeds, logits in ((1, 0.0), (3, 0.0), (3, SPREADS["6.5"])):
            cells = []
            for share in (0.02, 0.5, 0.95):
                inside = []
                for _ in range(draws):
                    own, truth = networks(rng, share, logits, (seeds, 1))
                    among = rng.random((seeds, points)) < 0.8
                    among[:, 0] = True
                    found = rate(rng.random((seeds, points)) < own, among=among)
                    inside.append(found.low <= truth <= found.high)
                cells.append(np.mean(inside))
            row.append(least(cells))
        yield [f"{points:,}", *row]


PAIRS = ((0.002, 0), (0.02, 0), (0.02, 0.03), (0.5, 0), (0.5, 0.4), (0.77, 0.03), (0.95, 0.03))


def differences(draws, seeds=(1, 2, 3), sizes=(5, 10, 30, 100, 445, 10_000)):
    rng = np.random.default_rng(0)
    yield [
        "points",
        *(f"{s} seed{'s' * (s > 1)}" for s in seeds),
        *(f"{s} seeds, the same" for s in seeds if s > 1),
    ]
    for points in sizes:
        row = []
        for count, same in [(s, False) for s in seeds] + [(s, True) for s in seeds if s > 1]:
            spreads = [SPREADS[name] for name in ("0", "3.4", "6.5")] if count > 1 else [0.0]
            row.append(
                least(
                    [
                        held(
                            *differences_ends(
                                rng, points, *pair, count, logits, sharing, draws, same
                            )
                        )
                        for pair, logits, sharing in itertools.product(PAIRS, spreads, SHARING)
                    ]
                )
            )
        yield [f"{points:,}", *row]


def nested(draws):
    """Hits of which one side's lie within the other's, as under a weak and a strong attack."""
    rng = np.random.default_rng(0)
    losses = np.array([0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.3])
    yield ["points", "least", "at a true difference of"]
    for points in (10, 30, 100, 445, 1000, 10_000):
        lost = rng.binomial(points, losses[:, None], (len(losses), 20 * draws)) / points
        ends = intervals._difference_ends(lost, lost - lost**2, points, [], 0.95)
        inside = ((ends[0] <= losses[:, None]) & (ends[1] >= losses[:, None])).mean(axis=1)
        yield [f"{points:,}", f"{100 * inside.min():.1f}", f"{losses[inside.argmin()]:g}"]


LAWS = {
    "normal": stats.norm(),
    "uniform": stats.uniform(),
    "exponential": stats.expon(),
    "Beta(20, 1)": stats.beta(20, 1),
    "Beta(5, 0.5)": stats.beta(5, 0.5),
    "lognormal(0.5)": stats.lognorm(0.5),
    "lognormal(1)": stats.lognorm(1),
    "cosines": stats.beta(2, 30, loc=-1, scale=2),
}


def means(draws, over_seeds=False):
    rng, sizes = np.random.default_rng(0), (10, 20, 30, 100, 300)
    yield ["values", *map(str, sizes), "width at 20"]
    for name, law in LAWS.items():
        row, wide = [], 0.0
        for points in sizes:
            inside, widths = [], []
            for _ in range(draws):
                values = law.rvs((3, points) if over_seeds else points, random_state=rng)
                if over_seeds:  # networks spread as much as the mean over points does
                    values = values + rng.standard_normal((3, 1)) * law.std() / points**0.5
                found = mean(values)
                inside.append(found.low <= law.mean() <= found.high)
                widths.append(found.high - found.low)
            row.append(f"{100 * np.mean(inside):.1f}")
            if points == 20:
                ideal = 2 * 1.96 * law.std() / points**0.5 * (np.sqrt(2 / 3) if over_seeds else 1)
                wide = np.mean(widths) / ideal
        yield [name, *row, f"{wide:.2f}"]


def fooled(both):
    return 1 - both[:, 1].sum() / max(both[:, 0].sum(), 1)


def slope(curve):
    """The rank correlation of accuracy and eps."""
    shares = curve.mean(axis=(0, -1))
    ranks = stats.rankdata(shares) - (len(shares) + 1) / 2
    steps = np.arange(len(shares)) - (len(shares) - 1) / 2
    return float(ranks @ steps / max(np.sqrt((ranks @ ranks) * (steps @ steps)), 1e-9))


def numbers(draws):
    rng = np.random.default_rng(0)
    sizes = (10, 30, 100, 445)
    yield ["number", "seeds", "spread", *map(str, sizes), "width, 445"]

    def right(seeds, points, share, logits=0.0):
        own, truth = networks(rng, share, logits, (seeds, 1))
        return rng.random((seeds, points)) < own, truth

    def pair(seeds, points, clean, kept):
        hits, _ = right(seeds, points, clean)
        return np.stack([hits, hits & right(seeds, points, kept)[0]], axis=1)

    def curve(seeds, points):
        drop = np.linspace(0.9, 0.1, 6)[:, None]
        return rng.random((seeds, 1, points)) < drop

    cases = [
        *(
            (
                f"mean, {share}",
                seeds,
                spread,
                lambda s, n, p=share, w=spread: (
                    [right(s, n, p, SPREADS[w])[0]],
                    right(1, 1, p, SPREADS[w])[1],
                ),
                np.mean,
            )
            for share, seeds, spread in ((0.98, 1, "0"), (0.77, 3, "0"), (0.77, 3, "6.5"))
        ),
        *(
            (
                f"fooled of the right, {1 - kept:g}",
                seeds,
                "0",
                lambda s, n, k=kept: ([pair(s, n, 0.97, k)], 1 - k),
                fooled,
            )
            for kept, seeds in ((0.99, 1), (0.9, 1), (0.5, 1), (0.02, 1), (0.99, 3))
        ),
        (
            "ratio 0.5 / 0.8, other points",
            1,
            "0",
            lambda s, n: ([right(s, n, 0.5)[0], right(s, n, 0.8)[0]], 0.625),
            lambda a, b: a.mean() / max(b.mean(), 1e-9),
        ),
        (
            "gap 0.9 - 0.85",
            1,
            "0",
            lambda s, n: ([right(s, n, 0.9)[0], right(s, n, 0.85)[0]], 0.05),
            lambda a, b: a.mean() - b.mean(),
        ),
        ("rank correlation with eps, -1", 1, "0", lambda s, n: ([curve(s, n)], -1.0), slope),
    ]
    for name, seeds, spread, draw, compute in cases:
        row, wide = [], 0.0
        for points in sizes:
            found = []
            for _ in range(draws):
                arrays, truth = draw(seeds, points)
                found.append(computed(compute, *arrays, draws=100))
            inside = [each.low <= truth + 1e-9 and each.high >= truth - 1e-9 for each in found]
            row.append(f"{100 * np.mean(inside):.1f}")
            # The ideal: from the numbers' own spread, known.
            ideal = 2 * 1.96 * np.std([each.mean for each in found])
            wide = np.mean([each.high - each.low for each in found]) / max(ideal, 1e-9)
        yield [name, str(seeds), spread, *row, f"{wide:.2f}" if wide < 99 else "–"]


def widths(draws):
    """Of rates, the mean width over that of a normal interval with the spread known."""
    rng = np.random.default_rng(0)
    yield ["points", "rate", *(f"{s} seed{'s' * (s > 1)}" for s in SEEDS)]
    for points, share in itertools.product((30, 445, 10_000), (0.02, 0.77)):
        row = []
        for seeds in SEEDS:
            skill, _ = networks(rng, share, SPREADS["3.4"] if seeds > 1 else 0.0, (draws, seeds))
            ways, odds = patterns(skill, "mixed")
            counts = rng.multinomial(points, odds)
            low, high = rate_of_patterns(ways, counts, points)
            known = 2 * 1.96 * (counts @ ways.mean(axis=1) / points).std()
            row.append(f"{np.mean(high - low) / known:.2f}")
        yield [f"{points:,}", f"{share:g}", *row]


TABLES = {
    "rate": (rates, 1000),
    "rate, its width": (widths, 1000),
    "rate(among=)": (rates_among, 400),
    "difference": (differences, 1000),
    "difference of nested hits": (nested, 1000),
    "mean": (means, 2000),
    "mean over three seeds": (lambda draws: means(draws, over_seeds=True), 1000),
    "computed": (numbers, 200),
}


def main():
    for name, (table, draws) in TABLES.items():
        start = time.perf_counter()
        print(f"\n### {name}, {draws:,} draws a cell\n")
        for index, row in enumerate(table(draws)):
            print(f"| {' | '.join(row)} |", flush=True)
            if index == 0:
                print(f"|{'---|' * len(row)}")
        print(f"\n({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
