"""The quick suite: who is contested, and that masked gradients make everybody so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from margins import evaluate, network, problem

import advfeat
from advfeat.evaluation import suites
from advfeat.evaluation.problem import Problem
from advfeat.evaluation.robust_accuracy import _contested, _run, _Watch
from advfeat.evaluation.suites import QUICK_GATE, resolve
from advfeat.evaluation.triage import MEASURING, SAFETY, MarginGate, margins


def logits_of(lead):
    """Logits of label 0 whose margin is the lead."""
    lead = np.asarray(lead, np.float64)
    return np.stack([lead, np.zeros_like(lead), -np.ones_like(lead)], axis=1)


def test_the_margin_is_the_lead_over_the_best_other_class():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 5)), rng.integers(5, size=50)
    wanted = [z[y] - max(np.delete(z, y)) for z, y in zip(logits, labels, strict=True)]
    given = logits.copy()
    np.testing.assert_allclose(margins(logits, labels), wanted)
    np.testing.assert_array_equal(logits, given)  # the caller's array is left alone


def test_shares_fall_and_never_rise_and_only_by_what_is_allowed():
    labels = np.zeros(3, int)
    contest = MarginGate({"late": 0.5}, logits_of([4.0, 4.0, 4.0]), labels)
    everyone, nobody = np.ones(3, bool), np.zeros(3, bool)
    np.testing.assert_array_equal(contest.share, 1)
    contest.note("a", nobody, logits_of([3.0, 1.0, -2.0]), np.array([True, True, False]))
    np.testing.assert_allclose(contest.share, [0.75, 0.25, 1])
    contest.note("b", nobody, logits_of([3.9, 0.8, 2.0]), everyone)
    np.testing.assert_allclose(contest.share, [0.75, 0.2, 0.5])
    np.testing.assert_array_equal(contest.among("late", everyone), [False, True, True])
    np.testing.assert_array_equal(contest.among("early", everyone), everyone)
    np.testing.assert_array_equal(contest.among("late", ~everyone), nobody)


def test_an_image_fooled_from_afar_opens_the_gates():
    labels, everyone = np.zeros(4, int), np.ones(4, bool)
    contest = MarginGate(dict.fromkeys(("x", "y"), 0.1), logits_of([1.0] * 4), labels)
    lead = [-1.0, 0.3, 0.45, 0.7]
    for index in range(MEASURING):  # what fools while the shares are being measured says nothing
        contest.note(str(index), np.arange(4) == 0, logits_of(lead), everyone)
    assert contest.gate("x") == contest.gate("y") == 0.1
    contest.note("short", np.arange(4) == 1, logits_of([1.0, -1.0, 0.45, 0.7]), everyone)
    assert contest.gate("x") == contest.gate("y") == SAFETY * 0.3
    np.testing.assert_array_equal(contest.among("x", np.arange(4) > 1), [False, False, True, False])
    # A gated attack's own success opens its own gate only.
    contest.note("x", np.arange(4) == 2, logits_of([1.0, 1.0, -1.0, 0.7]), everyone)
    assert contest.gate("x") == SAFETY * 0.45
    assert contest.gate("y") == SAFETY * 0.3


@pytest.mark.slow
def test_an_attack_goes_on_as_far_as_its_own_successes_reach():
    """Nine images of one pixel each, whose leads grow; the attack fools whatever it is given."""
    count = 9
    x = np.linspace(0.1, 0.9, count, dtype=np.float32).reshape(count, 1, 1, 1)
    y = np.zeros(count, int)

    def network(x):
        return jnp.stack([jnp.sum(x) - 0.05, jnp.zeros(())])

    problem = Problem(
        jax.random.key(0),
        jax.tree_util.Partial(network),
        x,
        y,
        np.arange(count),
        advfeat.linf(1.0),
        4,
    )
    contest = MarginGate({"gated": 0.2}, logits_of(np.ones(count)), y)
    contest.share = np.linspace(0.1, 0.9, count)
    contest._seen = {"a", "b"}
    start = contest.among("gated", np.ones(count, bool))
    assert start.sum() == 2
    attack = advfeat.pgd(advfeat.linf(1.0), steps=2, random_start=False)
    part = _run(problem, "gated", attack, np.flatnonzero(start), None, None)
    assert part.fooled.all()
    told, decided = [], [len(part.rows)]

    def on_part(name, more):  # who shows progress knows of every image before it is attacked
        decided.append(decided[-1] + len(more.rows))
        assert decided[-1] <= told[-1]

    tried, part = _contested(
        problem,
        contest,
        "gated",
        attack,
        np.ones(count, bool),
        part,
        _Watch({}, on_part, lambda name, images: told.append(images)),
    )
    assert len(told) == 3
    assert told[-1] == decided[-1] == count
    assert tried.all()  # .2 opens the gate to .4, that to .8, and that to all
    assert sorted(part.rows) == list(range(count))


SHORTER = {
    "fgsm": lambda threat: advfeat.fgsm(threat),
    "pgd": lambda threat: advfeat.pgd(threat, steps=20, random_start=False),
    "square_short": lambda threat: advfeat.square(threat, steps=100),
    "square": lambda threat: advfeat.square(threat, steps=1500),
}


@pytest.fixture
def shorter(monkeypatch):
    """A quick suite of three attacks in place of the four: what is gated is the same."""
    suite = {"quick": lambda make: {k: attack(make._threat) for k, attack in SHORTER.items()}}
    monkeypatch.setattr(suites, "_VERSIONS", suites._VERSIONS | suite)
    monkeypatch.setattr(suites, "_GATES", {"quick": {"square": QUICK_GATE}})


@pytest.mark.slow
def test_a_gated_attack_is_given_contested_images_only(shorter):
    x, y = problem(80)
    parts = {part.name: part for part in evaluate(x, y, suite="quick", eps=0.15).attacks}
    assert 0 < parts["square"].tried.sum() < parts["square_short"].robust.sum() / 2
    assert not (parts["square"].tried & parts["square_short"].fooled).any()


@pytest.mark.slow
def test_where_gradients_are_masked_every_image_is_given_it(shorter):
    x, y = problem(40)
    masked = jax.tree_util.Partial(flat, network())
    parts = {
        part.name: part for part in evaluate(x, y, suite="quick", model_fn=masked, eps=0.3).attacks
    }
    assert not parts["pgd"].fooled.any()
    assert parts["square_short"].fooled.any()
    np.testing.assert_array_equal(parts["square"].tried, parts["square_short"].robust)


@pytest.mark.slow
def test_only_contested_images_are_given_the_full_attacks():
    x, y = problem(80)
    quick = evaluate(x, y, suite="quick", eps=0.15)
    standard = evaluate(x, y, suite="standard", eps=0.15)
    np.testing.assert_array_equal(quick.robust, standard.robust)
    tried = {part.name: int(part.tried.sum()) for part in quick.attacks}
    gated = resolve("quick", quick.threat, num_classes=5).gates
    assert set(gated.values()) == {QUICK_GATE}
    for name in gated:
        assert tried[name] < tried[f"{name}_short"]
    assert tried["square_short"] > 20
    spent, full = (
        sum(part.forward_passes for part in found.attacks) for found in (quick, standard)
    )
    assert spent < full / 3


def flat(model_fn, x):
    """A network whose gradients are exactly zero."""
    return jax.lax.stop_gradient(model_fn(x))


@pytest.mark.slow
def test_masked_gradients_make_every_image_contested():
    x, y = problem(40)
    masked = jax.tree_util.Partial(flat, network())
    quick = evaluate(x, y, suite="quick", model_fn=masked, eps=0.3)
    standard = evaluate(x, y, suite="standard", model_fn=masked, eps=0.3)
    parts = {part.name: part for part in quick.attacks}
    assert parts["square_short"].fooled.any()
    np.testing.assert_array_equal(parts["square"].tried, parts["fab_targeted"].robust)
    assert quick.robust.sum() <= standard.robust.sum() + 1
    assert jnp.isfinite(quick.adversarial).all()
