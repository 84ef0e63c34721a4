"""`experiments.evaluate`: the summary, resuming after a kill, and what is refused."""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from killed import Killed

from advfeat.models.network import Network
from advfeat.runs import journal, runner
from advfeat.runs.checkpoints import load_network, save_network
from advfeat.runs.config import UsageError
from experiments.evaluate import (
    plan as evaluate_plan,
    report as evaluate_report,
    work as evaluate_work,
)
from experiments.evaluate.flags import Config
from experiments.train import flags as train_flags, work as train_work

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("train") / "run"
    train_work.run(
        train_flags.Config(
            workdir=str(path), epochs=4, width=8, eval_examples=20, eval_steps=1, eps_grid=(0.0,)
        )
    )
    return str(path)


def config(path, network, **options):
    usual = {"norm": "l2", "eps": 0.5, "eval_examples": 60, "attack": ("fgsm", "pgd")}
    usual |= {"checks": False, "sweep_examples": 20, "attack_batch_size": 16}
    return Config(workdir=str(path), checkpoint=network, **{**usual, **options})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("evaluate") / "run"
    return path, evaluate_work.run(config(path, network))


def test_summary_report_and_arrays_agree(unbroken):
    path, summary = unbroken
    with np.load(path / "adversarial.npz") as saved:
        arrays = dict(saved)
    assert summary["robust_accuracy"]["mean"] == pytest.approx(arrays["robust"].mean())
    assert summary["clean_accuracy"]["mean"] == pytest.approx(arrays["clean"].mean())
    assert list(summary["attacks"]) == ["fgsm", "pgd"]
    last = summary["attacks"]["pgd"]
    assert last["robust_accuracy"] == summary["robust_accuracy"]
    assert last["tried"] == summary["attacks"]["fgsm"]["robust_accuracy"]["mean"] * 60
    assert last["forward_passes"] > last["gradients"] > 0
    assert summary["attacks"]["fgsm"]["gradients"] == arrays["clean"].sum()
    assert 0 < summary["robust_accuracy"]["mean"] < summary["clean_accuracy"]["mean"]
    by_eps = [part["accuracy"]["mean"] for part in summary["curves"]["accuracy_by_eps"]]
    assert by_eps == sorted(by_eps, reverse=True)
    losses = summary["curves"]["loss_by_step"]
    assert losses == sorted(losses)
    assert summary["warnings"] == []
    assert "worst case" in (path / "report.html").read_text()
    for figure in ("attacks", "epsilons", "losses", "gallery"):
        assert (path / "figures" / f"{figure}.png").exists()


def multiplied(network, factor, path):
    """The network with its weights times a number, saved in `path`."""
    loaded = load_network(network)
    scaled = jax.tree.map(lambda leaf: leaf * factor, loaded.variables)
    save_network(path, Network(loaded.spec, scaled, {}))


@pytest.mark.slow
def test_a_killed_evaluation_ends_as_an_unbroken_one(unbroken, network, tmp_path, monkeypatch):
    path, wanted = unbroken
    monkeypatch.setattr(journal, "SAVE_SECONDS", -1.0)
    real, seen = journal.Journal.part, []

    def dying(self, name, part):
        seen.append(name)
        if seen.count("pgd") == 2:
            raise Killed
        real(self, name, part)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "part", dying)
        patch.setattr(journal.Journal, "__exit__", lambda *_: None)
        with pytest.raises(Killed):
            evaluate_work.run(config(tmp_path / "broken", network))
    kept = sorted((tmp_path / "broken" / "parts").glob("*.npz"))
    assert len(kept) == len(seen) - 1
    fresh = []
    monkeypatch.setattr(
        journal.Journal,
        "part",
        lambda self, name, part: (fresh.extend(part.rows), real(self, name, part)),
    )
    found = evaluate_work.run(config(tmp_path / "broken", network))
    decided = sum(len(np.load(file)["rows"]) for file in kept)
    tried = sum(part["tried"] for part in wanted["attacks"].values())
    assert len(fresh) == tried - decided > 0
    for name, part in wanted["attacks"].items():
        same = {key: value for key, value in part.items() if key != "seconds"}
        assert same == {k: v for k, v in found["attacks"][name].items() if k != "seconds"}
    with (
        np.load(path / "adversarial.npz") as a,
        np.load(tmp_path / "broken" / "adversarial.npz") as b,
    ):
        np.testing.assert_array_equal(a["robust"], b["robust"])
        np.testing.assert_array_equal(a["fooled_by"], b["fooled_by"])


