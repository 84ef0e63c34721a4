"""The checks see through broken defences and leave honest networks alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defence_networks import (
    BY_ATTACKS,
    BY_WEAK_SUITES,
    COUNT,
    EXPECTED,
    LEVELS,
    digits,
    trained,
)

import advfeat
from advfeat.attacks import ATTACKS
from advfeat.evaluation import broken_defences, diagnostics
from advfeat.evaluation.result import SuiteResult
from advfeat.evaluation.robust_accuracy import evaluate
from advfeat.types import AttackResult, Best, randomised

KEY = jax.random.key(0)
THREAT = advfeat.linf(0.2)
HONEST = ("standard", "adversarial")
NOTES = {"rounding"}
CHEAP = (
    diagnostics.outputs,
    diagnostics.randomness,
    diagnostics.finite_gradients,
    diagnostics.gradients,
)


@pytest.fixture(scope="session")
def zoo():
    """Every network of the tests: honest ones, and the broken defences around the first."""
    x, _ = digits(COUNT)
    members = [trained(epochs=8), trained(epochs=8, width=48, seed=1)]
    honest = broken_defences.Honest(network=members[0], members=members, images=x, levels=LEVELS)
    return {
        "standard": members[0],
        "adversarial": trained(threat=advfeat.linf(0.15), seed=3),
        **{name: make(honest) for name, make in broken_defences.DEFENCES.items()},
    }


@pytest.fixture(scope="session")
def family(zoo):
    return dict(zip(zoo, broken_defences.one_of(list(zoo.values())), strict=True))


def codes(result):
    return {warned.code for warned in result.warnings}


def test_every_defence_is_expected_to_be_seen_through():
    assert set(EXPECTED) == set(broken_defences.DEFENCES)
    assert len(EXPECTED) >= 14


@pytest.mark.slow_for("random_view")
@pytest.mark.parametrize("name", [*HONEST, *EXPECTED])
def test_without_any_attack_each_defence_is_flagged_for_the_right_reason(family, name):
    x, y = digits(COUNT)
    case = untouched(family[name], x, y)
    assert case.result.clean.mean() > 0.8  # or nobody would have believed it
    seen = set().union(*(flagged(check, case) for check in CHEAP))
    expected = EXPECTED.get(name, set()) - BY_ATTACKS
    assert seen >= expected
    assert bool(expected) == (name not in HONEST)
    if name in HONEST:
        assert seen == set()


FEW = ("adversarial", "quantised", "masked_off_grid")


@pytest.fixture(scope="session")
def few(zoo):
    networks = dict(zip(FEW, broken_defences.one_of([zoo[name] for name in FEW]), strict=True))
    suite = {"targeted": ATTACKS["apgd_targeted"](THREAT, steps=40)}
    x, y = digits(COUNT)
    return {
        name: evaluate(KEY, network, x, y, threat=THREAT, suite=suite)
        for name, network in networks.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_a_suite_of_one_attack_and_every_check(few, name):
    found = few[name]
    if name in HONEST:
        assert codes(found) <= NOTES, found
        assert found.trusted
        assert "NOT TO BE CALLED ROBUST" not in str(found)
        assert 0.05 < found.robust.mean() < 0.5
    else:
        assert found.robust.mean() > 0.5  # the attack failed
        assert codes(found) >= EXPECTED[name], found
        assert not found.trusted
        assert "NOT TO BE CALLED ROBUST" in str(found)


# --- One check at a time, on networks of two weights. ---------------------------------------------


def linear(w, x):
    z = jnp.vdot(w, x)
    return jnp.stack([z, -z, -3.0])


def problem(count=20, side=4, low=0.3, high=0.7):
    """Points on the positive side of a plane, some nearer than others."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(side, side, 1)).astype(np.float32)
    w -= w.mean()
    x = rng.uniform(low, high, size=(4 * count, side, side, 1)).astype(np.float32)
    z = (x * w).sum(axis=(1, 2, 3))
    return jax.tree_util.Partial(linear, jnp.asarray(w)), x, (z < 0).astype(int)


