"""A suite of attacks: what it is given, what it believes, and what it says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from margins import KEY, evaluate, network, problem

import advfeat
from advfeat.evaluation import diagnostics
from advfeat.evaluation.result import AttackChunk
from advfeat.evaluation.suites import SUITES, resolve
from advfeat.types import AttackResult, Best


@pytest.mark.slow
def test_every_verdict_can_be_checked_from_the_outside():
    x, y = problem()
    found = evaluate(x, y)
    predicted = advfeat.predict(network(), x).argmax(1)
    np.testing.assert_array_equal(found.clean, predicted == y)
    attacked = advfeat.predict(network(), found.adversarial).argmax(1)
    np.testing.assert_array_equal(found.robust, attacked == y)
    assert 0.1 < found.robust.mean() < found.clean.mean() < 1
    moved = found.adversarial - x
    np.testing.assert_allclose(
        found.distance, np.sqrt((moved**2).sum(axis=(1, 2, 3))), rtol=1e-4, atol=1e-7
    )
    assert found.distance.max() <= 0.2 * (1 + 1e-5)
    untouched = found.fooled_by < 0
    np.testing.assert_array_equal(found.adversarial[untouched], x[untouched])
    np.testing.assert_array_equal(found.fooled_by == -2, ~found.clean)
    np.testing.assert_array_equal(found.fooled_by == -1, found.robust)


def test_in_sequence_an_attack_is_given_what_the_ones_before_left():
    x, y = problem()
    found = evaluate(x, y)
    first, second = found.attacks
    np.testing.assert_array_equal(first.tried, found.clean)
    np.testing.assert_array_equal(second.tried, first.robust)
    np.testing.assert_array_equal(second.robust, found.robust)
    assert second.fooled.sum() > 0
    # FGSM looks at the image and at one more point, and counts only what it was given.
    assert first.forward_passes == 2 * found.clean.sum() - (first.fooled & False).sum()
    assert first.gradients == found.clean.sum()


def test_each_attack_alone_gives_the_same_worst_case():
    x, y = problem()
    one, other = evaluate(x, y), evaluate(x, y, sequential=False)
    np.testing.assert_array_equal(one.robust, other.robust)
    for part in other.attacks:
        np.testing.assert_array_equal(part.tried, other.clean)
    pgd = other.attacks[1]
    alone = evaluate(x, y, suite="pgd")
    np.testing.assert_array_equal(pgd.robust, alone.robust)


@pytest.mark.slow
def test_verdicts_depend_on_neither_batches_nor_order():
    x, y = problem()
    order = np.random.default_rng(1).permutation(len(x))
    whole = evaluate(x, y)
    mixed = evaluate(x[order], y[order], ids=order, batch_size=7)
    np.testing.assert_array_equal(mixed.robust, whole.robust[order])
    np.testing.assert_array_equal(mixed.fooled_by, whole.fooled_by[order])


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_with_what_was_not_decided():
    x, y = problem()
    parts = []
    whole = evaluate(x, y, on_part=lambda name, part: parts.append((name, part)), batch_size=8)
    assert len(parts) > 4
    for cut in (1, len(parts) // 2, len(parts)):
        done = {}
        for name, part in parts[:cut]:
            joined = zip(done[name], part, strict=True) if name in done else None
            done[name] = part if joined is None else AttackChunk(*map(np.concatenate, joined))
        seen = []
        again = evaluate(x, y, done=done, on_part=lambda name, part: seen.append(part))  # noqa: B023
        np.testing.assert_array_equal(again.robust, whole.robust)
        np.testing.assert_array_equal(again.fooled_by, whole.fooled_by)
        for a, b in zip(again.attacks, whole.attacks, strict=True):
            assert (a.forward_passes, a.gradients) == (b.forward_passes, b.gradients)
        rows = [row for part in seen for row in part.rows]
        assert len(rows) == sum(len(part.rows) for _, part in parts[cut:])


def lying(key, model_fn, x, y, *, far):
    """Claims success everywhere, with a point outside eps or one that fools nobody."""
    point = jnp.clip(x + far, 0.0, 1.0)
    best = Best(point, jnp.float32(9), jnp.bool_(True), jnp.float32(0))
    return AttackResult(best, best, jnp.int32(1), jnp.int32(0))


@pytest.mark.parametrize("far", [0.0, 1e-4, 0.7])
def test_a_claim_is_believed_only_after_another_look(far):
    x, y = problem()
    attack = jax.tree_util.Partial(functools.partial(lying, far=far))
    found = evaluate(x, y, suite={"liar": attack})
    np.testing.assert_array_equal(found.robust, found.clean)
    np.testing.assert_array_equal(found.adversarial, x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("suite", [name for name in SUITES if name != "autoattack"])
def test_suites_hold_their_attacks_for_every_number_of_classes(suite, norm):
    threat = advfeat.threat_model(norm, 0.1)
    whole = resolve(suite, threat, num_classes=10)
    assert whole.notes == []
    for classes in (2, 3, 4, 7):
        found = resolve(suite, threat, num_classes=classes)
        assert list(found.attacks) == list(whole.attacks)
        dlr = any("dlr" in name or name == "apgd_targeted" for name in whole.attacks)
        assert bool(found.notes) == (dlr and (classes == 2 or (classes == 3 and suite != "rand")))
        for attack in found.attacks.values():
            targets = getattr(attack, "targets", 0)
            assert targets <= classes - 1


@pytest.mark.parametrize(
    ("suite", "norm", "apgd", "fab"),
    [("standard", "l2", 9, 9), ("standard", "l1", 5, 9), ("plus", "l1", 9, 9)],
)
def test_as_many_targets_as_the_authors_take(suite, norm, apgd, fab):
    attacks = resolve(suite, advfeat.threat_model(norm, 0.1), num_classes=10).attacks
    assert attacks["apgd_targeted"].targets == apgd
    assert attacks["fab_targeted"].targets == fab
    assert attacks["fab_targeted"].rounds == fab


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_autoattack_on_few_classes(classes):
    x, y = problem(24, classes, wrong=2)
    found = evaluate(x, y, classes=classes, suite="autoattack", eps=0.15)
    assert [part.name for part in found.attacks] == [
        "apgd_ce",
        "apgd_targeted",
        "fab_targeted",
        "square",
    ]
    assert {warned.code for warned in found.warnings} == ({"replaced"} if classes < 4 else set())
    assert found.robust.sum() <= evaluate(x, y, classes=classes, suite="pgd", eps=0.15).robust.sum()
    text = str(found)
    assert "worst case" in text
    assert "square" in text


def partial_of(fn):
    return jax.tree_util.Partial(fn)


BATCHED = jnp.ones((12, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "autohack"}, "must be one of autoattack, standard, plus, rand, quick, fgsm"),
        ({"suite": []}, "suite must name at least one attack"),
        ({"suite": {}}, "suite must name at least one attack"),
        ({"suite": ["pgd", "pgd"]}, "suite must name each attack once"),
        ({"suite": ["pgd", "standard"]}, "suite 'standard' must stand alone, got pgd, standard"),
        ({"suite": None}, "suite must be a name, names, or attacks by name"),
        ({"suite": advfeat.fgsm(advfeat.l2(0.1))}, "suite must be a name, names, or attacks"),
        ({"suite": [advfeat.fgsm(advfeat.l2(0.1))]}, "suite must list names of attacks"),
        ({"suite": {"mine": "pgd"}}, r"suite\['mine'\] must be an attack, got 'pgd'"),
        ({"suite": {1: advfeat.fgsm(advfeat.l2(0.1))}}, "suite must map names to attacks"),
        ({"suite": ["elastic_net"]}, "threat must measure in l1 for elastic_net, got l2"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"ids": np.arange(3)}, "ids must hold 60 entries"),
        ({"ids": np.linspace(0, 1, 60)}, "ids must be integers, got dtype float64"),
        ({"threat": 0.1}, r"threat must be a threat model, as in linf\(8 / 255\), got 0.1"),
        ({"key": 0}, r"key must be a random key, as in jax.random.key\(0\), got 0"),
        ({"key": jax.random.split(KEY, 3)}, r"key must be ONE random key.*got key<fry> \[3\]"),
        ({"model_fn": None}, "model_fn must be a function, got None"),
        ({"model_fn": partial_of(jnp.max)}, r"logits \[K\] with K >= 2 .* got shape \(\)"),
        ({"model_fn": partial_of(lambda x: x.ravel()[:1])}, r"K >= 2 .* got shape \(1,\)"),
        ({"model_fn": partial_of(lambda x: x)}, r"logits \[K\] .* got shape \(2, 2, 3\)"),
        ({"model_fn": partial_of(lambda x: (x, x))}, r"one array of logits \[K\], got a tuple"),
        ({"model_fn": partial_of(lambda x: x.ravel() > 0)}, "floating-point logits, got"),
        ({"model_fn": partial_of(lambda x: jnp.ones(5) * jnp.nan)}, "finite logits, got NaN"),
        ({"model_fn": lambda x: x.reshape(len(x), -1) @ BATCHED}, r"ONE image \[2, 2, 3\], but"),
        ({"model_fn": lambda x: np.asarray(x).ravel()}, "ONE image .* TracerArrayConversion"),
        ({"model_fn": lambda weights, x: x}, "ONE image .* TypeError"),
    ],
)
def test_bad_input(change, message):
    x, y = problem()
    with pytest.raises(ValueError, match=message) as error:
        evaluate(x, y, **change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("classes", "attack", "message"),
    [
        (5, advfeat.fab_targeted(advfeat.l2(0.1)), "targets must be at most 4 for 5 classes"),
        (5, advfeat.apgd_targeted(advfeat.l2(0.1)), "targets must be at most 4 for 5 classes"),
        (3, advfeat.apgd_targeted(advfeat.l2(0.1), targets=2), "at least 4 classes, got 3"),
        (2, advfeat.apgd(advfeat.l2(0.1), loss="dlr"), "at least 3 classes, got 2"),
    ],
)
def test_too_few_classes_for_an_attack_show_before_any_other_has_run(classes, attack, message):
    x, y = problem(classes=classes)
    begun = []
    suite = {"first": advfeat.fgsm(advfeat.l2(0.1)), "late": attack}
    with pytest.raises(ValueError, match=rf"suite\['late'\] .*{message}"):
        evaluate(x, y, classes=classes, suite=suite, on_attack=lambda *seen: begun.append(seen))
    assert not begun


def on_the_host(x):
    logits = jax.ShapeDtypeStruct((5,), jnp.float32)
    weights = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)

    def look(z):
        return weights @ np.asarray(z).reshape(12)

    return jax.pure_callback(look, logits, x, vmap_method="sequential")


def in_a_loop(x):
    """A product, summed in a loop whose length only the running program knows."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(12, 5)), jnp.float32)

    def more(carry):
        i, total = carry
        return i + 1, total + x.ravel()[i] * weights[i]

    return jax.lax.while_loop(lambda carry: carry[0] < 12, more, (0, jnp.zeros(5)))[1]


