"""Estimates and claims: closed forms, properties, coverage and error rates by simulation."""

import dataclasses
import json

import coverage_table as table
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from advfeat.stats import (
    CORRELATION,
    FEW,
    OPEN,
    SHARE,
    Estimate,
    apart,
    claim,
    computed,
    difference,
    judge,
    mean,
    rate,
)
from advfeat.stats.claims import HOLDS, OTHER

LEVELS = (0.05, 0.5, 0.8, 0.95, 0.99, 0.999, 1 - 1e-8)
NO_EFFECT = "no effect above 5 points"
quick = settings(max_examples=40, deadline=None)


def hits_of(most_seeds=4, most_points=40):
    shapes = st.tuples(st.integers(1, most_seeds), st.integers(1, most_points))
    return arrays.arrays(bool, shapes)


def ends(found):
    return found.low, found.high


def some(seeds=3, points=60, seed=0, share=0.7):
    return np.random.default_rng(seed).random((seeds, points)) < share


# Closed forms


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (1, 10), (90, 100), (500, 1000), (7, 7)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_a_rate_of_one_network_is_clopper_and_pearsons(hits, count, level):
    wanted = stats.binomtest(hits, count).proportion_ci(level, method="exact")
    found = rate(np.arange(count) < hits)
    assert found.mean == hits / count
    assert found.at(level) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert (found.n, found.seeds, found.unit) == (count, 1, "rate")


def test_a_rate_among_some_is_clopper_and_pearsons_of_them():
    hits, among = some(1)[0], some(1, seed=1)[0]
    assert ends(rate(hits, among=among)) == pytest.approx(ends(rate(hits[among])))
    assert rate(hits, among=among).n == among.sum()


@pytest.mark.parametrize("seeds", [1, 3])
def test_among_all_is_no_condition(seeds):
    hits = some(seeds)
    assert rate(hits, among=np.ones_like(hits)) == rate(hits)


@pytest.mark.parametrize(("copies", "level"), [(1, 0.98), (8, 0.95)])  # of 10 and 80 values
def test_a_mean_of_symmetric_values_is_students(copies, level):
    values = np.tile([-5.0, -3, -2, -1, -0.5, 0.5, 1, 2, 3, 5], copies)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert ends(mean(values)) == pytest.approx((wanted.low, wanted.high))


def test_a_mean_of_skewed_values_is_at_least_students():
    values = np.random.default_rng(0).exponential(size=75)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean(values)
    assert found.low == pytest.approx(wanted.low)
    assert found.high > wanted.high


def test_the_spread_of_networks_alone_is_students():
    # Rows without spread of points: only the networks' part is left, to which limits add nothing.
    rows = np.repeat([[0.2], [0.5], [0.6]], 10_000, axis=1)
    wanted = stats.ttest_1samp(rows[:, 0], 0).confidence_interval(0.9)
    assert mean(rows, limits=(-9.0, 9.0)).at(0.9) == pytest.approx(tuple(wanted), abs=1e-4)


def test_a_difference_is_bonett_and_prices():
    first, second = some(1)[0].astype(int), some(1, seed=1)[0].astype(int)
    padded = np.append(first - second, [1, -1])
    half = stats.t.ppf(0.975, len(padded) - 1) * padded.std() / np.sqrt(len(padded))
    found = difference(first, second)
    assert ends(found) == pytest.approx((padded.mean() - half, padded.mean() + half))
    assert found.mean == pytest.approx((first - second).mean())
    assert found.unit == "points"


def test_a_difference_adds_what_networks_spread():
    first, second = (
        np.repeat([[0.2], [0.5], [0.6]], 9, axis=1),
        np.repeat([[0.1], [0.3]], 9, axis=1),
    )
    parts = np.var(first[:, 0], ddof=1) / 3, np.var(second[:, 0], ddof=1) / 2
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 1)
    welch = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))
    alone = difference(first.mean(axis=0), second.mean(axis=0))
    half = np.hypot((alone.high - alone.low) / 2, welch)
    low, high = difference(first, second).at(0.95)
    centre = (alone.low + alone.high) / 2
    assert (low, high) == pytest.approx((max(centre - half, -1), min(centre + half, 1)))


def test_networks_that_are_the_same_are_paired():
    skill = np.array([[0.3], [0.5], [0.7]])
    hard = np.random.default_rng(0).random((3, 400))
    first, second = hard < skill + 0.05, hard < skill
    own, other = difference(first, second, same_networks=True), difference(first, second)
    assert own.mean == other.mean
    assert own.high - own.low < 0.2 * (other.high - other.low)
    # Where one side's gain is the other's loss, networks taken for others would hide the spread.
    turned = 1 - second
    own, other = difference(first, turned, same_networks=True), difference(first, turned)
    assert own.high - own.low > 1.2 * (other.high - other.low)


