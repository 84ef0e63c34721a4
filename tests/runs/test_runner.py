"""The runner: one line for bad input, one summary for a run, and what a kill leaves."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from advfeat import figures, stats
from advfeat.runs import runner
from advfeat.runs.config import Config, UsageError, flag
from advfeat.runs.files import read_arrays
from advfeat.runs.report import Picture, Section, write_report

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(Config):
    SMALLEST = {"steps": 1}  # noqa: RUF012

    steps: int = flag(3, "Steps.", kind="count")


def toy(config, *, prepare=lambda config: config.steps, work=None):
    def count(config, steps, run):
        for step in range(steps):
            run.log(step, loss=1.0 / (step + 1))
        return {"accuracy": {"mean": 0.5, "low": math.nan, "high": 1.0, "n": 2}}

    return runner.Experiment("toy", prepare, work or count)(config)


def test_an_experiment_writes_a_summary_once(tmp_path, capsys):
    config = ToyConfig(workdir=str(tmp_path / "run"))
    summary = toy(config)
    assert summary["experiment"] == "toy"
    assert summary["claims"] == []
    assert summary["accuracy"] == {"mean": 0.5, "low": None, "high": 1.0, "n": 2}
    assert 0 <= summary["wall_seconds"] < 60
    assert summary["peak_memory_bytes"] > 1e6
    capsys.readouterr()

    def never(*_):
        raise AssertionError("a finished run is not done again")

    assert toy(config, prepare=never, work=never) == summary
    out = capsys.readouterr().out
    assert "finished" in out
    assert str(tmp_path / "run") in out


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_is_marked_as_one(tmp_path, dry_run):
    def work(config, inputs, run):
        figure = figures.bars({"a": {"b": 0.5}})
        figures.save(figure, run.figure("bars"))
        return {}

    summary = toy(ToyConfig(workdir=str(tmp_path), dry_run=dry_run), work=work)
    assert summary["dry_run"] is dry_run
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    plain = figures.save(figures.bars({"a": {"b": 0.5}}), tmp_path / "plain.png").read_bytes()
    same = (tmp_path / "figures" / "bars.png").read_bytes() == plain
    assert same is not dry_run


def test_a_dry_run_is_not_judged():
    claim = stats.claim("More.", *(stats.rate([1] * n + [0] * (100 - n)) for n in (90, 10)))
    config = ToyConfig(workdir="unused")
    assert [found.verdict for found in runner.judged([claim], config)] == ["holds"]
    dry = dataclasses.replace(config, dry_run=True)
    assert [found.verdict for found in runner.judged([claim], dry)] == [None]
    with pytest.raises(ValueError, match="margin"):  # also a dry run finds it
        runner.judged([dataclasses.replace(claim, margin=None)], dry)


def test_a_dry_run_performs_the_smallest_config_under_the_flags_that_were_given(tmp_path):
    seen = []

    def work(config, inputs, run):
        seen.append((inputs, config.steps, config.dry_run, run.command, run.record()["flags"]))
        return {}

    path = str(tmp_path / "run")
    config = ToyConfig(workdir=path, steps=5, dry_run=True)
    toy(config, work=work)
    command = f"python -m tests.runs --workdir={path} --dry_run=true --steps=5"
    (inputs, steps, dry_run, written, flags) = seen.pop()
    assert (inputs, steps, dry_run) == (1, 1, True)
    assert written.split()[3:] == command.split()[3:]
    assert flags["steps"] == 5
    toy(config, work=work)
    assert not seen  # the same flags are the same run
    with pytest.raises(UsageError, match="--steps=5, not --steps=4"):
        toy(ToyConfig(workdir=path, steps=4, dry_run=True), work=work)
    with pytest.raises(UsageError, match="--dry_run=true, not --dry_run=false"):
        toy(ToyConfig(workdir=path, steps=5), work=work)
    toy(ToyConfig(workdir=str(tmp_path / "whole"), steps=5), work=work)
    assert seen.pop()[:3] == (5, 5, False)


def test_only_a_dry_run_is_compiled_with_few_optimisations(tmp_path):
    def quickly(*_):
        return {"quickly": jax.config.read("jax_disable_most_optimizations")}

    for dry_run in (True, False):
        config = ToyConfig(workdir=str(tmp_path / str(dry_run)), dry_run=dry_run)
        assert toy(config, prepare=quickly, work=quickly)["quickly"] is dry_run
        assert not quickly()["quickly"]


def test_the_report_of_an_experiment_has_its_command_and_its_claims(tmp_path):
    def work(config, inputs, run):
        claim = stats.claim("It is so.", stats.rate([1] * 99), stats.rate([0] * 99))
        summary = {"claims": runner.judged([claim], config)}
        picture = Picture("bars", figures.bars({"a": {"b": 0.5}}), alt="bars")
        sections = [Section("s", [picture])]
        write_report(run, summary, title="Toy", findings=[], sections=sections)
        return summary

    toy(ToyConfig(workdir=str(tmp_path), steps=5), work=work)
    page = (tmp_path / "report.html").read_text()
    for words in ("It is so.", "--steps=5", "holds"):
        assert words in page
    assert (tmp_path / "figures" / "bars.png").exists()


def test_the_report_is_named(tmp_path, capsys):
    def work(config, inputs, run):
        run.report.write_text("")
        return {}

    config = ToyConfig(workdir=str(tmp_path))
    for _ in range(2):
        toy(config, work=work)
        assert f"report: {tmp_path / 'report.html'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such\n  data set"),
        FileNotFoundError("x.npz"),
        PermissionError("x"),
        ModuleNotFoundError("Pillow"),
    ],
)
def test_unusable_input_writes_nothing(tmp_path, error):
    def prepare(config):
        raise error

    with pytest.raises(UsageError) as found:
        toy(ToyConfig(workdir=str(tmp_path / "run")), prepare=prepare)
    assert "\n" not in str(found.value)
    assert found.value.__cause__ is error
    assert not (tmp_path / "run").exists()


def test_an_invalid_config_writes_nothing(tmp_path):
    with pytest.raises(UsageError, match="--steps=0"):
        toy(ToyConfig(workdir=str(tmp_path / "run"), steps=0))
    assert not (tmp_path / "run").exists()


def test_an_error_in_the_work_is_no_usage_error_and_can_be_resumed(tmp_path):
    config = ToyConfig(workdir=str(tmp_path))

    def work(config, inputs, run):
        if run.state == "fresh":
            raise ValueError("a bug")
        return {"state": run.state}

    with pytest.raises(ValueError, match="a bug") as error:
        toy(config, work=work)
    assert not isinstance(error.value, UsageError)
    assert toy(config, work=work)["state"] == "resumed"


TOY = """
    '''A toy that dies.'''
    import dataclasses, os, signal
    from advfeat.runs import config as c, runner

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(c.Config):
        steps: int = c.flag(6, "Steps.", kind="count")

    def prepare(config):
        if config.dataset == "missing":
            raise ValueError("dataset 'missing' is unknown")
        return "inputs"

    def work(config, inputs, run):
        done = [line["step"] for line in run.metrics("count")]
        for step in range(max(done, default=-1) + 1, config.steps):
            run.log(step, stage="count", value=step)
            if step == 3 and run.state == "fresh":
                with open(run.path / "metrics.jsonl", "a") as file:
                    file.write('{"stage": "co')  # a torn line
                os.kill(os.getpid(), signal.SIGKILL)
        return {"steps": len(run.metrics("count")), "state": run.state}

    if __name__ == "__main__":
        runner.main(runner.Experiment("toy", prepare, work),
                    Config, __doc__)
