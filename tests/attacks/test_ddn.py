"""DDN: each iterate against NumPy float64, exact distances on linear models, 8-bit levels."""

import jax
import jax.numpy as jnp
import nearest
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import advfeat
from advfeat.attacks.ddn import rounded_to_levels
from advfeat.types import Evaluation

L2 = advfeat.l2()


def reference(x0, y, *, steps, gamma, initial_norm, levels=None):
    """Algorithm 1 on NET."""
    x0 = np.asarray(x0, np.float64)
    trail, radius = [x0], initial_norm
    for k in range(steps):
        x = trail[-1]
        gradient = nearest.NET.gradient(x, y)
        step = nearest.cosine(1.0, 0.01, k / steps) * gradient / np.linalg.norm(gradient)
        radius *= 1 - gamma if np.argmax(nearest.NET.logits(x)) != y else 1 + gamma
        offset = x - x0 + step
        x = np.clip(x0 + radius * offset / np.linalg.norm(offset), 0, 1)
        trail.append(x if levels is None else np.round(x * (levels - 1)) / (levels - 1))
    return trail


@pytest.mark.slow_for("None")
@pytest.mark.parametrize("levels", [None, 16])
def test_every_iterate_is_that_of_numpy(levels):
    options = {"steps": 12, "gamma": 0.2, "initial_norm": 0.6}
    images, labels = nearest.smooth_images()
    if levels is not None:
        images = np.float32(np.round(images * (levels - 1)) / (levels - 1))
    attack = advfeat.ddn(L2, **options, levels=levels)
    fooled = [
        nearest.check_iterates("l2", attack, x, y, reference(x, y, levels=levels, **options))
        for x, y in zip(images, labels, strict=True)
    ]
    assert any(fooled)


@pytest.mark.slow_for("0-False")
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_the_nearest_point_of_linear_models(seed, corners):
    # Where the cross-entropy is saturated its gradient points at the nearest class.
    model, x, y = nearest.problem(seed, scale=20.0, corners=corners)
    found = nearest.attacked(advfeat.ddn(L2), model, x, y)
    nearest.check_record("l2", np.inf, found, model, x, y)
    wanted = nearest.nearest("l2", model, x, y)
    assert found.best.success.all()
    np.testing.assert_allclose(found.best.distance / wanted, 1, atol=0.01)


@pytest.mark.slow
def test_a_targeted_attack_finds_the_nearest_point_of_its_class():
    attack = advfeat.ddn(L2, steps=300, objective=advfeat.targeted())
    np.testing.assert_allclose(nearest.ratios_of_class("l2", attack, scale=20.0), 1, atol=0.03)


@pytest.mark.slow
def test_the_contract_of_minimum_norm_attacks():
    nearest.check_contract("l2", advfeat.ddn)