def look(fn, x, y, *, eps=0.1, suite="pgd", norm="linf", **options):
    threat = advfeat.threat_model(norm, eps)
    result = evaluate(KEY, fn, x, y, threat=threat, suite=suite, checks=False, **options)
    logits = advfeat.predict(fn, x)
    fn = advfeat.as_model_fn(fn)
    case = diagnostics.Context(KEY, fn, x, y, logits, np.arange(len(x)), result, 250)
    return case, result


def untouched(fn, x, y, *, eps=0.1, norm="linf"):
    """As if a suite had fooled nobody: for checks that look at other things."""
    fn, logits = advfeat.as_model_fn(fn), advfeat.predict(fn, x)
    clean = logits.argmax(1) == y
    result = SuiteResult(
        suite="custom",
        threat=advfeat.threat_model(norm, eps),
        clean_share=clean.astype(float),
        robust_share=clean.astype(float),
        adversarial=x,
        distance=np.zeros(len(x)),
        fooled_by=np.where(clean, -1, -2),
        attacks=(),
        warnings=(),
    )
    return diagnostics.Context(KEY, fn, x, y, logits, np.arange(len(x)), result, 250)


def flagged(check, case):
    return {seen.code for seen in check(case) if seen.value > seen.limit}


def sentences(check, case):
    return " ".join(seen.sentence for seen in check(case) if seen.value > seen.limit)


@pytest.mark.parametrize(
    ("norm", "eps", "warned"),
    [
        ("linf", 8.0, True),
        ("linf", 1.0, True),
        ("linf", 0.5, True),
        ("linf", 0.49, False),
        ("linf", 8 / 255, False),
        ("l2", 128.0, True),
        ("l2", 2.0, True),
        ("l2", 1.9, False),
        ("l1", 17.0, True),
        ("l1", 7.9, False),
    ],
)
def test_an_eps_in_grey_levels(norm, eps, warned):
    fn, x, y = problem()
    case = untouched(fn, x, y, eps=eps, norm=norm)
    assert flagged(diagnostics.eps_scale, case) == ({"eps_scale"} if warned else set())


@pytest.mark.slow_for("True")
@pytest.mark.parametrize("checks", [True, False])
def test_an_eps_in_grey_levels_is_never_trusted(checks):
    fn, x, y = problem()
    made = []
    found = evaluate(
        KEY, fn, x, y, threat=advfeat.linf(8.0), suite="pgd", checks=checks, on_check=made.append
    )
    wanted = [name for name, check in diagnostics.CHECKS.items() if checks or check.free]
    assert made == wanted
    assert not found.robust.any()
    assert "eps_scale" in codes(found)
    assert not found.trusted


def test_probabilities_are_told_from_logits_that_happen_to_be_small():
    fn, x, y = problem()
    for wrap, expected in (
        (jax.nn.softmax, {"probabilities"}),
        (lambda z: jax.nn.softmax(z) * 0.9, set()),
        (lambda z: z - z.mean(), set()),
    ):
        case = untouched(jax.tree_util.Partial(lambda f, x, w=wrap: w(f(x)), fn), x, y)
        assert flagged(diagnostics.outputs, case) == expected


def test_saturated_logits():
    fn, x, y = problem()
    for factor, expected in ((1.0, set()), (30.0, set()), (3000.0, {"saturated"})):
        case = untouched(broken_defences.scaled_logits(fn, factor=factor), x, y)
        assert flagged(diagnostics.outputs, case) == expected


def on_the_host(x):
    """A network whose noise JAX does not know of."""
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)

    def noise(mean):
        return np.random.default_rng().normal(size=np.shape(mean)[:-3] + (3,)).astype(np.float32)

    def draw(x):
        return jax.pure_callback(noise, shape, x, vmap_method="broadcast_all")

    return jnp.stack([x.mean(), 1 - x.mean(), 0.0]) + draw(jax.lax.stop_gradient(x))


