"""The run directory: fresh, resumed, finished, refused, overwritten; and what lies in it."""

from __future__ import annotations

import dataclasses
import errno
import gc
import json
import math
import multiprocessing
import os
import pathlib
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from advfeat.runs import files, metrics, provenance
from advfeat.runs.directory import RunDirectory

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = {"eps": 0.5, "seeds": (0, 1), "classes": None, "augment": True}


def opened(path, flags=FLAGS, name="toy", **options):
    return RunDirectory.open(path, flags, name=name, **options)


def contents(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


# The directory's states


def test_fresh_then_resumed_then_finished(tmp_path):
    path = tmp_path / "deep" / "run"
    with opened(path) as run:
        assert run.state == "fresh"
        assert run.record()["flags"] == {**FLAGS, "seeds": [0, 1]}
    with opened(path) as run:
        assert run.state == "resumed"
        assert len(run.record()["resumed"]) == 1
        assert not run.finished
        summary = run.finish({"accuracy": {"mean": np.float32(0.5), "n": 3}})
    assert summary == {"accuracy": {"mean": 0.5, "n": 3}}
    with opened(path) as run:
        assert run.state == "finished"
        assert run.summary() == summary


def test_run_json_says_what_ran(tmp_path):
    with opened(tmp_path) as run:
        record = json.loads((tmp_path / "run.json").read_text())
        assert record == run.record()
    assert record["experiment"] == "toy"
    assert record["versions"]["python"].count(".") == 2
    assert record["versions"]["jax"]
    assert record["devices"]["count"] >= 1
    assert record["revision"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 1.0}, ["--eps=0.5", "--eps=1.0"]),
        ({"eps": math.inf}, ["--eps=0.5", "--eps=inf"]),
        ({"seeds": (0,)}, ["--seeds=0,1", "--seeds=0"]),
        ({"classes": ("cat", "dog")}, ["--classes=none", "--classes=cat,dog"]),
        ({"augment": False}, ["--augment=true", "--augment=false"]),
        ({"new": 1}, ["--new=(absent)", "--new=1"]),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_other_flags_are_refused_with_both_values(tmp_path, change, words, finished):
    with opened(tmp_path) as run:
        if finished:
            run.finish({})
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="workdir") as error:
        opened(tmp_path, {**FLAGS, **change})
    assert all(word in str(error.value) for word in words)
    assert contents(tmp_path) == before


def test_an_infinite_flag_is_not_an_absent_one(tmp_path):
    opened(tmp_path, {"eps": math.inf}).close()
    assert opened(tmp_path, {"eps": math.inf}).state == "resumed"
    with pytest.raises(ValueError, match="--eps=inf, not --eps=none"):
        RunDirectory.inspect(tmp_path, {"eps": None}, name="toy")


def test_another_experiment_is_refused(tmp_path):
    opened(tmp_path).close()
    with pytest.raises(ValueError, match="a run of toy, not of train"):
        opened(tmp_path, name="train")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("record", [None, "", "{}", "[]", '{"experiment": 1, "flags": {}}'])
