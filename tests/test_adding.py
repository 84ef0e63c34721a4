"""One of each kind is added from outside, by its registry alone, and used like those of ours."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import data, saliency, training
from advfeat.evaluation import diagnostics, suites
from advfeat.runs import config as config_lib, runner
from advfeat.runs.config import UsageError
from advfeat.stats import rate
from advfeat.training.losses.base import AdversarialObjective, forward, weighted_mean
from advfeat.types import AttackResult, Best, pytree
from experiments.evaluate import flags as evaluate_flags
from experiments.roar import flags as roar_flags
from experiments.train import flags as train_flags, plan as train_plan, work as train_work

ROOT = pathlib.Path(__file__).parents[1]
KEY = jax.random.key(0)
WEIGHTS = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
IMAGES = np.random.default_rng(1).random((8, 4, 4, 1)).astype(np.float32)


def linear(x):
    return WEIGHTS @ x.ravel()


NETWORK = advfeat.as_model_fn(linear)
LABELS = np.array([linear(x).argmax() for x in IMAGES])


def evaluate(**options):
    return advfeat.evaluate(KEY, NETWORK, IMAGES, LABELS, threat=advfeat.linf(0.3), **options)


# --- An attack, alone and in suites. --------------------------------------------------------------


def to_white(threat):
    """Brightens every pixel by eps, whatever the network does."""

    def attack(key, model_fn, x, y):
        moved = threat.project(x, x + threat.eps)
        wrong = model_fn(moved).argmax() != y
        best = Best(moved, jnp.zeros(()), wrong, threat.distance(x, moved))
        return AttackResult(best, best, jnp.int32(1), jnp.int32(0))

    return attack


def test_an_attack(monkeypatch):
    monkeypatch.setitem(advfeat.ATTACKS, "to_white", to_white)
    found = evaluate(suite=["to_white", "fgsm"], checks=False)
    assert [part.name for part in found.attacks] == ["to_white", "fgsm"]
    for image, worst, fooled in zip(
        IMAGES, found.adversarial, found.attacks[0].fooled, strict=True
    ):
        assert fooled == (linear(np.minimum(image + 0.3, 1)).argmax() != linear(image).argmax())
        if fooled:
            np.testing.assert_allclose(worst, np.minimum(image + 0.3, 1), rtol=1e-6)


def test_a_suite_that_holds_it_and_a_place_in_ours(monkeypatch):
    monkeypatch.setitem(advfeat.ATTACKS, "to_white", to_white)
    monkeypatch.setitem(suites.SUITES, "bright", suites.listed("to_white", "fgsm"))
    found = evaluate(suite="bright", checks=False)
    assert found.attacks[0].name == "to_white"
    assert found.suite == "bright"

    def longer(threat, num_classes, ours=suites.SUITES["standard"]):
        suite = ours(threat, num_classes)
        return dataclasses.replace(suite, attacks={"to_white": to_white(threat), **suite.attacks})

    monkeypatch.setitem(suites.SUITES, "standard", longer)
    found = suites.resolve("standard", advfeat.linf(0.3), num_classes=10)
    assert list(found.attacks)[:2] == ["to_white", "apgd_ce"]


def test_a_suite_made_from_another_has_its_own_name(monkeypatch):
    monkeypatch.setitem(suites.SUITES, "longer", suites.SUITES["quick"])
    for name in suites.SUITES:
        assert suites.resolve(name, advfeat.linf(0.3), num_classes=10).name == name
    assert suites.resolve("pgd", advfeat.linf(0.3), num_classes=10).name == "custom"


def test_an_attack_that_says_more(monkeypatch):
    def fit(threat, num_classes, options):
        return advfeat.attacks.Fitted({"eps_share": 1 / num_classes}, "Fewer classes, more eps.")

    def shared(threat, *, eps_share=1.0):
        return to_white(advfeat.threat_model(threat.norm, eps_share * threat.eps))

    entry = advfeat.attacks.Entry(shared, norms=("linf",), fit=fit)
    monkeypatch.setitem(advfeat.ATTACKS, "shared", entry)
    found = evaluate(suite="shared", checks=False)
    assert [(w.code, w.sentence) for w in found.warnings] == [
        ("replaced", "Fewer classes, more eps.")
    ]
    assert found.trusted is None
    moved = np.abs(found.adversarial - IMAGES).max()
    assert 0 <= moved <= 0.1 + 1e-6
    given = {"workdir": "w", "checkpoint": "zoo:x", "eps": 0.1, "attack": ("shared",)}
    evaluate_flags.Config(**given, norm="linf").validate()
    with pytest.raises(ValueError, match="shared is defined for --norm=linf, not for l2"):
        evaluate_flags.Config(**given, norm="l2").validate()


# --- A check, with its severity. ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("severity", "trusted"), [("doubt", False), ("always", False), ("note", None)]
)
def test_a_check(monkeypatch, severity, trusted):
    def few(case):
        yield diagnostics.Finding(
            "few_images", 1 / len(case.images), 0.1, "There are few images.", severity
        )

    monkeypatch.setitem(diagnostics.CHECKS, "few", diagnostics.Check(few, free=True))
    made = []
    found = advfeat.evaluate(
        KEY,
        NETWORK,
        IMAGES,
        LABELS,
        threat=advfeat.linf(1e-4),
        suite=["fgsm"],
        checks=False,
        on_check=made.append,
    )
    assert "few" in made
    assert found.robust.any()
    assert [w.code for w in found.warnings] == ["few_images"]
    assert "There are few images." in str(found)
    assert found.trusted is trusted


# --- A training objective, with an option of its own. ---------------------------------------------


@pytree
class Halves(AdversarialObjective):
    """A share of the loss at attacked images, the rest at clean ones."""

    gamma: jax.Array

    def descend(self, key, params, model_state, batch):
        total = 0.0
        for name, share in (("attacked", self.gamma), ("image", 1 - self.gamma)):
            logits, model_state = forward(self.model, key, params, model_state, batch[name], batch)
            total += share * weighted_mean(jax.vmap(self.loss)(logits, batch["label"]), batch)
        hit = weighted_mean((logits.argmax(-1) == batch["label"]).astype(jnp.float32), batch)
        return total, (model_state, {"loss": total, "accuracy": hit})


def halves(model, loss, attack, *, gamma):
    return Halves(model, loss, attack, jnp.float32(gamma))


def train_config(path, **options):
    usual = {"dataset": "digits", "dry_run": True, "model": "linear", "eps": 0.5}
    return train_flags.Config(workdir=str(path), objective="halves", **usual, **options)


def test_a_training_objective(monkeypatch, tmp_path):
    entry = training.Entry(halves, numbers={"gamma": 0.75}, attack_steps=3)
    monkeypatch.setitem(training.OBJECTIVES, "halves", entry)
    summary = train_work.run(train_config(tmp_path / "run", numbers=("gamma=0.25",)))
    assert summary["objective"] == "halves"
    assert summary["training"]["gamma"] == 0.25
    whole = dataclasses.replace(train_config(tmp_path / "w", attack_steps=5), dry_run=False)
    recipe = train_plan.prepare(whole).recipe
    assert float(recipe.loss_fn().gamma) == 0.75
    assert recipe.loss_fn().attack.steps == 5
    for options, words in (
        ({"beta": 6.0}, "--beta=6.0: has no meaning for --objective=halves, only for trades, mart"),
        ({"numbers": ("delta=1",)}, "--numbers=delta=1: --objective=halves: its options are gamma"),
        ({"numbers": ("gamma=a",)}, "--numbers=gamma=a: must be gamma=NUMBER"),
    ):
        with pytest.raises(ValueError, match=words):
            train_config(tmp_path / "bad", **options).validate()


def test_a_procedure_that_is_an_objective(monkeypatch, tmp_path):
    def gentle(threat, *, step_size, accumulate, gamma):
        return training.free(threat, replays=3, step_size=gamma * threat.eps, accumulate=accumulate)

    monkeypatch.setitem(training.PROCEDURES, "gentle", gentle)
    entry = training.Entry(
        training.standard, numbers={"gamma": 0.5}, attack_steps=None, procedure="gentle"
    )
    monkeypatch.setitem(training.OBJECTIVES, "halves", entry)
    config = train_config(tmp_path / "run", numbers=("gamma=0.25",), accumulate=2)
    config.validate()
    recipe = train_plan.prepare(config).recipe
    procedure = recipe.procedure()
    assert type(recipe.loss_fn()) is type(training.standard(None))
    assert (procedure.replays, procedure.accumulate) == (3, 2)
    assert float(procedure.step_size) == 0.25 * 0.5
    with pytest.raises(ValueError, match=r"--awp=0\.1: has no meaning for --objective=halves"):
        train_config(tmp_path / "bad", awp=0.1).validate()
    with pytest.raises(ValueError, match="threat must be a threat model"):
        entry.build_procedure(None, gamma=0.5)
    assert type(training.OBJECTIVES["trades"].build_procedure(None)) is type(training.plain())


# --- A saliency method. ---------------------------------------------------------------------------


def test_a_saliency_method(monkeypatch):
    def weighted(key, model_fn, x, y):
        return 2.0 * jax.grad(lambda point: model_fn(point)[y])(x)

    method = saliency.Method(lambda: weighted, attribution=True, slope=True, title="Weighted")
    monkeypatch.setitem(saliency.METHODS, "weighted", method)
    found = saliency.maps(KEY, ["gradient", "weighted"], NETWORK, IMAGES, LABELS)
    np.testing.assert_allclose(found["weighted"], 2 * found["gradient"], rtol=1e-6)
    signed = saliency.ranking("weighted", found["weighted"])
    np.testing.assert_allclose(signed, found["weighted"].sum(-1), rtol=1e-6)
    missed = saliency.infidelities(KEY, found, NETWORK, IMAGES, LABELS, samples=5)
    np.testing.assert_allclose(missed["weighted"], 0.0, atol=1e-6)
    assert saliency.title_of("weighted") == "Weighted"
    roar_flags.Config(workdir="w", methods=("gradient", "weighted")).validate()


# --- A data set. ----------------------------------------------------------------------------------


def stripes(name, *, classes=None, data_dir=None):
    images = np.zeros((40, 4, 4, 1), np.float32)
    labels = np.arange(40) % 2
    images[labels == 0, ::2], images[labels == 1, :, ::2] = 1.0, 1.0
    split = data.Split(images, labels, np.arange(40))
    return data.Dataset(name=name, train=split, test=split, class_names=("rows", "columns"))


def test_a_data_set(monkeypatch):
    monkeypatch.setitem(data.SOURCES, "stripes", data.Source(stripes))
    assert data.load("stripes").class_names == ("rows", "columns")
    assert data.names()[0] == "stripes"
    large = data.Source(stripes, lambda name: name.startswith("stripes:"), ("stripes:large",))
    monkeypatch.setitem(data.SOURCES, "others", large)
    assert data.load("stripes:large").name == "stripes:large"
    assert data.load("digits").num_classes == 10


# --- An experiment outside of the tree, with all of the above from the command line. --------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(config_lib.Config):
    share: float = config_lib.flag(0.5, "Share of the images.", kind="fraction")


def prepare(config):
    return data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)


def work(config, dataset, run):
    bright = dataset.test.image.mean(axis=(1, 2, 3)) > config.share
    return {"bright": rate(bright)}


def test_an_experiment(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(data.SOURCES, "stripes", data.Source(stripes))

    run = runner.Experiment("bright", prepare, work)
    words = [f"--workdir={tmp_path / 'run'}", "--dataset=stripes", "--share=0.4"]
    runner.main(run, Config, "How bright are images?", words)
    again = run(Config(workdir=str(tmp_path / "run"), dataset="stripes", share=0.4))
    assert again["bright"]["mean"] == 1.0
    assert again["experiment"] == "bright"


PLUGIN = """
    import jax.numpy as jnp
    from advfeat import data, training
    from advfeat.training import adversarial
    import numpy as np

    def stripes(name, *, classes=None, data_dir=None):
        images = np.random.default_rng(0).random((200, 8, 8, 1)).astype(np.float32)
        split = data.Split(images, np.arange(200) % 2, np.arange(200))
        return data.Dataset(name=name, train=split, test=split, class_names=("a", "b"))

    data.SOURCES["stripes"] = data.Source(stripes)
    training.OBJECTIVES["mine"] = training.Entry(adversarial)