@pytest.mark.parametrize("suite", ["standard", ["square", "pgd"], "own"])
def test_attacks_that_need_a_gradient_are_named_before_any_has_run(suite):
    x, y = problem()
    begun = []
    threat = advfeat.l2(0.1)
    if suite == "own":
        suite = {"first": advfeat.attacks.square(threat, steps=5), "pgd": advfeat.pgd(threat)}
    needing = "apgd_ce, apgd_targeted, fab_targeted" if suite == "standard" else "pgd"
    message = rf"model_fn has no gradient \(ValueError: .*\), and suite needs one for {needing}\. A"
    with pytest.raises(ValueError, match=message) as error:
        evaluate(x, y, model_fn=on_the_host, suite=suite, on_attack=lambda *a: begun.append(a))
    assert not begun
    assert "\n" not in str(error.value)


@pytest.mark.slow_for("on_the_host")
@pytest.mark.parametrize("model_fn", [on_the_host, in_a_loop])
def test_a_network_without_a_gradient_is_evaluated_by_scores(model_fn):
    x, _ = problem(count=20)
    y = advfeat.predict(model_fn, x).argmax(1)
    suite = {"square": advfeat.attacks.square(advfeat.linf(0.2), steps=20)}
    found = evaluate(x, y, model_fn=model_fn, suite=suite, threat=advfeat.linf(0.2), checks=True)
    assert 0 < found.robust.mean() < 1
    unchecked = [w.sentence for w in found.warnings if w.code == "unchecked"]
    assert len(unchecked) == 1
    assert unchecked[0].startswith("gradients, one_step, not_converged, growth: could not be")
    assert not found.trusted