def test_a_directory_that_is_no_run_is_left_alone(tmp_path, record, overwrite):
    (tmp_path / "thesis.tex").write_text("precious")
    if record is not None:
        (tmp_path / "run.json").write_text(record)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="holds no run"):
        opened(tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_overwrite_starts_afresh(tmp_path):
    with opened(tmp_path) as run:
        run.log(1, loss=1.0)
        run.figure("a").write_text("")
        run.finish({})
    with opened(tmp_path, {"eps": 1.0}, overwrite=True) as run:
        assert run.state == "fresh"
        assert run.metrics() == []
        assert set(contents(tmp_path)) == {".lock", "run.json"}


def test_overwrite_spares_runs_inside(tmp_path):
    opened(tmp_path).close()
    opened(tmp_path / "inner").close()
    with pytest.raises(ValueError, match="inner"):
        opened(tmp_path, overwrite=True)
    assert (tmp_path / "inner" / "run.json").exists()


def test_overwrite_follows_no_links(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("precious")
    run = tmp_path / "run"
    opened(run).close()
    (run / "link").symlink_to(kept)
    opened(run, overwrite=True).close()
    assert (kept / "file").read_text() == "precious"


def test_a_kill_while_overwriting_is_made_good(tmp_path):
    with opened(tmp_path) as run:
        run.log(1, loss=1.0)
    (tmp_path / ".clearing").touch()  # what a kill in the middle of clearing leaves
    (tmp_path / "run.json").unlink()
    with opened(tmp_path) as run:
        assert run.state == "fresh"
        assert set(contents(tmp_path)) == {".lock", "run.json"}


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="is a file"):
            opened(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_place_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot be written"):
        opened(tmp_path / "run")


def test_a_place_where_nothing_can_be_made_is_refused():
    if not pathlib.Path("/proc/self").exists():
        pytest.skip("no /proc")
    with pytest.raises((ValueError, PermissionError), match="workdir"):
        opened("/proc/advfeat/run")


def _open_elsewhere(path, answers):
    try:
        opened(path).close()
        answers.put("opened")
    except ValueError as error:
        answers.put(str(error))


@pytest.mark.slow
def test_two_processes_do_not_share_a_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with opened(tmp_path):
        other = context.Process(target=_open_elsewhere, args=(tmp_path, answers))
        other.start()
        assert "another process is writing there" in answers.get(timeout=60)
        other.join()
    assert opened(tmp_path).state == "resumed"


# Metrics


def test_metrics_keep_scalars_and_write_nan_as_null(tmp_path):
    with opened(tmp_path) as run:
        run.log(0, stage="train", loss=jnp.float32(0.5), bad=float("nan"), worse=-np.inf)
        run.log(1, accuracy=1)
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
        assert lines == run.metrics()
        assert run.metrics("train") == lines[:1]
    assert {**lines[0], "seconds": 0} == {
        "stage": "train",
        "step": 0,
        "seconds": 0,
        "loss": 0.5,
        "bad": None,
        "worse": None,
    }
    assert lines[1]["accuracy"] == 1.0
    assert 0 <= lines[0]["seconds"] <= lines[1]["seconds"]


def test_metrics_reserve_seconds(tmp_path):
    with opened(tmp_path) as run, pytest.raises(ValueError, match="seconds"):
        run.log(0, seconds=1.0)


@pytest.mark.parametrize("torn", [b'{"stage": "", "st', b"\x00\x00\n", b'{"a": 1}x\n{"b": 2}\n'])
def test_a_torn_end_is_cut_off(tmp_path, torn):
    with opened(tmp_path) as run:
        run.log(1, loss=1.0)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with opened(tmp_path) as run:
        assert path.read_bytes() == whole
        run.log(2, loss=0.5)
        assert [line["step"] for line in run.metrics()] == [1, 2]


def test_a_resumed_stage_drops_what_it_does_again(tmp_path):
    with opened(tmp_path) as run:
        for step in range(5):
            run.log(step, stage="a", loss=10.0 + step)
            run.log(step, stage="b", loss=20.0 + step)
    with opened(tmp_path) as run:  # checkpoint of stage "a" at step 3, "b" goes on
        run.log(3, stage="a", loss=0.0)
        run.log(4, stage="a", loss=0.0)
        run.log(5, stage="b", loss=0.0)
        a, b = ([line["loss"] for line in run.metrics(stage)] for stage in "ab")
    assert a == [10.0, 11.0, 12.0, 0.0, 0.0]
    assert b == [20.0, 21.0, 22.0, 23.0, 24.0, 0.0]


def test_seconds_go_on_after_a_resume(tmp_path):
    line = {"stage": "", "step": 3, "seconds": 100.0}
    opened(tmp_path).close()
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    with opened(tmp_path) as run:
        assert 100 <= run.cost()["wall_seconds"] < 160
        assert run.cost()["peak_memory_bytes"] > 1e6


def test_tensorboard_events_hold_the_scalars_and_need_no_tensorflow(tmp_path):
    with opened(tmp_path) as run:
        run.log(7, stage="train", loss=0.25, bad=float("nan"))
    (events,) = (tmp_path / metrics.EVENTS / "train").iterdir()
    from tensorboardX.proto import event_pb2

    content, found = events.read_bytes(), []
    while content:  # TFRecord: length, its CRC, data, its CRC
        size = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + size])
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        content = content[16 + size :]
    assert found == [(7, "loss", 0.25)]
    assert "tensorflow" not in sys.modules


# Arrays, JSON, atomic writes


def test_arrays_open_without_pickle_and_carry_their_provenance(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    with opened(tmp_path) as run:
        path = run.save_arrays("data/d_det", {"image": images, "label": jnp.arange(2)}, {"seed": 3})
        assert path == run.arrays_path("data/d_det")
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["image"], images)
        assert arrays["label"].dtype == np.int32
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["seed"] == 3
    assert record["arrays"]["image"] == {"shape": [2, 3, 4, 1], "dtype": "uint8"}
    assert len(record["sha256"]) == 64
    assert record["revision"] == provenance.revision()


def test_equal_arrays_give_equal_files(tmp_path):
    with opened(tmp_path) as run:
        one = run.save_arrays("a", {"x": np.ones(5)}, {}).read_bytes()
        other = run.save_arrays("b", {"x": np.ones(5)}, {}).read_bytes()
    assert one == other


