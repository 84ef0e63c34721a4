"""`experiments.tradeoff`: what the smallest run measures, and what a run finds."""

from types import SimpleNamespace

import numpy as np
import pytest
from estimates import revived
from scipy.stats import rankdata
from sweep_runs import SWEEPS

import advfeat
from advfeat import data, stats
from advfeat.runs.checkpoints import load_network
from advfeat.stats import Estimate
from experiments.tradeoff import work as tradeoff_work
from experiments.tradeoff.summary import (
    _between,
    _claims,
    _fooled_less,
    _norm,
    accuracy_by_eps,
    findings,
    fooling,
    fooling_rate,
    rank_correlation,
)

config = SWEEPS["tradeoff"].config


@pytest.mark.slow
def test_summary_has_every_rate_with_its_interval(finished_sweep):
    _, summary = finished_sweep("tradeoff")
    assert "train_examples" in summary
    assert list(summary["norms"]) == ["l2", "linf"]
    for part in summary["norms"].values():
        assert part["by_eps"][0]["eps"] == 0
        assert part["by_eps"][-1]["eps"] == pytest.approx(1.25 * part["eval_eps"])
        for point in part["by_eps"]:
            for name in ("clean_accuracy", "robust_accuracy", "fooling_rate"):
                assert 0 <= point[name]["low"] < point[name]["high"] <= 1
                assert point[name]["n"] == 50 or name == "fooling_rate"
            assert point["fooling_rate"]["n"] == round(50 * point["clean_accuracy"]["mean"])
            clean, robust = point["clean_accuracy"]["mean"], point["robust_accuracy"]["mean"]
            assert point["fooling_rate"]["mean"] == pytest.approx(1 - robust / clean)
        for name, difference in part["smallest_less_largest"].items():
            first, last = (part["by_eps"][end][name]["mean"] for end in (0, -1))
            assert difference["mean"] == pytest.approx(first - last)
        found = part["rank_correlation"]
        assert -1 <= found["low"] <= found["mean"] <= found["high"] <= 1
        assert part["tradeoff_shown"] is None  # a dry run decides nothing
        assert part["highest_between"] is None
    # The standard networks are the same ones in both norms.
    first, second = (part["by_eps"][0]["clean_accuracy"] for part in summary["norms"].values())
    assert first == second


@pytest.mark.slow
def test_networks_of_the_run_serve_as_checkpoints(finished_sweep):
    path, summary = finished_sweep("tradeoff")
    top = summary["norms"]["l2"]["by_eps"][-1]
    hits = []
    test = data.subset(data.load("digits").test, 50, seed=0)
    for seed in (0, 1):
        network = load_network(f"{path}:l2_{top['eps']:g}_{seed}")
        hits.append(advfeat.correct(network.model_fn(), data.unit(test.image), test.label))
    assert np.mean(hits) == pytest.approx(top["clean_accuracy"]["mean"])


def trained_at(path, *eps):
    """The summary of five small perceptrons at each eps: they have no room for both."""
    return tradeoff_work.run(
        config(
            path,
            dry_run=False,
            norms=("linf",),
            train_linf=eps,
            eval_linf=0.15,
            width=8,
            epochs=15,
            seeds=5,
            eval_steps=10,
            restarts=1,
            eval_examples=300,
        )
    )


@pytest.mark.slow
def test_robustness_is_bought_and_paid_for_with_accuracy(tmp_path):
    summary = revived(trained_at(tmp_path / "run", 0.05, 0.2))
    part = summary["norms"]["linf"]
    assert [point["eps"] for point in part["by_eps"]] == [0, 0.05, 0.2]
    standard, _, robust = part["by_eps"]
    # Accurate networks, which the attack leaves right less often than guessing among ten is.
    assert standard["clean_accuracy"].mean > 0.9
    assert standard["robust_accuracy"].high < 0.1 < robust["robust_accuracy"].low
    assert [claim.verdict for claim in summary["claims"][:2]] == ["holds", "holds"]
    assert "not monotone" in summary["claims"][2].claim
    assert part["highest_between"]["verdict"] == summary["claims"][2].verdict != "holds"
    assert part["tradeoff_shown"]
    assert part["rank_correlation"].mean >= 0.5
    (line,) = findings(summary)
    assert "costs clean accuracy is shown" in line

    # The control: an eps that is nearly none buys nothing, and nothing is paid.
    control = revived(trained_at(tmp_path / "control", 0.002))
    nothing = control["norms"]["linf"]
    assert not nothing["tradeoff_shown"]
    assert "holds" not in [claim.verdict for claim in control["claims"]]
    for name, difference in part["smallest_less_largest"].items():
        assert difference.low > nothing["smallest_less_largest"][name].high, name


def hits(clean, robust, points=100):
    """`[1, 2, E, N]` with exactly these accuracies; what stands an attack was right before."""
    rows = [[np.arange(points) < rate * points for rate in rates] for rates in (clean, robust)]
    return np.array([rows])


def test_rates_by_hand():
    both = np.concatenate([hits([0.8, 0.5], [0.2, 0.5]), hits([0.4, 0.5], [0.4, 0.0])])
    np.testing.assert_allclose(accuracy_by_eps(both), [0.6, 0.5])
    np.testing.assert_allclose(fooling(both), [1 - 0.6 / 1.2, 0.5])
    assert fooling(hits([0.0], [0.0])).tolist() == [1.0]