def test_a_check_that_raises_costs_no_result(monkeypatch):
    def broken(case):
        yield diagnostics.Finding("seen", 1.0, 0.0, "This was seen.")
        raise RuntimeError("no more memory\nand a long story")

    x, y = problem()
    whole = evaluate(x, y)
    checks = {"broken": diagnostics.Check(broken, free=True), **diagnostics.CHECKS}
    monkeypatch.setattr(diagnostics, "CHECKS", checks)
    found = evaluate(x, y)
    np.testing.assert_array_equal(found.robust, whole.robust)
    assert [w.code for w in found.warnings] == ["seen", "unchecked"]
    assert "broken: could not be checked (RuntimeError: no more memory)" in str(found)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x * 255, y), "divide 8-bit images by 255"),
        (lambda x, y: ((x * 255).astype(np.uint8), y), "dtype uint8"),
        (lambda x, y: (np.where(x > 0.5, np.nan, x), y), "must not contain NaN"),
        (lambda x, y: (x, np.eye(5)[y].astype(int)), "one-hot"),
        (lambda x, y: (x, y + 1), r"labels must lie in \[0, 5\)"),
        (lambda x, y: (np.where(x > 0.5, np.float32(1 + 1e-6), x), y), "to 1.00000"),
        (lambda x, y: (x[:0], y[:0]), "at least one image"),
        (lambda x, y: (x[0], y[:1]), r"shape \[N, H, W, C\]"),
        (lambda x, y: (x, y.astype(float)), r"labels must be integers \[N\], got float64"),
        (lambda x, y: (x, y - 1), r"labels must lie in \[0, 5\), got values from -1"),
        (lambda x, y: (x, y[:-1]), "60"),
    ],
)
def test_bad_data(spoil, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*spoil(*problem()))