def test_estimates_apart_are_recovered_from_their_intervals():
    one, other = rate(some(1)), rate(some(1, seed=3, share=0.4))
    found = apart(one, other)
    assert found.low == pytest.approx(
        found.mean - np.hypot(one.mean - one.low, other.high - other.mean)
    )
    assert found.mean == pytest.approx(one.mean - other.mean)
    assert [apart(a, b).unit for a, b in ((one, one), (one, mean(some(1))))] == ["points", "number"]


def test_a_computed_mean_is_agresti_and_coulls():
    hits = some(1, 300)
    count = hits.size + 4
    centre = (hits.sum() + 2) / count
    half = stats.t.ppf(0.975, 299) * np.sqrt(centre * (1 - centre) / count)
    found = computed(np.mean, hits, draws=3000)
    assert ends(found) == pytest.approx((centre - half, centre + half), abs=0.1 * half)
    assert computed(np.mean, hits) == computed(np.mean, hits)


def test_a_computed_mean_over_networks_is_as_wide_as_the_rate():
    rng = np.random.default_rng(0)
    hits = rng.random((3, 400)) < np.array([[0.5], [0.55], [0.62]])
    found, wanted = computed(np.mean, hits), rate(hits)
    assert found.mean == pytest.approx(wanted.mean)
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.15)


# What an estimate is


@pytest.mark.parametrize(
    "found",
    [
        rate(some(1)),
        rate(some()),
        rate(some(), among=some(seed=5)),
        rate(np.zeros((3, 20))),
        difference(some(), some(seed=1)),
        difference(some(), some(seed=1), same_networks=True),
        mean(np.random.default_rng(0).exponential(size=(3, 20))),
        mean(np.full(20, 0.5), limits=SHARE),
        apart(rate(some()), rate(some(seed=1))),
        computed(np.mean, some(), draws=30),
        rate(some()).complement(),
        rate(some()).mapped(np.exp, "number"),
    ],
    ids=lambda found: f"{found.unit}-{found.seeds}",
)
def test_intervals_are_nested(found):
    lows, highs = np.array([found.at(level) for level in LEVELS]).T
    assert (np.diff(lows) <= 1e-12).all()
    assert (np.diff(highs) >= -1e-12).all()
    assert found.at(0.95) == ends(found)
    assert found.low <= found.mean <= found.high


def test_the_complement_and_a_map():
    found = rate(some())
    other = found.complement()
    assert (other.low, other.mean, other.high) == pytest.approx(
        (1 - found.high, 1 - found.mean, 1 - found.low)
    )
    assert found.mapped(lambda value: 2.0**value, "number").at(0.9) == pytest.approx(
        tuple(2.0**end for end in found.at(0.9))
    )
    unknown = mean([0.5]).mapped(lambda value: -value)
    assert (unknown.mean, unknown.low, unknown.at) == (-0.5, None, None)
    with pytest.raises(ValueError, match="only a rate has a complement, not a points"):
        difference(some(), some()).complement()


@pytest.mark.parametrize("found", [rate(some()), mean([1.0])])
def test_what_summaries_hold(found):
    held = json.loads(json.dumps(found._asdict(), allow_nan=False))
    assert list(held) == ["mean", "low", "high", "n", "seeds", "unit"]


def test_as_it_is_read():
    assert str(rate([1] * 90 + [0] * 10)) == "90.0 % [82.4, 95.1]"
    assert str(mean([0.1])) == "0.100 (too few to tell)"
    assert str(Estimate(0.5, 0.25, 0.75, 3, unit="number")) == "0.500 [0.250, 0.750]"


# Where little can be told


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("seeds", [1, 3])
def test_hits_that_say_the_same_leave_doubt(value, seeds):
    found = rate(np.full((seeds, 20), value))
    exact = stats.binomtest(20 * value, 20).proportion_ci(method="exact")
    assert ends(found) == pytest.approx((exact.low, exact.high))
    gap = difference(np.full((seeds, 20), value), np.full((seeds, 20), value))
    assert gap.low < -0.1 < 0.1 < gap.high


def test_a_computed_number_that_no_point_changes_leaves_doubt():
    both = np.repeat(some(1, 50, share=0.97)[:, None], 2, axis=1)  # nobody is fooled
    found = computed(lambda a: 1 - a[:, 1].sum() / a[:, 0].sum(), both, limits=SHARE)
    assert found.mean == found.low == 0
    assert found.high > 0.05
    assert computed(np.mean, np.ones((3, 40), bool), limits=SHARE).low < 0.95


