"""Rates and claims: Wilson's formula, coverage by simulation, verdicts by table."""

import numpy as np
import pytest
from scipy import stats

from advfeat import measures, report
from advfeat.measures import FAILS, HOLDS, OPEN


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (1, 10), (90, 100), (500, 1000), (7, 7)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_one_seed_is_wilson(hits, count, level):
    found = measures.rate(np.arange(count) < hits, level=level)
    wanted = stats.binomtest(hits, count).proportion_ci(level, method="wilson")
    assert found["mean"] == pytest.approx(hits / count)
    assert (found["low"], found["high"]) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert (found["n"], found["seeds"]) == (count, 1)


def test_shapes_and_kinds():
    row = [True, False, True, True]
    wanted = measures.rate(row)
    for same in (np.array(row), np.array([row]), [1, 0, 1, 1], np.float32(row)):
        assert measures.rate(same) == wanted
    assert measures.rate([row, row])["seeds"] == 2
    assert all(isinstance(wanted[key], float) for key in ("mean", "low", "high"))


@pytest.mark.parametrize("value", [0, 1])
def test_extremes_have_width(value):
    for shape in ((20,), (3, 20)):
        found = measures.rate(np.full(shape, value))
        assert found["mean"] == value
        assert found["high"] - found["low"] > 0.05
        assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1


def coverage(draw, truth, count=800):
    rng = np.random.default_rng(0)
    inside = [found["low"] <= truth <= found["high"] for found in (draw(rng) for _ in range(count))]
    return np.mean(inside)


@pytest.mark.parametrize("truth", [0.05, 0.5, 0.88])
def test_coverage_with_one_seed(truth):
    found = coverage(lambda rng: measures.rate(rng.random(150) < truth), truth)
    assert 0.92 < found < 0.985


@pytest.mark.parametrize(("truth", "spread"), [(0.5, 0.0), (0.5, 0.12), (0.85, 0.03)])
def test_coverage_with_three_seeds(truth, spread):
    # Each seed is a network of its own accuracy; the points differ in difficulty.
    def draw(rng):
        skill = truth + spread * rng.normal(size=(3, 1))
        hard = rng.uniform(-0.1, 0.1, (1, 200))
        return measures.rate(rng.random((3, 200)) < skill + hard)

    assert coverage(draw, truth) >= 0.9


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(0)
    alike = rng.random((3, 500)) < 0.5
    apart = rng.random((3, 500)) < np.array([[0.3], [0.5], [0.7]])

    def width(found):
        return found["high"] - found["low"]

    assert width(measures.rate(apart)) > 3 * width(measures.rate(alike))
    assert width(measures.rate(alike, level=0.99)) > width(measures.rate(alike))


def test_a_difference_is_paired():
    rng = np.random.default_rng(1)
    base = rng.random(400) < 0.5
    better = base | (rng.random(400) < 0.1)
    paired = measures.difference(better, base)
    shuffled = measures.difference(rng.permutation(better), base)
    assert paired["mean"] == pytest.approx(better.mean() - base.mean())
    assert paired["low"] > 0
    assert paired["high"] - paired["low"] < 0.7 * (shuffled["high"] - shuffled["low"])
    back = measures.difference(base, better)
    assert (back["low"], back["high"]) == pytest.approx((-paired["high"], -paired["low"]))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("first", "second"), [(0.6, 0.5), (0.97, 0.02), (0.9, 0.9)])
def test_coverage_of_a_difference(first, second, seeds):
    def draw(rng):
        return measures.difference(
            rng.random((seeds, 60)) < first, rng.random((seeds, 60)) < second
        )

    assert coverage(draw, first - second) >= 0.93


def test_a_difference_without_spread_has_width():
    found = measures.difference(np.ones(8), np.zeros(8))
    assert found["mean"] == 1
    assert found["low"] < 0.8
    assert found["high"] == 1


def mean_of(array):
    return array.mean()