@pytest.mark.parametrize("value", [np.array([None]), [{}], jnp.zeros(2, jnp.bfloat16)])
def test_arrays_that_would_need_pickle_are_refused(tmp_path, value):
    with opened(tmp_path) as run:
        with pytest.raises(ValueError, match=r"arrays\['x'\]"):
            run.save_arrays("a", {"x": value}, {})
        assert not run.arrays_path("a").exists()


def test_cached_arrays_are_computed_once_in_a_run(tmp_path):
    calls = []

    def compute():
        calls.append("computed")
        return {"hits": [True, False]}, {"network": "a"}

    with opened(tmp_path) as run:
        first = run.cached("measured/a", compute, found=lambda: calls.append("found"))
    with opened(tmp_path) as run:  # as after a kill
        again = run.cached("measured/a", compute, found=lambda: calls.append("found"))
    assert calls == ["computed", "found"]
    for arrays in (first, again):
        assert list(arrays) == ["hits"]
        np.testing.assert_array_equal(arrays["hits"], np.array([True, False]))
    assert json.loads((tmp_path / "measured" / "a.json").read_text())["network"] == "a"
    (tmp_path / "measured" / "a.npz").write_bytes(b"broken")
    with opened(tmp_path) as run, pytest.raises(files.DamagedError, match=r"a\.npz"):
        run.cached("measured/a", compute)


def test_plain_json():
    @dataclasses.dataclass
    class Record:
        path: pathlib.Path
        rates: tuple[float, ...]

    value = {1: jnp.array([0.5, np.nan]), "r": Record(pathlib.Path("a"), (1.0, np.inf))}
    assert files.plain(value) == {"1": [0.5, None], "r": {"path": "a", "rates": [1.0, None]}}
    with pytest.raises(TypeError, match="object"):
        files.plain({"x": object()})


def test_a_failed_summary_leaves_the_run_unfinished(tmp_path):
    run = opened(tmp_path)
    with pytest.raises(TypeError):
        run.finish({"x": object()})
    run.close()
    assert opened(tmp_path).state == "resumed"


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_json(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1}


def test_revision_without_git_is_the_version(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.revision().startswith("advfeat ")


def test_revision_does_not_take_another_repository_for_ours(monkeypatch, tmp_path):
    runs = tmp_path / "site" / "advfeat" / "runs"
    monkeypatch.setattr(provenance, "__file__", str(runs / "p.py"))
    runs.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert provenance.revision().startswith("advfeat ")


WORKS = """
    import sys, time
    from advfeat.runs import locks
    locks.BEAT_SECONDS = 0.05
    from advfeat.runs.directory import RunDirectory
    run = RunDirectory.open(sys.argv[1], {}, name="toy")
    time.sleep(0.5)
    print(run.seconds, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_the_time_of_a_killed_process_counts_though_it_logged_nothing(tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKS), str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said = float(run.stdout.readline())
    run.kill()
    run.communicate()
    with opened(tmp_path, {}) as again:
        assert again.state == "resumed"
        assert said - 0.4 < again.seconds < said + 60
    with opened(tmp_path, {}, overwrite=True) as fresh:
        assert fresh.seconds < said


def test_a_run_left_open_and_forgotten_is_free(tmp_path):
    opened(tmp_path).log(0, loss=1.0)
    gc.collect()
    assert opened(tmp_path).state == "resumed"


def test_a_full_disk_leaves_no_half_file_and_lets_the_run_go(tmp_path, monkeypatch):
    run = opened(tmp_path)
    run.log(0, loss=1.0)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run.save_arrays("big", {"a": np.zeros(3)}, {})
    assert not [name for name in contents(tmp_path) if "big" in name]
    with monkeypatch.context() as patch:
        patch.setattr(metrics.MetricsLog, "close", full)
        with pytest.raises(OSError, match="No space left"):
            run.close()
    assert opened(tmp_path).state == "resumed"


@pytest.mark.parametrize(
    "line", [b"3", b"[]", b'{"stage": "a"}', b'{"stage": "a", "step": "x", "seconds": 1}', b"null"]
)
def test_a_line_that_is_no_line_of_ours_is_cut_off(tmp_path, line):
    with RunDirectory.open(tmp_path, {}, name="x") as run:
        run.log(1, loss=0.5)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with RunDirectory.open(tmp_path, {}, name="x") as run:
        assert [found["step"] for found in run.metrics()] == [1]


@pytest.mark.parametrize("change", [{"resumed": 3}, {"flags": []}, {"experiment": None}])
def test_a_run_json_of_other_contents_is_no_run(tmp_path, change):
    with RunDirectory.open(tmp_path, {}, name="x") as run:
        run.log(1, loss=0.5)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(ValueError, match="holds no run"):
        RunDirectory.open(tmp_path, {}, name="x")