def test_noise_on_the_host_is_seen_and_declared_noise_too():
    fn, x, y = problem()
    case = untouched(fn, x, y)
    assert flagged(diagnostics.randomness, case) == set()
    hidden = case._replace(model_fn=jax.tree_util.Partial(on_the_host))
    assert flagged(diagnostics.randomness, hidden) == {"randomised"}
    assert "Wrap it" in sentences(diagnostics.randomness, hidden)
    noisy = randomised(lambda key, x: fn(x) + 0.01 * jax.random.normal(key, (3,)))
    known = case._replace(model_fn=noisy)
    assert flagged(diagnostics.randomness, known) == {"randomised"}
    assert "Wrap it" not in sentences(diagnostics.randomness, known)
    # The suite for random networks knows; what counts for it is whether predictions hold.
    averaged = known._replace(result=dataclasses.replace(case.result, averages=True))
    share = np.mean(np.abs(np.diff(advfeat.predict(fn, x)[:, :2])) < 0.02)
    assert (flagged(diagnostics.randomness, averaged) == set()) == (share < 0.03)


def claims(key, model_fn, x, y, *, to):
    """An attack that always claims success, with a point moved as told."""
    point = x + to
    best = Best(point, jnp.float32(9), jnp.bool_(True), jnp.float32(0))
    return AttackResult(best, best, jnp.int32(1), jnp.int32(0))


@pytest.mark.parametrize(
    ("to", "expected"), [(0.0, {"unconfirmed"}), (0.2, {"outside"}), (jnp.nan, {"outside"})]
)
def test_claims_that_are_not_believed(to, expected):
    fn, x, y = problem()
    case, result = look(fn, x, y, suite={"liar": functools.partial(claims, to=to)})
    assert flagged(diagnostics.refused, case) == expected
    assert result.robust.all()
    count = result.attacks[0].outside + result.attacks[0].unconfirmed
    assert count == len(x)
    assert str(count) in sentences(diagnostics.refused, case)


@pytest.mark.slow
def test_claims_that_hold_are_not_mentioned():
    fn, x, y = problem()
    case, result = look(fn, x, y)
    assert result.attacks[0].fooled.any()
    assert flagged(diagnostics.refused, case) == set()


@pytest.mark.slow
def test_rounding_says_what_would_be_left():
    fn, x, y = problem(low=0.49, high=0.51)
    x = np.round(x * 255) / np.float32(255)
    case, result = look(fn, x, y, eps=0.4 / 255)  # no 8-bit image is that near
    lost = (result.clean & ~result.robust).sum()
    assert 2 <= lost < len(x)
    assert flagged(diagnostics.rounding, case) == {"rounding"}
    assert f"{lost} of {lost}" in sentences(diagnostics.rounding, case)
    assert f"{100 * result.clean.mean():.1f} %" in sentences(diagnostics.rounding, case)
    case, _ = look(fn, x, y, eps=10 / 255)
    assert flagged(diagnostics.rounding, case) == set()


def of_a_random_network(case, right=0.7):
    """The same evaluation, as if every image stood in this share of a random network's draws."""
    share = right * case.result.clean_share
    return case._replace(
        result=dataclasses.replace(
            case.result, clean_share=share, robust_share=share, looks=20, attacks=()
        )
    )


def test_a_fall_is_of_expectations():
    fn, x, y = problem()
    case = of_a_random_network(untouched(fn, x, y))
    rows = case.standing()
    fooled = np.arange(len(rows)) < len(rows) // 2
    before, half = 0.7 * case.result.clean.mean(), fooled.mean()
    fall, words = case.fall(rows, fooled, np.where(fooled, 0.3, 0.7))
    assert fall == pytest.approx(case.result.clean.mean() * 0.4 * half)
    assert f"at most about {100 * (before - fall):.1f} %, not {100 * before:.1f} %" in words