def test_equal_values_are_told_of_within_limits_only():
    assert not mean(np.full(50, 0.5)).known
    found = mean(np.full(50, 1.0), limits=CORRELATION)
    assert ends(found) == pytest.approx((1 - 2 * (1 - 0.025 ** (1 / 50)), 1.0))


def test_few_points_have_no_interval():
    values = np.linspace(0, 1, FEW)
    assert mean(values).known
    assert computed(np.mean, values[None]).known
    assert not mean(values[1:]).known
    assert not computed(np.mean, values[None, 1:]).known


def test_a_number_that_is_not_finite_has_no_interval():
    for number in (float("nan"), float("inf")):
        assert not computed(lambda a, number=number: number, some()).known
    # One draw without a hit would divide by zero.
    assert not computed(lambda a: 1 / (a.mean() - 0.5), np.array([[0.5] * 29 + [0.6]])).known


def test_limits_are_kept():
    found = mean([0.9] + [1.0] * 11, limits=SHARE)
    assert found.high == 1
    assert mean([1.0 + 1e-7] * 5 + [1.0] * 7, limits=SHARE).mean == 1
    found = computed(lambda a: 20 * a.mean() - 9, some(3, 30, share=0.5), limits=(0, 1.5))
    assert ends(found) == (0, 1.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rate([]), r"hits must have shape \[N\] or \[seeds, N\], got \(0,\)"),
        (lambda: rate(np.zeros((2, 2, 2))), "hits must have shape"),
        (lambda: rate([0.0, 1.5]), r"hits must lie in \[0, 1\], got 0.0 to 1.5"),
        (lambda: rate([0.0, np.nan]), "hits must lie in"),
        (lambda: rate([1, 0], among=[1]), r"among must have the shape of hits, \(1, 2\), got"),
        (lambda: rate([1, 0], among=[0, 0]), "among must hold at least one point"),
        (lambda: difference([1], []), "control must have shape"),
        (lambda: difference([np.nan], [0]), "effect must lie in"),
        (lambda: difference([1, 0], [1]), r"same points, got \(1, 2\) and \(1, 1\)"),
        (lambda: difference([[1], [0]], [1], same_networks=True), "of the same networks"),
        (lambda: mean([]), r"values must hold at least one, .* got \(0,\)"),
        (lambda: mean([np.inf, 1]), "values must be finite"),
        (lambda: mean([np.nan, 1]), "values must be finite"),
        (lambda: mean([0.9, 1.5], limits=SHARE), r"must lie in \[0.0, 1.0\], got 0.9 to 1.5"),
        (lambda: computed(np.mean), "hits must have shape"),
        (lambda: computed(np.mean, np.zeros(3)), r"\[seeds, ..., N\], got \[\(3,\)\]"),
        (lambda: computed(np.mean, np.zeros((0, 3))), "hits must have shape"),
        (lambda: computed(np.mean, np.zeros((2, 3)), np.zeros((3, 3))), r"seeds, got \[2, 3\]"),
        (lambda: computed(np.mean, np.full((1, 20), np.nan)), "hits must be finite"),
        (lambda: claim("So.", rate([1])), "the claim 'So.' must have at least one control"),
        (lambda: claim("So.", rate([1]), rate([1]), paired=[]), "paired must hold 1 differences"),
        (lambda: claim("So.", rate([1]), rate([1]), margin=-0.1), "margin must be above 0, got -0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# Properties


@quick
@given(hits_of(), st.randoms(use_true_random=False))
def test_order_says_nothing(hits, random):
    rows, columns = list(range(len(hits))), list(range(hits.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    turned, other = hits[rows][:, columns], np.roll(hits, 1, axis=1)
    assert ends(rate(turned)) == pytest.approx(ends(rate(hits)), abs=1e-9)
    assert ends(difference(turned, other[:, columns])) == pytest.approx(
        ends(difference(hits, other)), abs=1e-9
    )
    one, two = (mean(each + 0.01 * hits.sum(), limits=(-9, 9)) for each in (turned, hits))
    assert one.known == two.known
    if one.known:
        assert ends(one) == pytest.approx(ends(two), abs=1e-9)


@quick
@given(hits_of())
def test_hits_and_misses_mirror(hits):
    found, wanted = rate(1 - hits.astype(int)), rate(hits).complement()
    assert (found.mean, *ends(found)) == pytest.approx((wanted.mean, *ends(wanted)), abs=1e-9)
    control = np.roll(hits, 1, axis=1)
    for same in (False, True):
        one = difference(hits, control, same_networks=same)
        other = difference(control, hits, same_networks=same)
        assert ends(one) == pytest.approx((-other.high, -other.low), abs=1e-9)


@quick
@given(hits_of(3, 30))
def test_the_tables_pieces_are_the_public_functions(hits):
    points = hits.shape[1]
    found = table.rate_of_patterns(hits.T.astype(float), np.ones((1, points), int), points)
    assert np.squeeze(found) == pytest.approx(ends(rate(hits)), abs=1e-9)


# How often intervals hold the truth: a few cells; all of them in docs/intervals.md


@pytest.mark.parametrize("points", [10, 100, 445])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.77, 0.998])
@pytest.mark.parametrize(
    ("seeds", "spread", "sharing"), [(1, "0", "same"), (2, "6.5", "mixed"), (3, "6.5", "same")]
)
def test_rates_hold_the_truth(points, share, seeds, spread, sharing):
    rng = np.random.default_rng(0)
    found, truth = table.rates_ends(rng, points, share, seeds, table.SPREADS[spread], sharing, 1500)
    assert table.held(found, truth) > 0.93


@pytest.mark.parametrize("points", [10, 100, 1000])
@pytest.mark.parametrize(("share", "gain"), [(0.02, 0.0), (0.5, 0.03), (0.95, 0.03)])
@pytest.mark.parametrize(("seeds", "same"), [(1, False), (2, False), (3, True), (3, False)])
def test_differences_hold_the_truth(points, share, gain, seeds, same):
    rng = np.random.default_rng(0)
    spread = 0.0 if seeds == 1 else table.SPREADS["3.4"]
    found, truth = table.differences_ends(
        rng, points, share, gain, seeds, spread, "mixed", 1500, same
    )
    assert table.held(found, truth) > 0.93


@pytest.mark.parametrize(
    "law", [stats.norm(), stats.expon(), stats.beta(20, 1), stats.beta(5, 0.5), stats.lognorm(1)]
)
@pytest.mark.parametrize("points", [10, 24, 40])
def test_means_hold_the_truth(law, points):
    rng, truth = np.random.default_rng(0), law.mean()
    drawn = [mean(values) for values in law.rvs((1000, points), random_state=rng)]
    assert np.mean([found.low <= truth <= found.high for found in drawn]) > 0.925


# Verdicts


def verdicts(rng, repeats, points, first, second, seeds=1, paired=True, claims=1):
    """Of reports of `claims` claims, `[repeats, claims]`."""
    out = []
    for _ in range(repeats):
        report = []
        for _ in range(claims):
            both = rng.random((seeds, points)), rng.random((seeds, points))
            effect, control = both[0] < first, (both[0] if paired else both[1]) < second
            if paired:  # a fifth of the points is drawn anew: discordance both ways
                anew = rng.random((seeds, points)) < 0.2
                control = np.where(anew, both[1] < second, control)
            gap = difference(effect, control) if paired else None
            report.append(claim("So.", rate(effect), rate(control), paired=gap))
        out.append([found.verdict for found in judge(report)])
    return np.array(out)


@pytest.mark.parametrize(("seeds", "paired"), [(1, True), (1, False), (3, True), (8, False)])
def test_no_effect_seldom_holds(seeds, paired):
    found = verdicts(np.random.default_rng(0), 200, 100, 0.5, 0.5, seeds, paired)
    # 2.5 % and three standard errors of 200.
    assert (found == HOLDS).mean() <= 0.058
    assert (found == OTHER).mean() <= 0.058


@pytest.mark.parametrize("claims", [1, 3, 10, 42])
def test_no_effect_seldom_holds_in_a_report(claims):
    # Exactly normal differences, whose p values are uniform: as many false ones as there can be.
    rng, false = np.random.default_rng(0), []
    [one] = [claim("So.", rate([1]), rate([1]))]
    for shifts in rng.standard_normal((1000, claims)):
        tails = zip(stats.norm.sf(shifts), stats.norm.cdf(shifts), strict=True)
        report = judge([dataclasses.replace(one, p=(*each, 1.0)) for each in tails])
        false.append([found.verdict for found in report])
    held = (np.array(false) == HOLDS).any(axis=1).mean()
    wrong = np.isin(false, (HOLDS, OTHER)).any(axis=1).mean()
    assert held <= 0.025 + 0.015
    assert 0.02 < wrong <= 0.05 + 0.021  # three errors of 1,000


def normal(centre, error=1.0):
    def at(level):
        half = stats.norm.ppf(0.5 + level / 2) * error
        return centre - half, centre + half

    return at


@pytest.mark.parametrize("gain", [0.02, 0.03])
def test_power_grows_and_small_effects_stay(gain):
    # Ten per cent of points disagree; the shares of both ways are as expected at every size.
    power = []
    for points in (445, 1000, 4000, 12_000):
        rng, found = np.random.default_rng(0), []
        for _ in range(25):
            up, down = rng.multinomial(points, [0.05 + gain / 2, 0.05 - gain / 2, 0.9])[:2]
            effect = np.arange(points) < up
            control = np.arange(points)[::-1] < down
            gap = difference(effect, control)
            found += judge([claim("So.", rate(effect), rate(control), paired=gap)])
        power.append(np.mean([each.verdict == HOLDS for each in found]))
        assert all(each.verdict != OTHER for each in found)
    assert power == sorted(power)
    assert power[-1] == 1.0


def test_an_effect_of_the_margin_is_seldom_called_none():
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        effect, control = rate(rng.random(300) < 0.55), rate(rng.random(300) < 0.5)
        found += judge([claim("So.", effect, control)])
    assert np.mean([each.verdict in (NO_EFFECT, OTHER) for each in found]) <= 0.058


@pytest.mark.parametrize(
    ("centre", "error", "verdict"),
    [
        (0.02, 0.005, HOLDS),
        (0.2, 0.05, HOLDS),
        (-0.2, 0.05, OTHER),
        (-0.02, 0.005, OTHER),
        (0.0, 0.01, NO_EFFECT),
        (0.0, 0.03, OPEN),
        (0.04, 0.03, OPEN),
    ],
)
def test_the_interval_decides(centre, error, verdict):
    at = normal(centre, error)
    gap = Estimate(centre, *at(0.95), 100, unit="points", at=at)
    [found] = judge([claim("So.", rate(some(1)), rate(some(1)), paired=gap)])
    assert found.verdict == verdict
    assert found.holds == (verdict == HOLDS)


def test_p_values_are_those_of_the_normal_law():
    at = normal(1.3)
    found = claim(
        "So.",
        *[Estimate(0.0, 0, 0, 9, unit="number")] * 2,
        margin=2.0,
        paired=Estimate(1.3, *at(0.95), 9, unit="number", at=at),
    )
    assert found.p[0] == pytest.approx(stats.norm.sf(1.3), rel=1e-4)
    assert found.p[1] == 1.0
    assert found.p[2] == pytest.approx(stats.norm.sf(0.7), rel=1e-4)


def test_all_controls_must_be_exceeded():
    def gap(centre):
        at = normal(centre, 0.01)
        return Estimate(centre, *at(0.95), 100, unit="points", at=at)

    high, low = rate([1] * 6 + [0] * 4), rate([1] * 2 + [0] * 8)

    def verdict(*gaps):
        [found] = judge([claim("So.", high, low, high, paired=list(map(gap, gaps)))])
        assert found.control == high  # the highest
        return found.verdict

    assert verdict(0.1, 0.1) == HOLDS
    assert verdict(0.1, 0.0) == NO_EFFECT
    assert verdict(0.1, -0.1) == OTHER
    assert verdict(0.1, 0.012) == NO_EFFECT
    assert verdict(0.1, 0.045) == HOLDS
    # One of two is cleared by 2.1 errors: the choice among two is paid for.
    assert verdict(0.1, -0.021) == NO_EFFECT


def test_without_an_interval_nothing_is_decided_and_nothing_paid():
    clear = claim("Clear.", rate(some(1, 200, share=0.6)), rate(some(1, 200, share=0.45)))
    [alone] = judge([clear])
    unknown = claim("Unknown.", mean([0.9]), mean([0.1]), margin=0.1)
    assert unknown.p is None
    found = judge([unknown, clear, unknown])
    assert [each.verdict for each in found] == [OPEN, alone.verdict, OPEN]
    assert judge(found) == found
    assert judge([]) == []


def test_means_need_a_margin_to_have_no_effect():
    values = np.random.default_rng(0).normal(0, 1e-4, 50)
    stated = claim(
        "So.",
        mean(values),
        mean(values),
        paired=mean(values - values.mean() + 1e-9),
        margin=0.01,
    )
    assert judge([stated])[0].verdict == "no effect above 0.01"
    without = dataclasses.replace(stated, margin=None)
    with pytest.raises(ValueError, match=r"the claim 'So\.' must state its margin, got None"):
        judge([stated, without])
