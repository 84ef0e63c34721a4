"""`experiments.evaluate`: the summary, resuming after a kill, and what is refused."""

import json

import jax
import numpy as np
import pytest

from advfeat.checkpoints import Network, load_network, save_network
from experiments import evaluate, evaluate_journal, runner, train
from experiments.evaluate import Config


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("train") / "run"
    train.run(
        train.Config(
            workdir=str(path), epochs=4, width=8, eval_examples=20, eval_steps=1, eps_grid=(0.0,)
        )
    )
    return str(path)


def config(path, network, **options):
    usual = {"norm": "l2", "eps": 0.5, "num_examples": 60, "attack": ("fgsm", "pgd")}
    usual |= {"checks": False, "sweep_examples": 20, "batch_size": 16}
    return Config(workdir=str(path), checkpoint=network, **{**usual, **options})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("evaluate") / "run"
    return path, evaluate.run(config(path, network))


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


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the run catches it."""


def test_a_killed_evaluation_ends_as_an_unbroken_one(unbroken, network, tmp_path, monkeypatch):
    path, wanted = unbroken
    monkeypatch.setattr(evaluate_journal, "SAVE_SECONDS", -1.0)
    real, seen = evaluate_journal.Journal.part, []

    def dying(self, name, part):
        seen.append(name)
        if seen.count("pgd") == 2:
            raise Killed
        real(self, name, part)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_journal.Journal, "part", dying)
        patch.setattr(evaluate_journal.Journal, "__exit__", lambda *_: None)
        with pytest.raises(Killed):
            evaluate.run(config(tmp_path / "broken", network))
    kept = sorted((tmp_path / "broken" / "parts").glob("*.npz"))
    assert len(kept) == len(seen) - 1
    fresh = []
    monkeypatch.setattr(
        evaluate_journal.Journal,
        "part",
        lambda self, name, part: (fresh.extend(part.rows), real(self, name, part)),
    )
    found = evaluate.run(config(tmp_path / "broken", network))
    decided = sum(len(np.load(file)["rows"]) for file in kept)
    tried = sum(part["tried"] for part in wanted["attacks"].values())
    assert len(fresh) == tried - decided > 0
    for name, part in wanted["attacks"].items():
        same = {key: value for key, value in part.items() if key != "seconds"}
        assert same == {k: v for k, v in found["attacks"][name].items() if k != "seconds"}
    with np.load(path / "adversarial.npz") as a, np.load(
        tmp_path / "broken" / "adversarial.npz"
    ) as b:
        np.testing.assert_array_equal(a["robust"], b["robust"])
        np.testing.assert_array_equal(a["fooled_by"], b["fooled_by"])


def test_each_attack_on_every_image(network, tmp_path, unbroken):
    found = evaluate.run(config(tmp_path / "each", network, each=True))
    assert found["robust_accuracy"] == unbroken[1]["robust_accuracy"]
    tried = {part["tried"] for part in found["attacks"].values()}
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eps=1"], "flag --checkpoint is missing"),
        (["--checkpoint={net}"], "flag --eps is missing"),
        (["--checkpoint={net}", "--eps=8"], "eps"),
        (["--checkpoint={net}", "--eps=0.1", "--attack=pgd,autoattack"], "stands alone"),
        (["--checkpoint={net}", "--eps=0.1", "--attack=pgd,pgd"], "names one twice"),
        (["--checkpoint={net}", "--eps=0.1", "--attack=pgdd"], "must be"),
        (["--checkpoint={net}", "--eps=0.1", "--classes=1,2"], "knows the classes"),
        (["--checkpoint={net}", "--eps=0.1", "--attack=ddn", "--norm=linf"], "l2"),
        (["--checkpoint=/nowhere", "--eps=0.1"], "there is no directory"),
    ],
)
def test_refused_in_one_line_before_any_work(flags, message, network, tmp_path, capsys):
    arguments = [f"--workdir={tmp_path / 'w'}", *(flag.format(net=network) for flag in flags)]
    with pytest.raises(SystemExit) as end:
        runner.main(evaluate.run, Config, None, arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_a_network_that_knows_nothing_is_reported_all_the_same(network, tmp_path):
    """Zero weights: every gradient is zero, and the report must not call that robust."""


    loaded = load_network(network)
    dead = jax.tree.map(lambda leaf: leaf * 0, loaded.variables)
    save_network(tmp_path / "dead", Network(loaded.spec, dead, {}))
    found = evaluate.run(
        config(tmp_path / "w", str(tmp_path / "dead"), checks=True, num_examples=40)
    )
    assert "zero_gradients" in {warned["code"] for warned in found["warnings"]}
    assert not found["trusted"]
    assert json.loads((tmp_path / "w" / "summary.json").read_text())["trusted"] is False
