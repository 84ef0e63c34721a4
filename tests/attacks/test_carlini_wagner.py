"""Carlini and Wagner: iterates against NumPy float64, exact distances, the search for lambda."""

import functools

import jax
import jax.numpy as jnp
import nearest
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import advfeat
from advfeat.attacks import tradeoff
from advfeat.objectives import losses

L2 = advfeat.l2()
# Short runs of larger steps: 27 or 200 moves in all.
SHORT = {"steps": 200, "binary_search_steps": 6, "step_size": 0.02, "initial_const": 0.01}
SEARCHES = ("binary", "fixed", "alternating")


def reference(
    x0, y, *, steps, search, binary_search_steps, step_size, initial_const, confidence, rate
):
    """Equation (2) of section VI.A on NET, by Adam."""
    x0 = np.asarray(x0, np.float64)
    const, low, high = initial_const, 0.0, np.inf
    trail = []
    runs = binary_search_steps if search == "binary" else 1
    for run in range(runs):
        w, m, v = np.arctanh(0.999999 * (2 * x0 - 1)), 0.0, 0.0
        x, reached = x0, False
        # The last run's last move is seen too; the others' give way to the next run's start.
        for k in range(1, steps + (run == runs - 1)):
            trail.append(x)
            lead, gradient = nearest.margin_and_gradient(x, y)
            success = lead >= confidence and lead > 0
            reached |= success
            slope = 2 * (x - x0) - const * gradient * (lead < confidence)
            slope = slope * 0.5 * (1 - np.tanh(w) ** 2)
            m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
            w = w - step_size * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
            x = (np.tanh(w) + 1) / 2
            if search == "alternating":
                const = const / (1 + rate) if success else const * (1 + rate)
        trail.append(x)
        lead = nearest.margin_and_gradient(x, y)[0]
        reached |= lead >= confidence and lead > 0
        low, high = (low, min(high, const)) if reached else (max(low, const), high)
        if search == "binary":
            const = 10 * const if np.isinf(high) else (low + high) / 2
    return trail


@pytest.mark.slow_for("0.0-binary")
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("confidence", [0.0, 0.3])
def test_every_iterate_is_that_of_numpy(search, confidence):
    options = {
        "steps": 25 if search == "alternating" else 9,
        "search": search,
        "binary_search_steps": 4,
        "step_size": 0.2,
        "initial_const": 0.02 if search == "binary" else 0.5,
        "confidence": confidence,
        "rate": 0.5,
    }
    attack = advfeat.carlini_wagner(L2, **options)
    fooled = [
        nearest.check_iterates(
            "l2", attack, x, y, reference(x, y, **options), confidence=confidence
        )
        for x, y in zip(*nearest.smooth_images(), strict=True)
    ]
    assert any(fooled)


@pytest.mark.slow_for("0.1-False-binary", "10.0-False-binary", "10.0-True-binary")
@pytest.mark.parametrize("search", ["binary", "alternating"])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_it_finds_the_nearest_point_of_linear_models(scale, corners, search):
    model, x, y = nearest.problem(1, scale=scale, corners=corners)
    found = nearest.attacked(advfeat.carlini_wagner(L2, search=search), model, x, y)
    nearest.check_record("l2", np.inf, found, model, x, y)
    wanted = nearest.nearest("l2", model, x, y)
    assert found.best.success.all()
    np.testing.assert_allclose(found.best.distance / wanted, 1, atol=0.01)
    assert set(found.gradients) == {9000 if search == "binary" else 1000}
    assert set(found.queries) == {9001 if search == "binary" else 1001}


@pytest.mark.slow
def test_a_fixed_lambda_balances_distance_and_margin():
    # With one slope s and no success, |d|^2 - lambda s.d is least at d = lambda s / 2.
    model, x, y = nearest.problem(6)
    weights = np.asarray(model.args[0][0], np.float64)
    order = np.argsort(nearest.logits_of(model, x), -1)
    slope = (weights[order[:, -2]] - weights[order[:, -1]]).reshape(x.shape)
    gap = -nearest.lead(model, x, y)
    half = gap / np.sum(slope**2, axis=(1, 2, 3))  # of the lambda that just suffices
    const = float(2 * np.median(half))
    attack = advfeat.carlini_wagner(L2, search="fixed", initial_const=const, step_size=1e-3)
    found = nearest.attacked(attack, model, x, y)
    share = const / 2 / half
    short, enough = share < 0.9, share > 1.1
    assert short.any()
    assert enough.any()
    assert not found.best.success[short].any()
    assert found.best.success[enough].all()
    wanted = const / 2 * slope[short]
    np.testing.assert_allclose(found.last.x[short] - x[short], wanted, atol=1e-3)


