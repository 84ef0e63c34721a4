"""Which eps a command refuses: those that can only be meant in grey levels."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from advfeat import data
from advfeat.runs.config import UsageError, parse
from advfeat.threats.norms import NORMS, title
from experiments.counterfactual import plan as counterfactual_plan
from experiments.defences import plan as defences_plan
from experiments.ground_truth import flags as ground_truth
from experiments.mislabeled import plan as mislabeled_plan
from experiments.representations import plan as representations_plan
from experiments.sample_complexity import plan as sample_complexity_plan
from experiments.shared.flag_checks import check_eps
from experiments.synthesis import plan as synthesis_plan
from experiments.tradeoff import plan as tradeoff_plan
from experiments.train import plan as train_plan
from experiments.transfer_learning import plan as transfer_learning_plan

SHAPE = (8, 8, 1)
WIDEST = {"linf": 1.0, "l2": 8.0, "l1": 64.0}


@pytest.mark.parametrize("norm", WIDEST)
def test_from_the_diameter_on_an_eps_is_refused(norm, capsys):
    widest = WIDEST[norm]
    check_eps(norm, SHAPE, eps=0.49 * widest, eps_grid=(0.0, 0.1, np.inf), other=None)
    assert capsys.readouterr().err == ""
    check_eps(norm, SHAPE, eps=0.5 * widest)
    assert capsys.readouterr().err.startswith("note: flag --eps=")
    for value in (widest, 1.5 * widest, 255.0 * widest):
        with pytest.raises(UsageError, match=f"flag --grid=.*below {widest:g} for {norm}"):
            check_eps(norm, SHAPE, grid=(0.1 * widest, value))


@given(st.sampled_from(sorted(NORMS)), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_what_the_two_bounds_say_is_so(norm, seed):
    """Grey lies within half the diameter of every image, any other image within the diameter."""
    rng = np.random.default_rng(seed)
    one, other = np.round(rng.random((2, 12)) * rng.integers(1, 9), 0).clip(0, 1)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    widest = NORMS[norm].diameter(12)
    assert np.linalg.norm(one - other, order) <= widest * (1 + 1e-12)
    assert np.linalg.norm(one - 0.5, order) <= widest / 2 * (1 + 1e-12)


CASES = {
    "train eps": (train_plan, ["--eps=8", "--objective=adversarial"]),
    "train eps_grid": (train_plan, ["--eps_grid=0,8"]),
    "mislabeled eps": (mislabeled_plan, ["--eps=8"]),
    "mislabeled robust_eps": (mislabeled_plan, ["--robust_eps=8"]),
    "mislabeled source_eps": (mislabeled_plan, ["--source_eps=8"]),
    "mislabeled eps_grid": (mislabeled_plan, ["--eps_grid=0,8"]),
    "mislabeled l1": (mislabeled_plan, ["--norm=l1", "--eps=64", "--robust_eps=1"]),
    "defences eps": (defences_plan, ["--eps=8", "--norm=l2"]),
    "sample_complexity eps": (sample_complexity_plan, ["--eps=8", "--norm=l2"]),
    "tradeoff eval_l2": (tradeoff_plan, ["--eval_l2=8"]),
    "tradeoff train_l2": (tradeoff_plan, ["--train_l2=0.5,8"]),
    "transfer_learning train_l2": (transfer_learning_plan, ["--train_l2=8"]),
    "representations eps": (representations_plan, ["--eps=8"]),
    "counterfactual eps": (counterfactual_plan, ["--eps=8"]),
    "synthesis eps_grid": (synthesis_plan, ["--eps_grid=0.5,8"]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_command_refuses_it_before_any_work(case, monkeypatch):
    experiment, flags = CASES[case]
    monkeypatch.setattr(data, "load", lambda *_, load=data.load, **__: load("digits"))
    config = parse(experiment.Config, ["--workdir=w", "--dataset=digits", *flags])
    with pytest.raises(UsageError, match=r"flag --\w+=(8|64): must be below (8|64) for l[12] and"):
        experiment.prepare(config)


def test_linf_is_refused_before_there_are_data():
    for eps in ("8", "1"):
        with pytest.raises(UsageError, match=f"flag --eps={eps}: must be below 1"):
            parse(ground_truth.Config, ["--workdir=w", f"--eps={eps}"])


def test_norms_as_text():
    assert [title(name) for name in ("l1", "l2", "linf")] == ["L1", "L2", "L∞"]
    assert all(title(norm) == title(name) for name, norm in NORMS.items())
