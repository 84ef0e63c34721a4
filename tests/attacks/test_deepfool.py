"""DeepFool: each iterate against NumPy float64, exact distances on linear models in every norm."""

import functools

import jax
import jax.numpy as jnp
import nearest
import numpy as np
import oracle
import passes
import pytest
from hypothesis import given, settings, strategies as st

import advfeat
from advfeat.attacks.deepfool import LEAST_MOVE

every_norm = pytest.mark.parametrize("norm", oracle.NORMS)
OVERSHOOT = 0.02


def steepest(norm, x, g):
    """The unit move that gains most; in L1 of the pixels that have room."""
    if norm != "l1":
        return np.sign(g) if norm == "linf" else g / np.linalg.norm(g)
    gain = np.where(np.where(g > 0, 1 - x, x) > 0, np.abs(g), 0)
    d = np.zeros(g.size)
    d[np.argmax(gain)] = 1.0
    return d.reshape(g.shape) * np.sign(g)


def reference(norm, x0, y, *, steps, overshoot):
    """Algorithm 2 within the box. The smooth network has four classes, all of them candidates."""
    x0 = np.asarray(x0, np.float64)
    total, trail = np.zeros_like(x0), [x0]
    for _ in range(steps):
        x = trail[-1]
        z, h = nearest.NET.logits(x), np.tanh(nearest.NET.u @ x.ravel())
        others = [k for k in range(nearest.CLASSES) if k != y]
        if np.argmax(z) != y:
            trail.append(x)
            continue
        rows = [(nearest.NET.v[k] - nearest.NET.v[y]) * (1 - h**2) for k in others]
        slopes = [(nearest.NET.u.T @ row).reshape(x.shape) for row in rows]
        gaps = [z[y] - z[k] for k in others]
        boxed = [
            nearest.to_half_space(norm, x.ravel(), w.ravel(), gap)
            for w, gap in zip(slopes, gaps, strict=True)
        ]
        if not np.isfinite(boxed).any():  # as if there were no box
            boxed = [gap / oracle.dual_length(norm, w) for w, gap in zip(slopes, gaps, strict=True)]
        slope, gap = slopes[np.argmin(boxed)], gaps[np.argmin(boxed)]
        towards = steepest(norm, x, slope)
        length = gap / np.sum(towards * slope) + LEAST_MOVE * overshoot * oracle.length(norm, total)
        length = min(length, {"linf": 1, "l2": x.size**0.5, "l1": x.size}[norm])
        total = np.clip(x0 + total + length * towards, 0, 1) - x0
        trail.append(np.clip(x0 + (1 + overshoot) * total, 0, 1))
    return trail


@pytest.mark.slow_for("l2")
@every_norm
def test_every_iterate_is_that_of_numpy(norm):
    options = {"steps": 8, "overshoot": 0.1}
    attack = advfeat.deepfool(advfeat.threat_model(norm, np.inf), **options)
    x, y = nearest.smooth_images()
    run = jax.jit(jax.vmap(attack.init, (None, None, 0, 0, None)))(
        nearest.KEY, nearest.SMOOTH, jnp.asarray(x), jnp.asarray(y), jnp.int32(0)
    )
    step = jax.jit(jax.vmap(attack.step, (None, 0)))
    trails = [reference(norm, *pair, **options) for pair in zip(x, y, strict=True)]
    for count, points in enumerate(zip(*trails, strict=True)):
        run = run if count == 0 else step(nearest.SMOOTH, run)
        np.testing.assert_allclose(
            run.search.x, np.stack(points), atol=1e-4, err_msg=f"iterate {count}"
        )
        assert set(np.asarray(run.search.step)) == {count}
    seen = [np.argmax(nearest.NET.logits(trail[-2])) for trail in trails]  # the last step's view
    fooled = np.array(seen) != y
    np.testing.assert_array_equal(run.best.success, fooled)
    assert fooled.any()


