"""`experiments.defences`: who is called broken, and its smallest run."""

import json
import types

import numpy as np
import pytest
from estimates import assert_claims

import advfeat
from advfeat import stats
from advfeat.evaluation.result import SuiteResult
from experiments.defences import (
    flags as defences_flags,
    summary as defences_summary,
    work as defences_work,
)


@pytest.mark.parametrize(
    ("count", "gained", "wanted"),
    [
        (100, 0, True),
        (100, 3, False),  # three points more, but eight cannot be ruled out
        (1000, 30, True),
        (1000, 45, False),
        (20, 0, False),  # of so few images nothing can be said
    ],
)
def test_broken_is_decidably_less_than_five_points_more(count, gained, wanted):
    gain = stats.difference(np.arange(count) < gained, np.zeros(count, bool))
    assert defences_summary.broken(gain) is wanted


def test_what_has_no_interval_is_not_called_broken():
    assert not defences_summary.broken(stats.Estimate(0.0, None, None, 3, unit="points"))


def result_of(share):
    share = np.asarray(share, float)
    return SuiteResult(
        suite="custom",
        threat=advfeat.linf(0.1),
        clean_share=share,
        robust_share=share,
        adversarial=np.zeros((len(share), 1, 1, 1)),
        distance=np.zeros(len(share)),
        fooled_by=np.full(len(share), -1),
        attacks=(),
        warnings=(),
        looks=20,
    )


def test_a_random_defence_is_judged_by_its_expectation_everywhere():
    """Right in 70 % of its draws, attack or none; by majority it would be at 97 %."""
    coin = result_of(np.random.default_rng(0).binomial(20, 0.7, 200) / 20)
    wrong, half = result_of(np.zeros(200)), result_of(np.arange(200) < 100)
    assert coin.robust.mean() > 0.9
    results = {"no defence": wrong, "adversarial training": half, "coin": coin}
    verdicts = {name: defences_summary.Verdict.of(each, each) for name, each in results.items()}
    plan = types.SimpleNamespace(defences=("coin",), labels=np.zeros(200, int), eps=0.1)
    config = defences_flags.Config(workdir="unused")
    summary = defences_summary.summarise(config, plan, verdicts)
    entry = summary["networks"]["coin"]
    for name in ("clean_accuracy", "fgsm_accuracy", "robust_accuracy", "gain", "gain_under_fgsm"):
        assert abs(entry[name].mean - 0.7) < 0.03, name
    first = summary["claims"][0]
    assert abs(first.effect.mean - 0.7) < 0.03
    assert abs(first.control.mean - 0.7) < 0.03


@pytest.mark.slow
def test_the_smallest_run(tmp_path):
    config = defences_flags.Config(workdir=str(tmp_path / "run"), dry_run=True, width=8)
    summary = defences_work.run(config)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    assert_claims(summary["claims"])
    assert len(summary["claims"]) == 3
    names = [name for name in summary["networks"] if name in config.defences]
    assert len(names) == 3
    for name, part in summary["networks"].items():
        assert (part["gain"] is None) == (name not in names)
        assert not part["broken"]
    assert (tmp_path / "run" / "report.html").exists()