"""


def test_flags_name_what_a_plugin_registers(tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text(textwrap.dedent(PLUGIN))
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--workdir=w", "--objective=mine", "--eps=0.5", "--dataset=stripes"]
    with pytest.raises(UsageError, match="flag --objective=mine: must be one of standard, "):
        config_lib.parse(train_flags.Config, words)
    with pytest.raises(UsageError, match="flag --plugins=no_such: there is no such module"):
        config_lib.parse(train_flags.Config, [*words, "--plugins=no_such"])
    try:
        config = config_lib.parse(train_flags.Config, [*words, "--plugins=my_plugin"])
        assert train_plan.prepare(config).recipe.objective == "mine"
        assert "--plugins=my_plugin" in config.command("experiments.train")
    finally:
        training.OBJECTIVES.pop("mine", None)
        data.SOURCES.pop("stripes", None)


@pytest.mark.slow
def test_a_command_trains_with_a_plugin(tmp_path):
    (tmp_path / "my_plugin.py").write_text(textwrap.dedent(PLUGIN))
    words = ["--workdir=run", "--objective=mine", "--eps=0.5", "--dataset=stripes", "--dry_run"]
    command = [sys.executable, "-m", "experiments.train", "--plugins=my_plugin", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # the plugin lies where the command is called
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
