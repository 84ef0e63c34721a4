"""The states of a training on disk: exact, checked when read, and of use after every mishap."""

import errno
import os
import pathlib
import shutil
import subprocess
import threading

import jax
import numpy as np
import pytest

from advfeat import models, training
from advfeat.runs import train_states
from advfeat.runs.train_states import TrainingCheckpoints, disk_error

LINEAR = models.create("linear", num_classes=2)
CONFIG = training.TrainConfig(epochs=4, batch_size=2, augment="none")
IMAGES = np.random.default_rng(0).random((6, 2, 2, 1)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 1, 0])
VARIABLES = models.init(jax.random.key(0), LINEAR, (2, 2, 1))
BLANK = training.initial_state(VARIABLES, CONFIG)


def fit(**options):
    return training.fit(
        jax.random.key(1),
        training.standard(LINEAR),
        VARIABLES,
        IMAGES,
        LABELS,
        CONFIG,
        num_classes=2,
        **options,
    )


def same(first, second):
    one, two = (jax.tree.leaves_with_path(tree) for tree in (first, second))
    return [path for path, _ in one] == [path for path, _ in two] and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for (_, a), (_, b) in zip(one, two, strict=True)
    )


def at(step, value=0.5):
    """A state that tells its step."""
    filled = jax.tree.map(lambda leaf: np.full(leaf.shape, value + step, leaf.dtype), BLANK)
    return filled._replace(step=np.int32(step))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A directory with the states of steps 3 and 7."""
    path = tmp_path_factory.mktemp("two") / "states"
    store = TrainingCheckpoints(path)
    for step in (1, 3, 7):
        assert store.save(at(step), {"loss": np.arange(step) / 3}, wait=True)
    assert store.steps() == [3, 7]
    store.close()
    return path


def reopened(path, warned):
    return TrainingCheckpoints(path, warn=warned.append)


@pytest.mark.slow
def test_a_training_goes_on_from_its_newest_state(tmp_path, monkeypatch):
    # Saving begins while the next steps already reuse the state's memory.
    monkeypatch.setattr(training.loop, "CHUNK", 1)
    copies, means = {}, {}
    store = TrainingCheckpoints(tmp_path / "states")
    assert store.latest(BLANK) is None

    def keep(state, seen):
        copies[int(state.step)] = jax.tree.map(np.array, state)
        if int(state.step) in (1, 2, 5):
            while not store.save(state, seen):
                pass

    def tell(epoch, state, said):
        means.setdefault(epoch, []).append(said)

    unbroken = fit(hooks=training.Hooks(on_chunk=keep, on_epoch=tell))
    store.close()
    again = TrainingCheckpoints(tmp_path / "states")
    found = again.latest(BLANK)
    assert int(found.state.step) == 5
    assert type(found.state) is training.TrainState
    assert same(found.state, copies[5])
    assert len(found.seen["loss"]) == 2
    assert same(fit(resume=found, hooks=training.Hooks(on_epoch=tell)), unbroken)
    # What is told of the broken epoch is what the unbroken training told.
    assert [len(said) for said in means.values()] == [1, 2, 2, 2]
    assert all(said[0] == said[-1] for said in means.values())
    again.close(delete=True)
    assert not (tmp_path / "states").exists()


def test_what_a_kill_leaves_half_written_is_not_the_newest(two, tmp_path):
    path = shutil.copytree(two, tmp_path / "states")
    shutil.copytree(path / "7" / "state", path / "9.orbax-checkpoint-tmp" / "state")
    warned = []
    again = reopened(path, warned)
    assert int(again.latest(BLANK).state.step) == 7
    assert not warned
    again.close()


def largest(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


DAMAGE = {
    "truncated": lambda path: largest(path).write_bytes(largest(path).read_bytes()[:100]),
    "empty": lambda path: largest(path).write_bytes(b""),
    "zeroed": lambda path: largest(path).write_bytes(bytes(largest(path).stat().st_size)),
    "a file gone": lambda path: largest(path).unlink(),
    "no manifest": lambda path: (path / "state" / "manifest.ocdbt").unlink(),
    "no record": lambda path: shutil.rmtree(path / "record"),
    "no state": lambda path: shutil.rmtree(path / "state"),
    "nothing": lambda path: (shutil.rmtree(path), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_newest_state_gives_way_to_the_one_before(two, tmp_path, damage):
    path = shutil.copytree(two, tmp_path / "states")
    damage(path / "7")
    warned = []
    store = reopened(path, warned)
    found = store.latest(BLANK)
    assert same(found.state, at(3))
    np.testing.assert_array_equal(found.seen["loss"], np.arange(3) / 3)
    assert len(warned) == 1
    assert str(path / "7") in warned[0]
    assert "\n" not in warned[0]
    # The training comes by the same step again, and its state is then a good one.
    assert store.save(at(7), wait=True)
    assert same(store.latest(BLANK).state, at(7))
    assert len(warned) == 1
    store.close()


def test_two_damaged_states_mean_a_new_beginning(two, tmp_path):
    path = shutil.copytree(two, tmp_path / "states")
    for step in ("3", "7"):
        DAMAGE["truncated"](path / step)
    warned = []
    store = reopened(path, warned)
    assert store.latest(BLANK) is None
    assert len(warned) == 3
    assert "begins again" in warned[-1]
    assert store.steps() == []
    store.close()


def test_arrays_that_orbax_reads_without_noticing_are_checked(two, tmp_path, monkeypatch):
    path = shutil.copytree(two, tmp_path / "states")
    real = train_states.ocp.CheckpointManager.restore

    def altered(self, step, **options):
        found = real(self, step, **options)
        if step == 7:
            found["state"].params["classifier"]["kernel"][0] = 0
        return found

    monkeypatch.setattr(train_states.ocp.CheckpointManager, "restore", altered)
    warned = []
    store = reopened(path, warned)
    assert same(store.latest(BLANK).state, at(3))
    assert "not those that were saved" in warned[0]
    store.close()


def test_a_state_of_another_form_is_named_by_what_differs(two, tmp_path):
    path = shutil.copytree(two, tmp_path / "states")
    other = models.create("linear", num_classes=3)
    like = training.initial_state(models.init(jax.random.key(0), other, (2, 2, 1)), CONFIG)
    warned = []
    store = reopened(path, warned)
    assert store.latest(like) is None
    assert "classifier" in warned[0]
    store.close()


def test_a_save_never_waits_for_the_one_before(tmp_path, monkeypatch):
    gate, warned = threading.Event(), []
    real = TrainingCheckpoints._write

    def slow(self, *arguments):
        gate.wait(60)
        real(self, *arguments)

    monkeypatch.setattr(TrainingCheckpoints, "_write", slow)
    store = reopened(tmp_path / "states", warned)
    assert store.save(at(1))
    assert not store.save(at(2))
    gate.set()
    assert store.save(at(3), wait=True)
    assert store.steps() == [1, 3]
    store.close()
    assert not warned


def test_states_in_which_the_loss_is_no_number_are_not_gone_on_from(two, tmp_path):
    path = shutil.copytree(two, tmp_path / "states")
    store = TrainingCheckpoints(path)
    store.discard_from(8)
    assert store.steps() == [3, 7]
    store.discard_from(7)
    assert store.steps() == [3]
    store.close()


# --- A full disk. ---------------------------------------------------------------------------------


def test_a_write_that_fails_is_told_once_and_the_states_before_it_stay(tmp_path, monkeypatch):
    warned = []
    store = reopened(tmp_path / "states", warned)
    assert store.save(at(1), wait=True)

    def fail(*_, **__):
        raise ValueError("Failed to write [os_error_code='28' source locations='x']")

    with monkeypatch.context() as patch:
        patch.setattr(train_states.ocp.CheckpointManager, "save", fail)
        assert not store.save(at(2), wait=True)
        assert len(warned) == 1
        assert "step 2 could not be saved (No space left on device); that of step 1" in warned[0]
    assert store.save(at(4), wait=True)
    assert store.steps() == [1, 4]
    assert same(store.latest(BLANK).state, at(4))
    store.close()
    assert len(warned) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: pathlib.Path) -> pathlib.Path:
    path = place / "fill"
    with pytest.raises(OSError, match="No space left"):
        path.write_bytes(bytes(4_000_000))
    return path


def test_a_disk_that_is_full_for_a_while(small_disk):
    warned = []
    store = reopened(small_disk / "states", warned)
    assert store.save(at(1), wait=True)
    filling = fill(small_disk)
    for step in (2, 3):
        assert not store.save(at(step), wait=True)
    assert len(warned) == 2
    assert all("No space left" in text and "step 1 is kept" in text for text in warned)
    assert same(store.latest(BLANK).state, at(1))
    filling.unlink()
    assert store.save(at(4), wait=True)
    assert store.steps() == [1, 4]
    assert not list((small_disk / "states").glob("*tmp*"))
    store.close()


def test_the_operating_systems_error_is_found():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert disk_error(full) is full
    outer = RuntimeError("about it")
    outer.__cause__ = full
    assert disk_error(outer) is full
    assert disk_error(ValueError("a [os_error_code='30' b]")).errno == errno.EROFS
    assert disk_error(ValueError("other")) is None