def test_rounding_leaves_an_expectation():
    fn, x, y = problem(low=0.49, high=0.51)
    x = np.round(x * 255) / np.float32(255)
    case, result = look(fn, x, y, eps=0.4 / 255)
    lost = result.clean & ~result.robust
    share = np.where(lost, 0.1, 0.7 * result.robust_share)
    case = case._replace(result=dataclasses.replace(result, robust_share=share, looks=20))
    left = np.where(lost, 1.0, share).mean()  # this network is right about a rounded image
    assert f"robust accuracy of {100 * left:.1f} %" in sentences(diagnostics.rounding, case)


def some_standing(eps=0.02):
    fn, x, y = problem()
    case, result = look(fn, x, y, eps=eps)
    assert 0.1 < result.robust.mean() < 0.95
    return fn, case, result


@pytest.mark.slow
def test_gradients_of_an_honest_network():
    _, case, _ = some_standing()
    seen = list(diagnostics.gradients(case))
    assert [s.value for s in seen] == [0.0, 0.0]


def test_a_gradient_that_points_the_other_way():
    fn, case, _ = some_standing()

    def reversed_gradient(inner, x):
        return inner(2 * jax.lax.stop_gradient(x) - x)

    wrong = case._replace(model_fn=jax.tree_util.Partial(reversed_gradient, fn))
    assert flagged(diagnostics.gradients, wrong) == {"misleading_gradients"}


def standing_all(case):
    """As if a suite had fooled nobody."""
    result = dataclasses.replace(case.result, robust_share=case.result.clean_share, attacks=())
    return case._replace(result=result)


@pytest.mark.slow_for("black_box")
@pytest.mark.parametrize("check", ["one_step", "not_converged", "black_box"])
def test_what_an_attack_left_by_mistake_is_found(check):
    _, case, result = some_standing()
    check = getattr(diagnostics, check)
    assert flagged(check, case) == set()
    failed = standing_all(case)
    assert flagged(check, failed) == {check.__name__}
    # The plane's distance is known, so the sentence is too.
    assert f"at most about {100 * result.robust.mean():.1f} %" in sentences(check, failed)


@pytest.mark.parametrize(
    ("suite", "asked"),
    [
        ({"square": advfeat.fgsm(advfeat.linf(0.02))}, True),
        ({"mine": advfeat.square(advfeat.linf(0.02), steps=600)}, False),
    ],
)
def test_whether_scores_were_searched_does_not_hang_on_a_name(suite, asked):
    fn, x, y = problem()
    case, result = look(fn, x, y, eps=0.02, suite=suite)
    assert result.robust.any()
    words = [seen.sentence for seen in diagnostics.black_box(case)]
    assert any(line.startswith("Square with 500 queries") for line in words) == asked


@pytest.mark.slow
def test_scores_that_found_more_than_gradients():
    _, case, result = some_standing()
    made = result.attacks[0]
    blind = np.zeros_like(made.fooled)
    gradient = dataclasses.replace(made, fooled=blind, share=result.clean_share)
    scores = dataclasses.replace(made, name="square", gradients=0)
    for order in ((gradient, scores), (scores, gradient)):
        case = case._replace(result=dataclasses.replace(result, attacks=order))
        assert flagged(diagnostics.black_box, case) == {"black_box"}
        assert f"fooled {made.fooled.sum()} images" in sentences(diagnostics.black_box, case)
    # Where no attack followed gradients there is nothing to compare.
    case = case._replace(result=dataclasses.replace(result, attacks=(scores,)))
    assert flagged(diagnostics.black_box, case) == set()