@given(seed=st.integers(0, 99), eps=st.sampled_from([0.0, 0.05, 0.3, 2.0, np.inf]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_what_it_claims_is_true(seed, eps):
    found = nearest.check_claims("l2", advfeat.ddn(advfeat.l2(eps)), seed)
    assert set(found.queries) == {101}
    assert set(found.gradients) == {100}


@pytest.mark.slow_for("inf")
@pytest.mark.parametrize("eps", [np.inf, 0.2, 0.013])
def test_quantised_points_hold_8_bit_values_only(eps):
    model, x, y = nearest.problem(4, scale=20.0, corners=True)
    x = np.float32(np.round(x * 255) / 255)
    found = nearest.attacked(advfeat.ddn(advfeat.l2(eps), levels=256), model, x, y)
    nearest.check_record("l2", eps, found, model, x, y)
    for point in (found.best.x, found.last.x):
        np.testing.assert_array_equal(point, np.float32(np.round(point * 255) / 255))
        assert np.abs(point - x).max() > 0
    wanted = nearest.nearest("l2", model, x, y)
    # Rounding moves each of 16 pixels by at most half a level.
    assert found.best.success[wanted < eps - 4 / 255].all()
    if np.isinf(eps):
        assert np.all(found.best.distance < 1.02 * wanted + 3 / 255)


@pytest.mark.parametrize("levels", [2, 14, 22, 48, 100, 196, 256])
def test_a_pixel_on_a_level_stays_on_it(levels):
    top = jnp.float32(levels - 1)
    x = (jnp.arange(levels) / top).reshape(-1, 1, 1)
    # Far less than a level is allowed, so that every pixel is rounded towards the example.
    for x0 in (jnp.zeros_like(x), jnp.ones_like(x)):
        found = jax.jit(rounded_to_levels)(advfeat.l2(0.0), x0, x, top + 1)
        np.testing.assert_allclose(found, x, atol=1e-6)


def test_levels_that_the_example_does_not_hold_keep_it_feasible():
    model, x, y = nearest.problem(5, scale=20.0)
    for eps in (0.0, 0.004, 0.1):
        found = nearest.attacked(advfeat.ddn(advfeat.l2(eps), levels=256), model, x, y)
        nearest.check_record("l2", eps, found, model, x, y)


def plateau(weights, x):
    """No gradient within 0.3 of the example, where every pixel is one half."""
    far = jnp.sqrt(jnp.sum((x - 0.5) ** 2) + 1e-12)
    return jnp.stack([jnp.maximum(far - 0.3, 0.0) * weights, jnp.float32(0.5)])[::-1]


@pytest.mark.slow
def test_it_leaves_a_plateau_in_a_random_direction():
    model = jax.tree_util.Partial(plateau, jnp.float32(10.0))
    x = np.full((nearest.BATCH, *nearest.SHAPE), 0.5, np.float32)
    y = np.zeros(nearest.BATCH, int)
    best = nearest.attacked(advfeat.ddn(L2), model, x, y).best
    assert best.success.all()
    np.testing.assert_allclose(best.distance, 0.35, rtol=0.03)
    directions = (best.x - x).reshape(nearest.BATCH, -1)
    cosines = np.corrcoef(directions) - np.eye(nearest.BATCH)
    assert np.abs(cosines).max() < 0.95


def test_an_eps_that_the_box_cuts_into_is_searched_to_its_edge():
    # Half the pixels are white and cannot move towards the boundary, though the gradient says so.
    x = np.full((nearest.BATCH, *nearest.SHAPE), 1.0, np.float32)
    x[:, :2] = 0.5
    weights = np.zeros((nearest.CLASSES, 16), np.float32)
    weights[0] = -100.0
    bias = np.float32([100 * (12 + 0.0097 * np.sqrt(8)), 0, -900, -900])
    model = jax.tree_util.Partial(nearest.affine, (jnp.asarray(weights), jnp.asarray(bias)))
    y = np.zeros(nearest.BATCH, int)
    np.testing.assert_allclose(nearest.nearest("l2", model, x, y), 0.0097, rtol=1e-3)
    best = nearest.attacked(advfeat.ddn(advfeat.l2(0.01)), model, x, y).best
    assert best.success.all()


def test_the_radius_grows_only_while_eps_leaves_room():
    x0 = jnp.full(nearest.SHAPE, 0.5)
    attack = advfeat.ddn(advfeat.l2(0.2), gamma=0.1)
    state, update = attack.first(nearest.KEY, x0, x0), jax.jit(attack.update)
    assert float(state.radius) == pytest.approx(0.2)
    slope = jnp.ones(nearest.SHAPE)
    # 16 pixels moved by d lie 4 d away.
    for moved, success, wanted in (
        (0.05, False, 0.3),
        (0.045, False, 0.33),
        (0.045, True, 0.27),
        (0.05, True, 0.27),
    ):
        there = state._replace(x=x0 + moved, radius=jnp.float32(0.3))
        after = update(there, Evaluation(jnp.float32(0), jnp.asarray(success), slope))
        assert float(after.radius) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gamma": 1.0}, r"gamma must lie in \[0, 1\), got 1"),
        ({"gamma": -0.1}, "gamma must be >= 0, got -0.1"),
        ({"initial_norm": np.nan}, "initial_norm must be >= 0, got NaN"),
        ({"levels": 1}, "levels must be a whole number >= 2 or None, got 1"),
        ({"levels": 256.0}, "levels must be a whole number >= 2 or None, got 256.0"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        advfeat.ddn(L2, **options)
