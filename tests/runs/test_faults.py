"""What befalls a run: SIGKILL, SIGTERM, Ctrl-C, a full disk, damaged states, a loss that is NaN."""

import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from advfeat import training
from advfeat.runs import runner, signals as stopping
from advfeat.runs.checkpoints import is_saved
from experiments.shared import eps_sweep, networks, progress
from experiments.train import flags as train_flags, work as train_work

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = [
    "--train_examples=200",
    "--batch_size=32",
    "--epochs=4",
    "--model=mlp",
    "--width=8",
    "--eval_examples=10",
    "--eval_steps=1",
    "--eps_grid=0,1",
    "--augment=shift1",
]


def call(path, *more):
    """The command line in this process: its exit code."""
    try:
        runner.main(train_work.run, train_flags.Config, None, [f"--workdir={path}", *FLAGS, *more])
    except SystemExit as end:
        return end.code
    return 0


def files(path):
    """Every file of the network, by name, with its arrays as they are on disk."""
    return {name: np.asarray(leaf).tobytes() for name, leaf in _leaves(path).items()}


def _leaves(path):
    import jax

    from advfeat.runs.checkpoints import load_network

    leaves = jax.tree.leaves_with_path(load_network(str(path)).variables)
    return {jax.tree_util.keystr(name): leaf for name, leaf in leaves}


def summary(path):
    """The summary without what a machine decides."""
    found = json.loads((path / "summary.json").read_text())
    return {k: v for k, v in found.items() if k not in ("wall_seconds", "peak_memory_bytes")}


