"""Choices after the fact, numbers of whole sets, bare counts: intervals hold what they say."""

import numpy as np
import pytest

from advfeat import stats
from advfeat.images import quality


def test_the_interval_of_the_best_of_ten_counts_for_the_choice():
    rng, share, points, plain, counted = np.random.default_rng(0), 0.7, 80, 0, 0
    for _ in range(250):
        found = {name: stats.rate(rng.random(points) < share) for name in range(10)}
        name, top = stats.chosen(found)
        assert top.mean == max(each.mean for each in found.values())
        plain += found[name].low <= share
        counted += top.low <= share
    # One side of 95 % should miss in 2.5 %; the best of ten, taken alone, misses in far more.
    assert plain / 250 < 0.93
    assert counted / 250 >= 0.965


def test_the_least_is_chosen_likewise_and_of_equal_ones_the_first():
    rates = [stats.rate(np.arange(20) < hits) for hits in (12, 9, 9)]
    name, least = stats.chosen(dict(zip("abc", rates, strict=True)), best=min)
    assert (name, least.mean) == ("b", 0.45)
    assert (least.low, least.high) == rates[1].at(1 - 0.05 / 3)
    assert least.at(0.9) == rates[1].at(1 - 0.1 / 3)
    assert stats.chosen({"alone": rates[0]})[1] == rates[0]


def test_what_has_no_interval_keeps_none_and_nothing_cannot_be_chosen():
    few = stats.mean([1.0, 2.0])
    assert stats.chosen({"a": few, "b": few})[1] == few
    for function in (stats.chosen, stats.together):
        with pytest.raises(ValueError, match="at least one"):
            function({})


def test_together_all_hold_at_once():
    rng, missed = np.random.default_rng(1), [0, 0]
    for _ in range(200):
        found = {name: stats.rate(rng.random(100) < 0.5) for name in range(8)}
        for place, each in enumerate((found, stats.together(found))):
            missed[place] += not all(one.low <= 0.5 <= one.high for one in each.values())
    assert missed[1] / 200 <= 0.05 < missed[0] / 200


def test_counts_are_taken_for_the_arrangement_that_says_least():
    rng, points = np.random.default_rng(0), 60
    hits = np.array([40, 45, 50])
    widest = stats.counted(hits, points)
    assert widest.mean == pytest.approx(hits.sum() / 180)
    for _ in range(50):
        rows = np.stack([rng.permutation(points) < count for count in hits])
        found = stats.rate(rows)
        assert widest.low <= found.low + 1e-12
        assert widest.high >= found.high - 1e-12
    with pytest.raises(ValueError, match=r"hits must lie in \[0, 60\]"):
        stats.counted(61, points)


def test_a_mean_of_a_set_has_the_interval_of_a_mean():
    values = np.random.default_rng(0).normal(size=200)
    found = stats.of_set(lambda part: float(part.mean()), values, parts=2000)
    wanted = stats.mean(values)
    assert found.mean == wanted.mean
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.1)
    assert stats.of_set(np.mean, values[: stats.FEW - 1]).low is None
    assert stats.of_set(np.mean, values, limits=(0.0, np.inf)).low == 0


def test_diversity_has_an_interval_that_holds():
    """A bootstrap would not: a point that is drawn twice has no distance from itself."""
    rng, count = np.random.default_rng(2), 40

    def draw():
        return rng.normal(size=(count, 5))

    true = np.mean([quality.mean_pairwise_distance(draw()) for _ in range(400)])
    found = [stats.of_set(quality.mean_pairwise_distance, draw(), parts=40) for _ in range(80)]
    assert np.mean([each.low <= true <= each.high for each in found]) > 0.9