"""


@pytest.mark.slow
def test_kill_resume_finish_refuse_overwrite_from_the_command_line(tmp_path):
    (tmp_path / "toy.py").write_text(textwrap.dedent(TOY))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}

    def call(*arguments):
        command = [sys.executable, "-m", "toy", "--workdir=run", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    missing = call("--dataset=missing")
    assert (missing.returncode, missing.stderr) == (2, "toy: dataset 'missing' is unknown\n")
    assert not (tmp_path / "run").exists()

    killed = call()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "summary.json").exists()

    resumed = call()
    assert resumed.returncode == 0, resumed.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["state"]) == (6, "resumed")

    again = call()
    assert again.returncode == 0
    assert "finished" in again.stdout

    refused = call("--steps=7")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--steps=6, not --steps=7" in refused.stderr


@pytest.mark.parametrize("damage", ["array", "record"])
def test_a_damaged_file_of_the_run_is_one_line_that_names_it(tmp_path, damage):
    def work(config, inputs, run):
        path = run.arrays_path("measured/one")
        if path.exists():
            return {"sum": float(read_arrays(path)["hits"].sum())}
        run.save_arrays("measured/one", {"hits": np.arange(4)}, {})
        raise KeyboardInterrupt

    config, path = ToyConfig(workdir=str(tmp_path)), tmp_path / "measured" / "one.npz"
    with pytest.raises(KeyboardInterrupt):
        toy(config, work=work)
    if damage == "array":  # a whole archive of other numbers, which no format notices
        np.savez_compressed(path, hits=np.arange(1, 5))
    else:
        path.with_suffix(".json").write_text("[")
    with pytest.raises(runner.CannotGoOn, match=r"one\.(npz|json) is .*delete it and rerun"):
        toy(config, work=work)
    path.unlink()
    path.with_suffix(".json").unlink()
    with pytest.raises(KeyboardInterrupt):
        toy(config, work=work)
    assert toy(config, work=work)["sum"] == 6


def test_a_report_that_fails_costs_nothing_that_was_measured(tmp_path, capsys):
    measured = []

    def work(config, inputs, run, *, fails=True):
        def measure():
            measured.append(1)
            return {"hits": np.ones(99)}, {}

        summary = {"accuracy": stats.rate(run.cached("hits", measure)["hits"])}

        def draw():
            assert json.loads((tmp_path / "kept.json").read_text())["accuracy"]["n"] == 99
            if fails:
                raise KeyError("colour")
            run.report.write_text("drawn")

        return runner.reported(run, summary, draw)

    config = ToyConfig(workdir=str(tmp_path))
    with pytest.raises(runner.CannotGoOn) as raised:
        toy(config, work=work)
    (line,) = str(raised.value).splitlines()
    for words in ("KeyError: 'colour'", "test_runner.py:", "kept.json", "same command"):
        assert words in line
    assert not (tmp_path / "summary.json").exists()
    toy(config, work=lambda *given: work(*given, fails=False))
    assert len(measured) == 1
    assert (tmp_path / "report.html").read_text() == "drawn"
    assert json.loads((tmp_path / "summary.json").read_text())["accuracy"]["mean"] == 1
    assert not (tmp_path / "kept.json").exists()


def test_a_full_disk_is_not_the_reports_fault(tmp_path):
    def work(config, inputs, run):
        def draw():
            raise OSError(errno.ENOSPC, "No space left on device")

        return runner.reported(run, {}, draw)

    with pytest.raises(runner.CannotGoOn, match="No space left"):
        toy(ToyConfig(workdir=str(tmp_path)), work=work)
    assert (tmp_path / "kept.json").exists()