def told(path):
    """What the log says of the training, without times."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def same_end(one, two):
    assert files(one) == files(two)
    assert summary(one) == summary(two)
    assert told(one) == told(two)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    assert call(path) == 0
    return path


@pytest.fixture
def frequent(monkeypatch):
    """Every step is saved."""
    monkeypatch.setenv("ADVFEAT_SAVE_SECONDS", "0")
    monkeypatch.setattr(progress, "LOOK_SECONDS", -1.0)
    save = progress.TrainingCheckpoints.save

    def written(self, state, seen=None, *, wait=False):
        return save(self, state, seen, wait=True)

    monkeypatch.setattr(progress.TrainingCheckpoints, "save", written)


def at_step(monkeypatch, step, act):
    """Has `act` done when the training has made so many steps."""
    real = progress.Progress.chunk

    def chunk(self, state, seen):
        if int(state.step) == step:
            act(self)
        real(self, state, seen)

    monkeypatch.setattr(progress.Progress, "chunk", chunk)


# --- SIGTERM, and Ctrl-C. -------------------------------------------------------------------------


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(whole, tmp_path, monkeypatch, capsys):
    path, begun = tmp_path / "run", []
    real = progress.Progress.stop

    def stop(self):  # between two steps, in the middle of an epoch and of a chunk
        begun.append(None)
        if len(begun) == 9:
            for _ in range(3):  # more of them change nothing
                os.kill(os.getpid(), signal.SIGTERM)
        return real(self)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "stop", stop)
        assert call(path) == 143
    assert signal.getsignal(signal.SIGTERM) == before
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("terminated; rerun the command to resume")
    assert len(begun) == 9
    assert [p.name for p in (path / "checkpoints" / "model").iterdir() if p.name.isdigit()] == ["9"]
    assert call(path) == 0
    same_end(path, whole)


def test_sigterm_outside_a_training_leaves_at_once(whole, tmp_path, monkeypatch, capsys):
    path = shutil.copytree(whole, tmp_path / "run")
    (path / "summary.json").unlink()
    shutil.rmtree(path / "measured")

    def evaluate(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    with monkeypatch.context() as patch:
        patch.setattr(eps_sweep.advfeat, "evaluate_epsilons", evaluate)
        assert call(path) == stopping.TERMINATED
    assert "rerun the command to resume" in capsys.readouterr().err
    assert call(path) == 0
    same_end(path, whole)


def test_sigterm_while_the_network_is_written_waits_for_it(whole, tmp_path, monkeypatch):
    path, real = tmp_path / "run", networks.checkpoints.save_network

    def save(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(networks.checkpoints, "save_network", save)
        assert call(path) == 143
    assert is_saved(path / "networks" / "model")
    assert call(path) == 0
    same_end(path, whole)


@pytest.mark.slow
def test_ctrl_c_ends_with_its_own_code(whole, tmp_path, monkeypatch, frequent, capsys):
    path = tmp_path / "run"

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, 11, interrupt)
        assert call(path) == 130
    assert "interrupted; rerun the command to resume" in capsys.readouterr().err
    assert call(path) == 0
    same_end(path, whole)


@pytest.mark.slow
def test_ctrl_c_twice_leaves_at_once(whole, tmp_path, monkeypatch, frequent, capsys):
    path = tmp_path / "run"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, 11, interrupt)
        patch.setattr(progress.TrainingCheckpoints, "close", interrupt)
        assert call(path) == 130
    assert capsys.readouterr().err.count("interrupted") == 1
    assert call(path) == 0
    same_end(path, whole)


# --- A full disk. ---------------------------------------------------------------------------------


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow_for(
    "advfeat.results.write_json",
    "experiments.networks.checkpoints.ocp.Checkpointer.save",
    "experiments.train.write_report",
)
@pytest.mark.parametrize(
    "place",
    [
        "advfeat.runs.metrics.MetricsLog.write",
        "experiments.shared.networks.checkpoints.ocp.Checkpointer.save",
        "advfeat.runs.directory.write_json",
        "experiments.train.report.write_report",
    ],
)
def test_a_full_disk_is_one_line_and_the_run_goes_on(
    whole, tmp_path, monkeypatch, frequent, capsys, place
):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        if place == "advfeat.runs.directory.write_json":  # the summary, not what opens the run
            at_step(patch, 20, lambda _: patch.setattr(place, full))
        else:
            patch.setattr(place, full)
        assert call(path) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in last
    assert str(path) in last
    assert "rerun the command to resume" in last
    assert call(path) == 0
    same_end(path, whole)


def test_states_that_cannot_be_written_do_not_end_a_training(
    whole, tmp_path, monkeypatch, frequent, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr("advfeat.runs.train_states.ocp.CheckpointManager.save", full)
        assert call(tmp_path / "run") == 0
    lines = capsys.readouterr().err.splitlines()
    assert any("could not be saved (No space left on device); none is kept" in s for s in lines)
    same_end(tmp_path / "run", whole)


def test_a_workdir_that_becomes_unwritable(whole, tmp_path, monkeypatch, capsys):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "metrics.jsonl")

    with monkeypatch.context() as patch:
        patch.setattr("advfeat.runs.metrics.MetricsLog.write", denied)
        assert call(tmp_path / "run") == 1
    assert "Permission denied" in capsys.readouterr().err.splitlines()[-1]
    assert call(tmp_path / "run") == 0
    same_end(tmp_path / "run", whole)


# --- Damaged states. ------------------------------------------------------------------------------


@pytest.mark.slow_for("2")
@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_newest_state(whole, tmp_path, monkeypatch, frequent, capsys, damaged):
    path = tmp_path / "run"

    def interrupt(here):
        assert here._opened().steps() == [11, 12]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, 13, interrupt)
        assert call(path) == 130
    steps = sorted(int(p.name) for p in (path / "checkpoints" / "model").iterdir())
    for step in steps[-damaged:]:
        for data in (path / "checkpoints" / "model" / str(step)).rglob("d/*"):
            data.write_bytes(data.read_bytes()[:10])
    capsys.readouterr()
    begun = []
    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "chunk", lambda self, state, _: begun.append(state.step))
        assert call(path) == 0
    warned = [s for s in capsys.readouterr().err.splitlines() if "warning" in s]
    assert len(warned) == (1 if damaged == 1 else 3)
    assert f"{steps[-1]} cannot be used" in warned[0]
    assert len(begun) == 20 - (steps[0] if damaged == 1 else 0)
    same_end(path, whole)


# --- A loss that is no number. --------------------------------------------------------------------


@pytest.mark.slow
def test_a_loss_that_is_nan_keeps_the_last_good_state(tmp_path, monkeypatch, frequent, capsys):
    path, real = tmp_path / "run", training.loop.train_update

    def update(key, state, *rest, **options):
        step = int(state.step)
        state, metrics = real(key, state, *rest, **options)
        if step == 9:  # the weights break; the loss shows it a step later
            state = state._replace(params=_broken(state.params))
        return state, metrics

    with monkeypatch.context() as patch:
        patch.setattr("advfeat.training.loop.train_update", update)
        assert call(path) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert "the loss is nan at step 10" in last
        assert "the state of step 9 is kept" in last
        assert "rerun the command to resume" in last
        steps = [p.name for p in (path / "checkpoints" / "model").iterdir() if p.name.isdigit()]
        assert max(map(int, steps)) == 9
        assert call(path) == 1  # the same end, from the good state


def _broken(tree):
    import jax

    return jax.tree.map(lambda leaf: leaf * jnp.nan, tree)


@pytest.mark.slow
def test_a_nan_before_anything_was_saved(tmp_path, capsys):
    assert call(tmp_path / "run", "--learning_rate=1e30", "--schedule=constant") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "no state had been saved" in last
    assert "lower the rate" in last


def test_a_wrong_interval_of_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADVFEAT_SAVE_SECONDS", "often")
    assert call(tmp_path / "run") == 2
    assert "ADVFEAT_SAVE_SECONDS=often" in capsys.readouterr().err


# --- SIGKILL. -------------------------------------------------------------------------------------

ROBUST = [
    "--objective=adversarial",
    "--model=resnet9",
    "--width=2",
    "--augment=shift1",
    "--train_examples=200",
    "--batch_size=32",
    "--epochs=12",
    "--attack_steps=2",
    "--eval_examples=20",
    "--eval_steps=1",
    "--eps_grid=0,1",
]


def chain(path, kills, cache):
    """Runs a chain of killed processes; how each ended."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ADVFEAT_SAVE_SECONDS": "0.05",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    script = ROOT / "tests" / "helpers" / "kill_chain.py"
    command = [sys.executable, script, path, json.dumps(kills), *ROBUST]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def chains():
    rng = random.Random(0)
    yield "operations", [{"nth": rng.randint(1, 60)} for _ in range(8)]
    yield "later", [{"nth": rng.randint(40, 140)} for _ in range(6)]
    yield "delays", [{"delay": rng.uniform(0.3, 3)} for _ in range(6)]
    yield (
        "moments",
        [
            {"event": "os.rename", "path": "checkpoints/model"},
            {"event": "os.rmdir", "path": "checkpoints/model", "nth": 3},
            {"event": "os.mkdir", "path": "networks/model/variables"},
            {"event": "os.rename", "path": "networks/model/variables"},
            {"event": "os.rename", "path": ".network.json.tmp"},
            {"event": "shutil.rmtree", "path": "checkpoints/model"},
            {"event": "open", "path": "report.html"},
            {"event": "open", "path": ".summary.json.tmp"},
            {"event": "os.rename", "path": ".summary.json.tmp"},
        ],
    )


@pytest.mark.slow
def test_sigkill_at_any_moment_changes_nothing(tmp_path):
    cache, whole = tmp_path / "cache", tmp_path / "whole"
    assert chain(whole, [], cache) == [0]
    for name, wanted in chains():
        path = tmp_path / name
        *ends, last = chain(path, wanted, cache)
        assert last == 0, pathlib.Path(f"{path}.log").read_text()
        assert set(ends) <= {-signal.SIGKILL, 0}
        # A quick machine ends the run before the last of them: those kills never come.
        assert ends.count(-signal.SIGKILL) >= 3, (name, ends)
        same_end(path, whole)
        assert not list((path / "checkpoints").iterdir())