def test_the_search_halves_the_interval_in_which_lambda_must_lie():
    need = 0.37
    state = tradeoff.tradeoff(jnp.zeros(1), jnp.float32(1e-3))
    tried = []
    for _ in range(9):
        tried.append(float(state.weight))
        state = tradeoff.binary_searched(state, jnp.asarray(tried[-1] >= need), jnp.asarray(False))
        state = tradeoff.binary_searched(state, jnp.asarray(False), jnp.asarray(True))
    wanted = [0.001, 0.01, 0.1, 1, 0.55, 0.325, 0.4375, 0.38125, 0.353125]
    np.testing.assert_allclose(tried, wanted, rtol=1e-5)


@pytest.mark.slow
def test_more_confidence_goes_farther_by_what_the_margin_asks_for():
    model, x, y = nearest.problem(7)
    for confidence in (0.0, 0.4):
        attack = advfeat.carlini_wagner(L2, confidence=confidence)
        found = nearest.attacked(attack, model, x, y)
        nearest.check_record("l2", np.inf, found, model, x, y, confidence=confidence)
        wanted = nearest.nearest("l2", model, x, y, confidence=confidence)
        assert found.best.success.all()
        np.testing.assert_allclose(found.best.distance / wanted, 1, atol=0.02)


@pytest.mark.slow
def test_a_targeted_attack_finds_the_nearest_point_of_its_class():
    attack = advfeat.carlini_wagner(
        L2, search="alternating", objective=advfeat.targeted(losses.margin)
    )
    np.testing.assert_allclose(nearest.ratios_of_class("l2", attack), 1, atol=0.03)


@pytest.mark.slow
def test_the_contract_of_minimum_norm_attacks():
    nearest.check_contract("l2", functools.partial(advfeat.carlini_wagner, **SHORT))


@pytest.mark.slow
@given(seed=st.integers(0, 99), eps=st.sampled_from([0.0, 0.05, 0.3, 2.0, np.inf]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_what_it_claims_is_true(seed, eps):
    attack = advfeat.carlini_wagner(advfeat.l2(eps), **SHORT, confidence=0.1)
    nearest.check_claims("l2", attack, seed, confidence=0.1)


@pytest.mark.slow
def test_examples_at_different_counts_share_one_step():
    # An engine refills the slot of an example that is done: counts then differ within a batch.
    attack = advfeat.carlini_wagner(L2, steps=5, binary_search_steps=3)
    images, labels = nearest.smooth_images()
    begin = jax.jit(jax.vmap(attack.init, (None, None, 0, 0, None)))
    step = jax.jit(jax.vmap(attack.step, (None, 0)))
    run = begin(nearest.KEY, nearest.SMOOTH, images, labels, 0)
    late = jax.tree.map(lambda leaf: leaf, run)
    for _ in range(3):
        run = step(nearest.SMOOTH, run)

    def mixed(a, b):
        return jax.tree.map(lambda x, y: jnp.concatenate([x[:2], y[2:]]), a, b)

    both = mixed(run, late)
    for _ in range(9):
        run, late, both = (step(nearest.SMOOTH, r) for r in (run, late, both))
    np.testing.assert_array_equal(both.search.step, [12, 12, 9, 9])
    np.testing.assert_allclose(both.search.x, mixed(run, late).search.x, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"search": "golden"}, "search must be one of binary, fixed, alternating, got 'golden'"),
        ({"binary_search_steps": 0}, "binary_search_steps must be a whole number >= 1, got 0"),
        ({"step_size": -1.0}, "step_size must be >= 0, got -1"),
        ({"initial_const": -1.0}, "initial_const must be >= 0, got -1"),
        ({"confidence": np.nan}, "confidence must be >= 0, got NaN"),
        ({"rate": -0.5}, "rate must be >= 0, got -0.5"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        advfeat.carlini_wagner(L2, **options)
