"""Command lines: answered before anything slow is imported; all that can be chosen is there."""

import pathlib
import re
import subprocess
import sys

import pytest

from advfeat import figures, models, saliency, training
from advfeat.attacks import ATTACKS
from advfeat.evaluation import broken_defences, suites
from advfeat.images.augmentation import TRANSFORMS
from advfeat.runs import choices as choices_module
from advfeat.threats.norms import NORMS
from experiments.shared.flags import choices, train as train_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py"))
SLOW = ("jax", "flax", "numpy", "scipy", "matplotlib", "orbax", "tensorflow_datasets", "sklearn")


def told(command, *flags):
    arguments = [sys.executable, "-X", "importtime", "-m", f"experiments.{command}", *flags]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, timeout=120)
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return done.returncode, lines, done.stdout, imported & set(SLOW)


def test_every_command_is_here():
    assert {"train", "evaluate", "mislabeled", "saliency", "pack", "prepare_data"} < set(COMMANDS)
    for command in COMMANDS:
        there = {path.stem for path in (ROOT / "experiments" / command).glob("*.py")}
        assert there >= {"__init__", "__main__", "flags", "work"}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_answered_before_anything_slow_is_imported(command):
    code, lines, out, slow = told(command, "--no_such_flag=1")
    assert (code, out, slow) == (2, "", set())
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"experiments.{command}: ")
    assert "no_such_flag" in lines[0]


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        (
            "evaluate",
            ["--workdir=w", "--checkpoint=zoo:x", "--norm=linf", "--eps=8"],
            "--eps=8: must be below 1",
        ),
        ("evaluate", ["--workdir=w", "--attack=pgdd"], "--attack=pgdd: must be"),
        ("train", ["--workdir=w", "--model=resnet1000"], "--model=resnet1000: must be one of"),
        ("train", ["--workdir=w", "--replays=4"], "has no meaning for --objective=standard"),
        ("tradeoff", ["--workdir=w", "--norms=l1"], "give --eval_l1"),
        ("saliency", ["--workdir=w", "--methods=gradient,gradient"], "names one twice"),
        ("pack", ["--name=x"], "flag --run is missing"),
    ],
)
def test_so_are_values_that_need_no_data(command, flags, message):
    code, lines, _, slow = told(command, *flags)
    assert (code, slow, len(lines)) == (2, set(), 1), lines
    assert message in lines[0]


def test_so_is_the_help():
    code, lines, out, slow = told("mislabeled", "--help")
    assert (code, lines, slow) == (0, [], set())
    assert out.startswith("The mislabelled-data experiment")
    assert "--robust_checkpoint" in out


REGISTRIES = {
    "ATTACKS": ATTACKS,
    "SUITES": suites.SUITES,
    "SUITES_AND_ATTACKS": (*suites.SUITES, *ATTACKS),
    "MODELS": models.NETWORKS,
    "OBJECTIVES": training.OBJECTIVES,
    "METHODS": saliency.METHODS,
    "SCHEDULES": training.SCHEDULES,
    "TRANSFORMS": TRANSFORMS,
    "DISPLAYS": figures.DISPLAYS,
    "DEFENCES": broken_defences.DEFENCES,
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_what_can_be_chosen_is_what_there_is(name, monkeypatch):
    """Read from the source, as where nothing is imported, and asked."""
    live = tuple(getattr(choices, name))
    assert live == tuple(REGISTRIES[name])
    monkeypatch.setattr(choices_module, "_imported", lambda registry: None)
    assert tuple(getattr(choices, name)) == live
    assert set(choices.NORMS) == set(NORMS)


FACTS = {
    "ATTACKS": (ATTACKS, ("norms",)),
    "OBJECTIVES": (
        training.OBJECTIVES,
        ("numbers", "attack_steps", "one_step", "takes_loss", "procedure"),
    ),
    "METHODS": (saliency.METHODS, ("on_host",)),
}


@pytest.mark.parametrize("kind", FACTS)
def test_what_an_entry_says_is_what_its_source_says(kind, monkeypatch):
    registry, facts = FACTS[kind]
    usual = {"norms": None, "on_host": False, **train_flags._USUAL}
    monkeypatch.setattr(choices_module, "_imported", lambda registry: None)
    for name, entry in registry.items():
        for fact in facts:
            wanted = getattr(entry, fact, usual[fact])
            assert getattr(choices, kind).fact(name, fact, usual[fact]) == wanted, (name, fact)