@pytest.mark.slow_for("l2")
@every_norm
def test_it_overshoots_the_nearest_point_of_linear_models(norm):
    attack = advfeat.deepfool(advfeat.threat_model(norm, np.inf))
    model, x, y = nearest.problem(2, low=0.4, high=0.6, apart=1.0)
    found = nearest.attacked(attack, model, x, y)
    nearest.check_record(norm, np.inf, found, model, x, y)
    wanted = nearest.nearest(norm, model, x, y)
    assert np.abs(found.best.x - 0.5).max() < 0.5  # no face of the box is reached
    np.testing.assert_allclose(found.best.distance / wanted, 1 + OVERSHOOT, rtol=1e-3)


@every_norm
def test_it_is_exact_in_corners_of_the_box_too(norm):
    attack = advfeat.deepfool(advfeat.threat_model(norm, np.inf))
    for seed in range(3):
        model, x, y = nearest.problem(seed, corners=True, apart=1.5)
        found = nearest.attacked(attack, model, x, y)
        nearest.check_record(norm, np.inf, found, model, x, y)
        assert found.best.success.all()
        ratio = found.best.distance / nearest.nearest(norm, model, x, y)
        assert ratio.min() > 1 - 1e-4
        assert ratio.max() < 1 + OVERSHOOT + 1e-3


@pytest.mark.slow_for("l2")
@every_norm
def test_the_contract_of_minimum_norm_attacks(norm):
    if norm == "l2":
        nearest.check_contract(norm, functools.partial(advfeat.deepfool, steps=50))
        return
    model, x, _ = nearest.problem(11)
    attack = advfeat.deepfool(advfeat.threat_model(norm, np.inf))
    weights, bias = model.args[0]
    # The label is what is predicted: of NaN, the first class.
    for params, label in (((0 * weights, jnp.arange(4.0)), 3), ((np.nan * weights, bias), 0)):
        stuck = jax.tree_util.Partial(nearest.affine, params)
        found = nearest.attacked(attack, stuck, x, np.full(len(x), label))
        assert not found.best.success.any()
        np.testing.assert_array_equal(found.best.x, x)
        assert np.isfinite(found.last.x).all()


@given(seed=st.integers(0, 99), eps=st.sampled_from([0.0, 0.05, 0.3, 2.0, np.inf]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_what_it_claims_is_true(seed, eps):
    for norm in oracle.NORMS:
        attack = advfeat.deepfool(advfeat.threat_model(norm, eps))
        found = nearest.check_claims(norm, attack, seed)
        assert set(found.queries) == {51}
        assert set(found.gradients) == {150}


@pytest.mark.slow
def test_only_the_likeliest_classes_are_candidates():
    # The unlikeliest class has by far the nearest boundary.
    weights = np.zeros((4, *nearest.SHAPE))
    weights[1, 0, 0], weights[2, 0, 0], weights[3] = 1.0, 0.5, 10.0
    params = (jnp.float32(weights.reshape(4, -1)), jnp.float32([0.6, 0.0, 0.0, -81.0]))
    model, x = jax.tree_util.Partial(nearest.affine, params), np.full(nearest.SHAPE, 0.5)
    found = {}
    for candidates in (2, 99):
        attack = advfeat.deepfool(advfeat.linf(), candidates=candidates, steps=3)
        found[candidates] = attack(nearest.KEY, model, jnp.float32(x), 0)
    far = {count: float(result.best.distance) for count, result in found.items()}
    assert far[2] == pytest.approx(0.1 * (1 + OVERSHOOT), rel=1e-3)
    assert far[99] == pytest.approx(1.6 / 160 * (1 + OVERSHOOT), rel=1e-3)
    assert {k: int(result.gradients) for k, result in found.items()} == {2: 6, 99: 9}


@pytest.mark.slow
def test_counts_are_those_of_the_passes_really_made():
    attack = advfeat.deepfool(advfeat.l2(), steps=3)
    made, said = passes.made_and_said(
        attack,
        nearest.KEY,
        lambda x: jnp.stack([2.0, 1.0, 0.5]) * jnp.sum(x),
        jnp.full((2, 2, 1), 0.5),
    )
    assert made == said == (4, 6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"candidates": 0}, "candidates must be a whole number >= 1, got 0"),
        ({"overshoot": -0.1}, "overshoot must be >= 0, got -0.1"),
        ({"overshoot": np.nan}, "overshoot must be >= 0, got NaN"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        advfeat.deepfool(advfeat.l2(1.0), **options)