@pytest.mark.slow
def test_success_that_falls_as_eps_grows():
    fn, case, _ = some_standing()
    assert flagged(diagnostics.growth, case) == set()
    known = jnp.asarray(case.images)

    def hides(inner, known, x):
        """Honest near the images it knows; further away it answers as on the nearest one."""
        far = jnp.max(jnp.abs(known - x[None]), axis=(1, 2, 3))
        return inner(jnp.where(jnp.min(far) < 0.03, x, known[jnp.argmin(far)]))

    hiding = case._replace(model_fn=jax.tree_util.Partial(hides, fn, known))
    assert flagged(diagnostics.growth, hiding) == {"not_monotone", "unbounded"}


def test_a_network_that_is_right_nowhere_and_one_that_stands_nowhere():
    fn, x, y = problem()
    found = evaluate(KEY, fn, x, 1 - y, threat=advfeat.linf(0.1), suite="pgd")
    assert not found.clean.any()
    assert found.trusted
    found = evaluate(KEY, fn, x, y, threat=advfeat.linf(0.45), suite="pgd")
    assert not found.robust.any()
    assert found.trusted


@pytest.mark.slow
def test_checks_do_not_compile_again_for_other_weights_and_eps():
    from advfeat.attacks.batch import _attack_batch
    from advfeat.evaluation.diagnostics.slopes import _slopes

    fn, x, y = problem()
    sizes = []
    for eps in (0.02, 0.03):
        case, _ = look(fn, x, y, eps=eps)
        for check in diagnostics.CHECKS.values():
            list(check.look(case))
        sizes.append((_attack_batch._cache_size(), _slopes._cache_size()))
        fn = jax.tree.map(lambda leaf: 1.1 * leaf, fn)
    assert sizes[0] == sizes[1]


# --- Whole suites, also on other networks than the limits were set on. ----------------------------


def under_the_standard_suite(network):
    x, y = digits(COUNT)
    return evaluate(KEY, network, x, y, threat=THREAT, suite="standard")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_the_standard_suite_or_the_checks_catch_it(family, name):
    found = under_the_standard_suite(family[name])
    plain = under_the_standard_suite(family["standard"])
    assert found.robust.mean() <= plain.robust.mean() + 0.05 or not found.trusted, found
    expected = EXPECTED[name] - BY_WEAK_SUITES
    standing = found.clean.copy()
    for part in found.attacks:
        if part.gradients:
            standing &= ~part.fooled
    if not standing.any():  # how a network rounds decides it: scores then find nothing more
        expected = expected - {"black_box"}
    assert codes(found) >= expected, found


@pytest.mark.slow
def test_fgsm_believes_most_of_them(family):
    x, y = digits(COUNT)
    robust = {
        name: evaluate(KEY, network, x, y, threat=THREAT, suite="fgsm", checks=False).robust.mean()
        for name, network in family.items()
    }
    misled = [name for name in EXPECTED if robust[name] > robust["standard"] + 0.3]
    assert len(misled) >= 9, robust


OTHERS = {
    "wide mlp": {"model": "mlp", "width": 96, "epochs": 30, "seed": 20},
    "mlp against l2": {"model": "mlp", "width": 40, "threat": advfeat.l2(1.0), "seed": 21},
    "cnn": {"model": "cnn", "width": 6, "epochs": 40, "seed": 22},
    "cnn against l1": {"model": "cnn", "width": 10, "threat": advfeat.l1(4.0), "seed": 23},
}


@pytest.fixture(scope="session")
def others():
    networks = [trained(**options) for options in OTHERS.values()]
    return dict(zip(OTHERS, broken_defences.one_of(networks), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    ("norm", "eps"),
    [("linf", 0.08), ("linf", 0.15), ("l2", 0.5), ("l2", 1.0), ("l1", 1.0), ("l1", 3.0)],
)
def test_no_false_alarm(others, name, norm, eps):
    x, y = digits(200)
    threat = advfeat.threat_model(norm, eps)
    found = evaluate(KEY, others[name], x, y, threat=threat, suite="standard")
    assert codes(found) <= NOTES, found
    assert found.trusted
