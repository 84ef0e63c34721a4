"""What all experiments have in common: their form, and what a dry run reduces."""

from __future__ import annotations

import importlib
import pathlib

import pytest

from advfeat.runs.config import Config, parse
from advfeat.runs.runner import Experiment

ROOT = pathlib.Path(__file__).resolve().parents[2] / "experiments"
TOOLS = ("pack", "prepare_data")  # they have no run directory
NAMES = sorted({path.parent.name for path in ROOT.glob("*/work.py")} - set(TOOLS))
REQUIRED = {"evaluate": ["--checkpoint=zoo:digits_standard", "--norm=linf", "--eps=0.1"]}


def config_of(name: str, *arguments: str) -> Config:
    config_class = importlib.import_module(f"experiments.{name}.flags").Config
    return parse(config_class, ["--workdir=w", *REQUIRED.get(name, []), *arguments])


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_one(name):
    run = importlib.import_module(f"experiments.{name}.work").run
    assert isinstance(run, Experiment)
    assert run.name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_config_is_an_ordinary_one(name):
    config = config_of(name, "--dry_run")
    small = config.smallest()
    small.validate()
    assert small != config
    assert small.dry_run
    assert small.workdir == config.workdir
    assert small.smallest() == small


@pytest.mark.parametrize(
    "objective", ["standard", "adversarial", "mixed", "trades", "fast", "free"]
)
def test_a_dry_run_gives_no_flag_that_its_objective_would_ignore(objective):
    small = config_of("train", "--dry_run", f"--objective={objective}").smallest()
    small.validate()
    assert small.objective == objective
    assert small.epochs == 1
    assert small.replays == (2 if objective == "free" else None)


def test_a_dry_run_keeps_the_attack_that_was_asked_for():
    config = config_of("tradeoff", "--attack=fgsm,pgd", "--eval_linf=0.2", "--norms=linf")
    small = config.smallest()
    assert (small.attack, small.eval_linf, small.norms) == (("fgsm", "pgd"), 0.2, ("linf",))
    assert (small.eval_steps, small.restarts, small.attack_steps, small.seeds) == (2, 1, 1, 2)
    evaluated = config_of("evaluate", "--attack=square", "--norm=l2").smallest()
    assert (evaluated.attack, evaluated.norm, evaluated.eps) == (("square",), "l2", 0.1)
    assert (evaluated.eval_examples, evaluated.checks) == (20, False)


def test_a_dry_run_of_defences_takes_few_of_those_that_were_named():
    assert len(config_of("defences").smallest().defences) == 3
    named = config_of("defences", "--defences=jpeg,lookup").smallest().defences
    assert named == ("jpeg", "lookup")
