"""A suite in short: the same attacks, each with little to do."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import advfeat
from advfeat.attacks import ATTACKS, norms_of
from advfeat.evaluation.suites import SUITES, resolve, shortened
from advfeat.runs.config import parse
from experiments.defences import flags as defences_flags, plan as defences_plan
from experiments.evaluate import flags as evaluate_flags, plan as evaluate_plan
from experiments.sample_complexity import flags as sample_complexity_flags
from experiments.shared import sweeps

CASES = [(name, norm) for name in ATTACKS for norm in norms_of(name)]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_keeps_its_attacks(name, norm):
    whole = resolve(name, advfeat.threat_model(norm, 0.1), num_classes=4)
    few = shortened(whole)
    assert (few.name, few.gates, few.notes) == (whole.name, whole.gates, whole.notes)
    assert list(few.attacks) == list(whole.attacks)
    for attack, short in zip(whole.attacks.values(), few.attacks.values(), strict=True):
        assert type(short) is type(attack)
        assert (short.steps, short.rounds) == (4, min(attack.rounds, 2))
    assert resolve(few, advfeat.l2(0.5), num_classes=9) is few


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_every_attack_can_be_shortened_and_runs(name, norm):
    threat = advfeat.threat_model(norm, 0.3)
    (attack,) = shortened(resolve([name], threat, num_classes=3)).attacks.values()
    weights = jax.random.normal(jax.random.key(0), (16, 3))
    result = jax.eval_shape(
        lambda x: attack(jax.random.key(1), lambda v: v.ravel() @ weights, x, 0),
        jnp.full((4, 4, 1), 0.5),
    )
    assert result.best.x.shape == (4, 4, 1)
    fields = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    for word, most in (("steps", 4), ("rounds", 2), ("restarts", 2), ("eot", 2), ("length", 2)):
        assert fields.get(word, 0) <= most


def test_dry_runs_take_the_attacks_that_were_asked_for():
    common = ["--workdir=w", "--dry_run", "--norm=l2", "--eps=1"]
    flags = [*common, "--checkpoint=zoo:digits_standard", "--attack=quick"]
    plan = evaluate_plan.prepare(parse(evaluate_flags.Config, flags))
    assert list(plan.suite.attacks)[:2] == ["apgd_ce", "apgd_targeted_short"]
    assert plan.suite.name == "quick"
    plan = evaluate_plan.prepare(
        parse(
            evaluate_flags.Config,
            [*flags[:-1], "--attack=pgd", "--step_size=0.3", "--attack_steps=50"],
        )
    )
    (pgd,) = plan.suite.attacks.values()
    assert pgd.steps == 4
    assert float(pgd.step_size) == pytest.approx(0.3)
    plan = defences_plan.prepare(parse(defences_flags.Config, [*common, "--attack=square,fgsm"]))
    assert list(plan.attack.attacks) == ["square", "fgsm"]
    config = parse(sample_complexity_flags.Config, [*common, "--attack=autoattack"])
    found = sweeps.attacks(config, advfeat.l2(1.0), 10)
    assert {attack.steps for attack in found.values()} == {4}