@pytest.mark.parametrize("seeds", [1, 3])
def test_fooling_rates_of_none_and_all_have_a_width(seeds):
    right = np.tile(np.arange(60) < 50, (seeds, 1))
    all_fooled, none_fooled = fooling_rate(right, np.zeros_like(right)), fooling_rate(right, right)
    assert (all_fooled.mean, all_fooled.high, all_fooled.n) == (1.0, 1.0, 50)
    assert (none_fooled.mean, none_fooled.low, none_fooled.n) == (0.0, 0.0, 50)
    # Clopper and Pearson's of 50 of 50: 1 - 0.025 ** (1 / 50).
    bound = 1 - 0.025 ** (1 / 50)
    assert none_fooled.high == pytest.approx(bound, rel=1e-6)
    assert all_fooled.low == pytest.approx(1 - bound, rel=1e-6)
    less = _fooled_less(
        np.stack([np.stack([right, right], 1), np.stack([0 * right, right], 1)], 1).astype(bool)
    )
    assert less.mean == 1.0
    assert less.unit == "points"
    assert less.low < 1.0


def test_where_nothing_is_right_nothing_is_fooled():
    wrong = np.zeros((2, 30), bool)
    assert fooling_rate(wrong, wrong).low is None
    assert np.isnan(fooling_rate(wrong, wrong).mean)


@pytest.mark.slow
def test_the_best_eps_of_several_is_not_above_the_ends_by_luck():
    """No eps changes anything: an interval without the choice lies above 0 too often."""
    grid, plain, counted = tuple(range(8)), 0, 0
    for seed in range(200):
        hits = np.random.default_rng(seed).random((1, 2, 8, 120)) < 0.8
        found = _between(grid, hits)["less_smallest"]
        place = _between(grid, hits)["eps"]
        alone = stats.difference(hits[:, 0, place], hits[:, 0, 0])
        assert found.mean == alone.mean
        plain += alone.low > 0
        counted += found.low > 0
    assert counted / 200 < 0.05 < plain / 200


def test_not_monotone_is_judged_with_the_other_claims():
    """Two accurate, one inaccurate end: alone it would hold, among many claims it need not."""
    clean, grid = [0.75, 0.86, 0.6], (0.0, 0.1, 0.2)
    both = hits(clean, [0.1, 0.2, 0.3], points=200)
    plan = SimpleNamespace(dataset=SimpleNamespace(num_classes=10), measured_at={"l2": 0.2})
    claims = _claims("l2", _norm(plan, "l2", grid, both))
    assert len(claims) == 3
    assert "chosen after the fact" in claims[2].claim
    assert claims[2].p is not None
    assert stats.judge(claims)[2].holds
    assert _claims("l2", _norm(plan, "l2", grid[:2], both[:, :, :2]))[2:] == []


@pytest.mark.parametrize(
    ("clean", "robust", "wanted"),
    [
        ([0.9, 0.8, 0.7], [0.0, 0.3, 0.5], 1.0),  # every gain is paid for
        ([0.7, 0.8, 0.9], [0.0, 0.3, 0.5], -1.0),  # both improve
        ([0.9, 0.9, 0.9], [0.0, 0.3, 0.5], 0.0),
        ([0.8, 0.9, 0.7, 0.6], [0.0, 0.1, 0.4, 0.5], None),
    ],
)
def test_rank_correlations(clean, robust, wanted):
    found = rank_correlation(hits(clean, robust))
    if wanted is None:
        ranks = rankdata(clean), rankdata(1 - np.divide(robust, clean))
        wanted = np.corrcoef(*ranks)[0, 1]
    assert found == pytest.approx(wanted)


@pytest.mark.slow
def test_what_is_not_shown_is_said_to_be_not_shown(finished_sweep):
    _, summary = finished_sweep("tradeoff")
    part = revived(summary["norms"]["l2"])
    part["tradeoff_shown"] = False
    for point, collapsed in zip(part["by_eps"], (0, 2), strict=True):
        point["collapsed"] = collapsed
    part["highest_between"] = {
        "eps": 0.5,
        "less_smallest": Estimate(0.1, 0.02, 0.2, 50, unit="points"),
        "less_largest": Estimate(0.2, 0.1, 0.3, 50, unit="points"),
        "verdict": "holds",
    }
    (line,) = findings({"norms": {"l2": part}})
    assert "costs clean accuracy is not shown" in line
    assert "2 of the networks did not learn at all" in line
    assert "that it is not monotone: holds" in line
    part["highest_between"]["verdict"] = stats.OPEN  # whatever its interval says
    assert f"not monotone: {stats.OPEN}" in findings({"norms": {"l2": part}})[0]
    part["highest_between"]["verdict"] = part["tradeoff_shown"] = None  # a dry run
    (line,) = findings({"norms": {"l2": part}})
    assert "monotone" not in line
    assert "shown" not in line
    part["highest_between"]["less_smallest"] = Estimate(-0.1, -0.2, 0.2, 50, unit="points")
    assert "monotone" not in findings({"norms": {"l2": part}})[0]
