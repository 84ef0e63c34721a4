"""`experiments.train`: the summary, checkpoints of other runs, and exact resume."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from killed import Killed

from advfeat.runs import runner
from advfeat.runs.checkpoints import load_network
from experiments.mislabeled import flags as mislabeled_flags, work as mislabeled_work
from experiments.shared import progress
from experiments.train import flags as train_flags, work as train_work


def config(path, **options):
    return train_flags.Config(workdir=str(path), train_examples=300, eval_examples=50, **options)


def leaves(path):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load_network(str(path)).variables)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    path = tmp_path_factory.mktemp("train") / "unbroken"
    return path, train_work.run(config(path, epochs=4, eps_grid=(0.0, 0.5)))


def test_summary_states_what_was_measured(unbroken):
    path, summary = unbroken
    assert summary["clean_accuracy"]["n"] == 445
    assert summary["robust_accuracy"]["n"] == 50
    assert summary["clean_accuracy"]["mean"] > 0.5
    assert summary["evaluation"] == {"attack": "PGD", "steps": 20, "examples": 50}
    assert (path / "report.html").exists()
    grid = [part["eps"] for part in summary["accuracy_by_eps"]]
    assert grid == [0.0, 0.5, 1.0]
    means = [part["accuracy"]["mean"] for part in summary["accuracy_by_eps"]]
    assert means == sorted(means, reverse=True)


@pytest.mark.slow_for("3", "7")
@pytest.mark.parametrize("chunks", [1, 3, 7])
def test_a_killed_training_ends_bit_for_bit_as_an_unbroken_one(
    unbroken, tmp_path, monkeypatch, chunks
):
    path, _ = unbroken
    monkeypatch.setattr(progress, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr("advfeat.training.loop.CHUNK", 2)
    real, seen = progress.Progress.chunk, []

    def dying(self, state, metrics):
        real(self, state, metrics)
        seen.append(int(state.step))
        if len(seen) == chunks:
            raise Killed

    flags = {"epochs": 4, "eps_grid": (0.0, 0.5)}
    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "chunk", dying)
        with pytest.raises(Killed):
            train_work.run(config(tmp_path / "broken", **flags))
    assert list((tmp_path / "broken" / "checkpoints" / "model").iterdir())
    begun = []
    monkeypatch.setattr(
        progress.Progress,
        "chunk",
        lambda self, state, metrics: begun.append(int(state.step)),
    )
    train_work.run(config(tmp_path / "broken", **flags))
    assert begun[0] > 2 or chunks == 1  # it went on, it did not begin again
    for here, there in zip(leaves(tmp_path / "broken"), leaves(path), strict=True):
        np.testing.assert_array_equal(here, there)
    assert not (tmp_path / "broken" / "checkpoints" / "model").exists()


@pytest.mark.slow
def test_adversarial_training_buys_robust_accuracy(unbroken, tmp_path):
    _, standard = unbroken
    robust = train_work.run(
        config(tmp_path / "r", epochs=8, objective="adversarial", eps=0.5, eps_grid=(0.0, 0.5))
    )

    def at_half(summary):
        return next(p["accuracy"] for p in summary["accuracy_by_eps"] if p["eps"] == 0.5)

    assert at_half(robust)["mean"] > at_half(standard)["mean"] + 0.1


@pytest.mark.slow
def test_another_experiment_takes_the_run_as_its_checkpoint(unbroken, tmp_path):
    path, summary = unbroken
    result = mislabeled_work.run(
        mislabeled_flags.Config(
            workdir=str(tmp_path / "m"),
            dry_run=True,
            source_checkpoint=str(path),
            variants=("det",),
            controls=("unperturbed",),
        )
    )
    assert result["standard"]["clean_accuracy"] == summary["clean_accuracy"]


def test_a_checkpoint_of_other_classes_is_refused(unbroken, tmp_path, capsys):
    path, _ = unbroken
    arguments = [f"--workdir={tmp_path / 'm'}", f"--source_checkpoint={path}", "--classes=3,5"]
    with pytest.raises(SystemExit) as end:
        runner.main(mislabeled_work.run, mislabeled_flags.Config, None, arguments)
    assert end.value.code == 2
    assert "knows the classes 0, 1" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_sigkill_at_random_moments_changes_nothing(unbroken, tmp_path):
    path, _ = unbroken
    command = [
        *(sys.executable, "-m", "experiments.train", f"--workdir={tmp_path / 'run'}"),
        *("--train_examples=300", "--eval_examples=50", "--epochs=4", "--eps_grid=0,0.5"),
    ]
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(2, 20))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    for here, there in zip(leaves(tmp_path / "run"), leaves(path), strict=True):
        np.testing.assert_array_equal(here, there)
