"""EAD: each iterate against NumPy float64, near-exact L1 distances, the two decision rules."""

import functools

import nearest
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import advfeat
from advfeat.objectives import losses

L1 = advfeat.l1()
SHORT = {"steps": 200, "binary_search_steps": 6, "initial_const": 0.01}


def reference(x0, y, *, steps, binary_search_steps, beta, step_size, initial_const, confidence):
    """Algorithm 1 on NET, with the extrapolated point kept in the box."""
    x0 = np.asarray(x0, np.float64)
    const, low, high = initial_const, 0.0, np.inf
    trail = []
    for _ in range(binary_search_steps):
        x, ahead, reached = x0, x0, False
        for k in range(steps):
            trail.append(x)
            lead = nearest.margin_and_gradient(x, y)[0]
            reached |= lead >= confidence and lead > 0
            lead, gradient = nearest.margin_and_gradient(ahead, y)
            slope = 2 * (ahead - x0) - const * gradient * (lead < confidence)
            z = ahead - step_size * np.sqrt(1 - k / steps) * slope - x0
            new = np.clip(x0 + np.sign(z) * np.maximum(np.abs(z) - beta, 0), 0, 1)
            x, ahead = new, np.clip(new + k / (k + 3) * (new - x), 0, 1)
        low, high = (low, min(high, const)) if reached else (max(low, const), high)
        const = 10 * const if np.isinf(high) else (low + high) / 2
    # The last run's last move is seen too; the others' give way to the next run's start.
    return [*trail, x]


@pytest.mark.slow_for("0.0")
@pytest.mark.parametrize("confidence", [0.0, 0.3])
def test_every_iterate_is_that_of_numpy(confidence):
    options = {
        "steps": 9,
        "binary_search_steps": 4,
        "beta": 0.02,
        "step_size": 0.1,
        "initial_const": 0.2,
        "confidence": confidence,
    }
    attack = advfeat.elastic_net(L1, **options)
    fooled = [
        nearest.check_iterates(
            "l1", attack, x, y, reference(x, y, **options), confidence=confidence
        )
        for x, y in zip(*nearest.smooth_images(), strict=True)
    ]
    assert any(fooled)


@pytest.mark.slow_for("0.1-False")
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_it_comes_near_the_nearest_point_of_linear_models(scale, corners):
    model, x, y = nearest.problem(1, scale=scale, corners=corners)
    found = nearest.attacked(advfeat.elastic_net(L1), model, x, y)
    nearest.check_record("l1", np.inf, found, model, x, y)
    ratio = found.best.distance / nearest.nearest("l1", model, x, y)
    assert found.best.success.all()
    # The squared L2 part shares the change out over more pixels than L1 alone would.
    assert np.median(ratio) < 1.03
    assert np.max(ratio) < 1.1
    assert np.mean(found.best.x != x) < 0.5
    assert set(found.queries) == {18001}
    assert set(found.gradients) == {9000}


@pytest.mark.slow
def test_each_decision_rule_is_best_at_its_own_distance():
    model, x, y = nearest.problem(2)
    for beta in (1e-3, 1e-2):
        square, linear = {}, {}
        for decision in ("l1", "elastic_net"):
            attack = advfeat.elastic_net(L1, **SHORT, beta=beta, decision=decision)
            best = nearest.attacked(attack, model, x, y).best
            delta = (best.x - x).reshape(len(x), -1).astype(np.float64)
            linear[decision] = np.abs(delta).sum(1)
            square[decision] = beta * linear[decision] + (delta**2).sum(1)
            np.testing.assert_allclose(best.distance, linear[decision], rtol=1e-5)
        # Both choose among the same iterates.
        assert np.all(linear["l1"] <= linear["elastic_net"] + 1e-6)
        assert np.all(square["elastic_net"] <= square["l1"] + 1e-6)
        assert np.any(linear["l1"] < linear["elastic_net"] - 1e-4)


@pytest.mark.slow
def test_a_smaller_beta_changes_more_pixels():
    model, x, y = nearest.problem(2)
    changed = [
        np.mean(
            nearest.attacked(advfeat.elastic_net(L1, **SHORT, beta=beta), model, x, y).best.x != x
        )
        for beta in (0.0, 1e-3, 1e-2)
    ]
    assert changed[0] > 0.95
    assert changed[0] > changed[1] > changed[2]


@pytest.mark.slow
def test_a_targeted_attack_comes_near_the_nearest_point_of_its_class():
    attack = advfeat.elastic_net(L1, objective=advfeat.targeted(losses.margin))
    assert np.median(nearest.ratios_of_class("l1", attack)) < 1.1


@pytest.mark.slow
def test_the_contract_of_minimum_norm_attacks():
    nearest.check_contract("l1", functools.partial(advfeat.elastic_net, **SHORT))


@pytest.mark.slow
@given(seed=st.integers(0, 99), eps=st.sampled_from([0.0, 0.05, 0.3, 2.0, np.inf]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_what_it_claims_is_true(seed, eps):
    attack = advfeat.elastic_net(advfeat.l1(eps), **SHORT, confidence=0.1)
    nearest.check_claims("l1", attack, seed, confidence=0.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"decision": "l2"}, "decision must be one of l1, elastic_net, got 'l2'"),
        ({"binary_search_steps": 0}, "binary_search_steps must be a whole number >= 1, got 0"),
        ({"beta": -1.0}, "beta must be >= 0, got -1"),
        ({"step_size": np.nan}, "step_size must be >= 0, got NaN"),
        ({"initial_const": -1.0}, "initial_const must be >= 0, got -1"),
        ({"confidence": -1.0}, "confidence must be >= 0, got -1"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        advfeat.elastic_net(L1, **options)