def test_a_computed_mean_is_the_rate():
    rng = np.random.default_rng(0)
    hits = rng.random((3, 400)) < np.array([[0.5], [0.55], [0.62]])
    found = measures.computed(mean_of, hits, draws=2000)
    assert found["mean"] == measures.rate(hits)["mean"]
    assert (found["n"], found["seeds"]) == (400, 3)
    points, seeds = hits.mean(axis=0).var() / 400, hits.mean(axis=1).var(ddof=1) / 3
    freedom = (points + seeds) ** 2 / (points**2 / 399 + seeds**2 / 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(points + seeds)
    assert found["high"] - found["mean"] == pytest.approx(half, rel=0.1)
    assert found["mean"] - found["low"] == pytest.approx(half, rel=0.1)
    assert measures.computed(mean_of, hits) == measures.computed(mean_of, hits)
    alone = measures.computed(mean_of, hits[:1], draws=2000)
    wilson = measures.rate(hits[:1])
    assert (alone["low"], alone["high"]) == pytest.approx((wilson["low"], wilson["high"]), abs=4e-3)


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.1), (5, 0.05)])
def test_coverage_of_a_computed_ratio(seeds, spread):
    # Two arrays of other points, whose ratio of rates is 0.5 / 0.8, with networks that differ.
    def draw(rng):
        skill = spread * rng.normal(size=(seeds, 1))
        first = rng.random((seeds, 200)) < 0.5 + skill
        second = rng.random((seeds, 150)) < 0.8 + 0.5 * skill
        return measures.computed(lambda a, b: a.mean() / b.mean(), first, second, draws=60)

    assert coverage(draw, 0.5 / 0.8, count=300) >= 0.9


def test_what_lies_in_one_array_is_paired():
    rng = np.random.default_rng(2)
    base = rng.random((1, 300)) < 0.5
    better = base | (rng.random((1, 300)) < 0.1)
    paired = measures.computed(
        lambda both: both[:, 1].mean() - both[:, 0].mean(), np.stack([base, better], axis=1)
    )
    apart = measures.computed(lambda a, b: b.mean() - a.mean(), base, better)
    assert paired["mean"] == pytest.approx(apart["mean"])
    assert paired["high"] - paired["low"] < 0.7 * (apart["high"] - apart["low"])


def test_a_computed_number_stays_within_its_limits():
    hits = np.random.default_rng(0).random((3, 30)) < 0.5
    found = measures.computed(lambda a: 0.99, hits, limits=(-1, 1))
    assert [found[key] for key in ("low", "mean", "high")] == pytest.approx([0.99] * 3)
    found = measures.computed(lambda a: 20 * a.mean() - 9, hits, limits=(0, 1.5))
    assert (found["low"], found["high"]) == (0, 1.5)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([], "shape"),
        ([np.zeros(3)], r"\[seeds, ..., N\], got \[\(3,\)\]"),
        ([np.zeros((0, 3))], "shape"),
        ([np.zeros((2, 3)), np.zeros((3, 3))], r"same seeds, got \[2, 3\]"),
    ],
)
def test_what_cannot_be_computed(arrays, words):
    with pytest.raises(ValueError, match=words):
        measures.computed(mean_of, *arrays)


def interval(low, mean, high):
    return {"mean": mean, "low": low, "high": high, "n": 10}


@pytest.mark.parametrize(
    ("effect", "controls", "verdict"),
    [
        ((0.6, 0.7, 0.8), [(0.1, 0.2, 0.3)], HOLDS),
        ((0.6, 0.7, 0.8), [(0.1, 0.2, 0.3), (0.4, 0.5, 0.59)], HOLDS),
        ((0.6, 0.7, 0.8), [(0.1, 0.2, 0.3), (0.4, 0.5, 0.6)], OPEN),  # touching is not above
        ((0.6, 0.7, 0.8), [(0.5, 0.69, 0.75)], OPEN),
        ((0.6, 0.7, 0.8), [(0.6, 0.7, 0.8)], OPEN),  # the same, but who can tell
        ((0.69, 0.7, 0.71), [(0.69, 0.7, 0.71)], FAILS),  # the same, for certain
        ((0.69, 0.7, 0.71), [(0.66, 0.67, 0.68)], HOLDS),
        ((0.4, 0.45, 0.5), [(0.45, 0.5, 0.55), (0.2, 0.3, 0.6)], FAILS),  # vague, not strong
        ((0.56, 0.6, 0.64), [(0.45, 0.5, 0.55), (0.2, 0.3, 0.6)], OPEN),
        ((0.1, 0.2, 0.3), [(0.6, 0.7, 0.8)], FAILS),
        ((0.1, 0.2, 0.3), [(0.0, 0.1, 0.2), (0.6, 0.7, 0.8)], FAILS),
    ],
)
def test_verdicts(effect, controls, verdict):
    effect, controls = interval(*effect), [interval(*control) for control in controls]
    found = measures.claim("So it is.", effect, *controls)
    assert found["verdict"] == verdict
    assert found["claim"] == "So it is."
    assert found["effect"] == effect
    assert found["control"]["mean"] == max(control["mean"] for control in controls)
    assert set(found) == {"claim", "effect", "control", "verdict"}


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.2, HOLDS), (0.0, 0.2, OPEN), (-0.1, 0.04, FAILS)]
)
def test_a_paired_difference_decides_alone(low, high, verdict):
    alike = interval(0.4, 0.5, 0.6)
    paired = interval(low, (low + high) / 2, high)
    assert measures.claim("So.", alike, alike, paired=paired)["verdict"] == verdict