@pytest.mark.slow
def test_verdicts_on_another_network_are_not_gone_on_with(network, tmp_path, monkeypatch):
    changing = str(tmp_path / "network")
    multiplied(network, 1.0, changing)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_report, "write", dying)
        with pytest.raises(Killed):
            evaluate_work.run(config(tmp_path / "w", changing, eval_examples=20))
    multiplied(network, 0.9, changing)
    before = (tmp_path / "w" / "run.json").read_bytes()
    with pytest.raises(UsageError, match="holds verdicts on another network or other images"):
        evaluate_work.run(config(tmp_path / "w", changing, eval_examples=20))
    assert (tmp_path / "w" / "run.json").read_bytes() == before
    afresh = config(tmp_path / "w", changing, eval_examples=20, overwrite=True)
    assert evaluate_work.run(afresh)["num_examples"] == 20


def dying(*_):
    raise Killed


FINISHED = ("broken", "whole")
MOMENTS = ("apgd_ce:", "apgd_targeted:", "fab_targeted:", "square:", "checks:", "figures")


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_killed_by_the_system_at_any_moment_it_ends_as_an_unbroken_run(network, tmp_path, norm):
    """SIGKILL in the midst of every attack, of the checks and of the report."""
    flags = [f"--norm={norm}", "--eps=0.1", "--eval_examples=60", "--attack_batch_size=16"]
    command = [sys.executable, "-m", "experiments.evaluate", f"--checkpoint={network}", *flags]
    rng = np.random.default_rng(0)
    # Each of the processes would compile the same programs.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start(name):
        log = tmp_path / f"{name}.log"
        with log.open("wb") as out:
            made = subprocess.Popen(
                [*command, f"--workdir={tmp_path / name}"],
                stderr=out,
                stdout=out,
                cwd=ROOT,
                env={**os.environ, **cache},
            )
        return made, log

    for moment in MOMENTS:
        process, log = start("broken")
        figures = tmp_path / "broken" / "figures"
        while process.poll() is None:
            if moment in log.read_text() or (moment == "figures" and figures.exists()):
                # Figures and report take a second; an attack takes several.
                time.sleep(rng.uniform(0, 0.1 if moment == "figures" else 2))
                process.kill()
                break
            time.sleep(0.05)
        process.wait()
        assert not (tmp_path / "broken" / "summary.json").exists(), moment
    for name in FINISHED:
        process, log = start(name)
        assert process.wait() == 0, log.read_text()
    read = [json.loads((tmp_path / name / "summary.json").read_text()) for name in FINISHED]
    for summary in read:
        for key in ("wall_seconds", "peak_memory_bytes"):
            summary.pop(key)
        for attack in summary["attacks"].values():
            attack.pop("seconds")
    assert read[0] == read[1]
    arrays = [dict(np.load(tmp_path / name / "adversarial.npz")) for name in FINISHED]
    for key, value in arrays[0].items():
        np.testing.assert_array_equal(value, arrays[1][key], err_msg=key)


@pytest.mark.slow
def test_each_attack_on_every_image(network, tmp_path, unbroken):
    found = evaluate_work.run(config(tmp_path / "each", network, each=True))
    assert found["robust_accuracy"] == unbroken[1]["robust_accuracy"]
    tried = {part["tried"] for part in found["attacks"].values()}
    assert len(tried) == 1