def test_the_words_of_the_verdicts():
    assert (HOLDS, FAILS, OPEN) == ("holds", "does not hold here", "not decidable at this size")


def test_which_class_was_turned_into_which():
    sources, targets = np.array([0, 0, 0, 2, 1]), np.array([1, 1, 2, 0, 1])
    found = measures.turned_into(sources, targets, np.array([1, 0, 1, 0, 1], bool), 3)
    nan = np.nan
    np.testing.assert_array_equal(found, [[nan, 0.5, 1.0], [nan, 1.0, nan], [0.0, nan, nan]])


def test_means_are_shown_as_they_are_and_rates_in_per_cent():
    values = np.linspace(0.0, 0.1, 41)
    assert report.format_cell(measures.mean(values)).startswith("0.050 [0.0")
    assert report.format_cell(measures.rate(values)).startswith("5.0\N{NO-BREAK SPACE}% [")


def test_a_small_difference_of_means_is_decided_where_that_of_rates_is_not():
    rng = np.random.default_rng(0)
    low = 0.015 + 0.01 * rng.random(25)
    high = low + 0.07 + 0.02 * rng.random(25)
    assert measures.mean(high - low)["low"] > 0.07
    assert measures.difference(high, low)["low"] < 0  # the points added are for hits


@pytest.mark.parametrize("count", [2, 3, 5, 25])
def test_the_interval_of_a_mean_is_students(count):
    values = np.random.default_rng(count).normal(size=count)
    found = measures.mean(values)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((wanted.low, wanted.high))


def test_one_value_decides_nothing():
    one = measures.mean([0.1])
    assert (one["low"], one["high"]) == (None, None)
    assert report.format_cell(one) == "0.100"
    claim = measures.claim("x", measures.mean([0.5]), measures.mean([0.4]), paired=one)
    assert claim["verdict"] == OPEN


def test_means_have_no_difference_that_is_too_small_to_matter():
    small = np.linspace(-0.001, 0.003, 25)
    effect, control = measures.mean(small), measures.mean(small * 0)
    for paired, verdict in ((small - 0.0006, OPEN), (small - 0.005, FAILS)):
        found = measures.claim("x", effect, control, paired=measures.mean(paired))
        assert found["verdict"] == verdict


def test_a_number_that_is_none_is_a_dash():
    unknown = {**measures.mean([1.0, 2.0]), "mean": float("nan")}
    assert report.format_number(None) == report.format_cell(unknown)


def test_a_mean_of_shares_has_an_interval_within_their_limits():
    values = [0.9, 1.0, 1.0, 1.0]
    free, held = measures.mean(values), measures.mean(values, limits=measures.SHARE)
    assert free["high"] > 1 == held["high"]
    assert held["low"] == free["low"]
    assert measures.mean([values, values], limits=measures.SHARE)["high"] <= 1
    assert measures.mean([1.0 + 1e-7, 1.0], limits=measures.SHARE)["high"] == 1
    with pytest.raises(ValueError, match=r"values must lie in \[0.0, 1.0\], got 0.9 to 1.5"):
        measures.mean([0.9, 1.5], limits=measures.SHARE)