def test_pgds_own_flags(network, tmp_path):
    flags = {"attack_steps": 7, "restarts": 2, "step_size": 0.25}
    plan = evaluate_plan.prepare(config(tmp_path / "x", network, attack=("pgd",), **flags))
    attack = plan.suite.attacks["pgd"]
    assert (attack.steps, attack.rounds, float(attack.step_size)) == (7, 2, 0.25)
    plain = evaluate_plan.prepare(config(tmp_path / "x", network, attack=("pgd",)))
    assert list(plain.suite.attacks) == ["pgd"]
    assert plain.suite.attacks["pgd"].steps != 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps=1"], "flag --checkpoint is missing"),
        (["--checkpoint={net}", "--norm=l2"], "flag --eps is missing"),
        (["--checkpoint={net}", "--eps=1"], "flag --norm is missing"),
        (["--checkpoint={net}", "--norm=linf", "--eps=8"], "eps"),
        (
            ["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--attack=pgd,autoattack"],
            "stands alone",
        ),
        (["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--attack=pgd,pgd"], "names one twice"),
        (
            ["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--attack_steps=5"],
            "--attack=pgd alone, not for --attack",
        ),
        (
            ["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--attack=pgd", "--restarts=0"],
            "--restarts=0",
        ),
        (["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--attack=pgdd"], "must be"),
        (["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--classes=1,2"], "knows the classes"),
        (
            ["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--attack=pgd,ddn"],
            "ddn is defined for --norm=l2",
        ),
        (
            ["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--attack=ddn", "--dry_run"],
            "defined for --norm=l2",
        ),
        (["--checkpoint={net}", "--eps=128", "--norm=l2"], "--eps=128: must be below 8 for l2"),
        (["--checkpoint={net}", "--eps=255", "--norm=l1"], "--eps=255: must be below 64 for l1"),
        (["--checkpoint={net}", "--eps=8", "--norm=l2"], "--eps=8: must be below 8 for l2"),
        (["--checkpoint={net}", "--norm=linf", "--eps=1"], "--eps=1: must be below 1 for linf"),
        (
            ["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--attack_batch_size=0"],
            "--attack_batch_size=0: must be a whole",
        ),
        (["--checkpoint=/nowhere", "--norm=linf", "--eps=0.1"], "there is no directory"),
        (
            ["--checkpoint={net}", "--norm=linf", "--eps=0.1", "--dataset={npz}"],
            "takes images of (8, 8, 1)",
        ),
        (["--checkpoint={nan}", "--norm=linf", "--eps=0.1"], "must return finite logits, got NaN"),
    ],
)
def test_refused_in_one_line_before_any_work(flags, message, network, tmp_path, capsys):
    names = {"net": network, "nan": tmp_path / "nan", "npz": tmp_path / "small.npz"}
    if "{nan}" in flags[0]:
        multiplied(network, np.nan, names["nan"])
    if "{npz}" in flags[-1]:
        images, labels = np.zeros((10, 4, 4, 1), np.uint8), np.arange(10)
        np.savez(names["npz"], image=images, label=labels, test_image=images, test_label=labels)
    arguments = [f"--workdir={tmp_path / 'w'}", *(flag.format(**names) for flag in flags)]
    with pytest.raises(SystemExit) as end:
        runner.main(evaluate_work.run, Config, None, arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_a_network_that_knows_nothing_is_reported_all_the_same(network, tmp_path):
    """Zero weights: every gradient is zero, and the report must not call that robust."""
    multiplied(network, 0.0, tmp_path / "dead")
    found = evaluate_work.run(
        config(tmp_path / "w", str(tmp_path / "dead"), checks=True, eval_examples=40)
    )
    assert "zero_gradients" in {warned["code"] for warned in found["warnings"]}
    assert not found["trusted"]
    assert json.loads((tmp_path / "w" / "summary.json").read_text())["trusted"] is False
