"""Losses and objectives against NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import advfeat
from advfeat import cross_entropy, margin, smoothed_cross_entropy, targeted, untargeted
from advfeat.attacks.ensemble import ensemble
from advfeat.objectives.classification import UntargetedViaTarget
from advfeat.objectives.losses import cross_entropy_targeted, dlr, dlr_targeted, margin_targeted

CLASSES = 4
logits_of = hnp.arrays(np.float32, CLASSES, elements=st.floats(-1e4, 1e4, width=32))
labels_of = st.integers(0, CLASSES - 1)
quick = settings(max_examples=40, deadline=None, derandomize=True)

LOSSES = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "smoothed": lambda z, y: smoothed_cross_entropy(z, y, smoothing=0.3),
}
compiled = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in LOSSES.items()}


def log_softmax(z):
    z = np.asarray(z, np.float64)
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def reference(name, z, y):
    if name == "margin":
        return np.delete(z, y).max() - z[y]
    weight = np.eye(CLASSES)[y]
    if name == "smoothed":
        weight = 0.7 * weight + 0.3 / CLASSES
    return -(weight * log_softmax(z)).sum()


@pytest.mark.parametrize("name", LOSSES)
@given(z=logits_of, y=labels_of)
@quick
def test_values_even_at_extreme_logits(name, z, y):
    value, slope = compiled[name](jnp.asarray(z), jnp.int32(y))
    scale = np.abs(z).max() + 1
    wanted = reference(name, z.astype(np.float64), y)
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6 * scale)
    assert np.isfinite(slope).all()
    # All three are blind to a constant added to every logit.
    assert abs(float(slope.sum())) < 1e-5
    if name == "cross_entropy":
        soft = oracle.softmax(z.astype(np.float64)) - np.eye(CLASSES)[y]
        np.testing.assert_allclose(slope, soft, atol=1e-5)


def test_margin_is_positive_exactly_where_the_network_is_wrong():
    z = np.random.default_rng(0).normal(size=(200, CLASSES)).astype(np.float32)
    y = np.arange(200) % CLASSES
    found = jax.vmap(margin)(jnp.asarray(z), jnp.asarray(y))
    np.testing.assert_array_equal(np.asarray(found) > 0, z.argmax(1) != y)


def test_margin_ties_and_gradient():
    value, slope = compiled["margin"](jnp.array([1.0, 3.0, 2.0, 0.0]), jnp.int32(2))
    assert float(value) == 1
    np.testing.assert_array_equal(slope, [0, 1, -1, 0])
    assert float(margin(jnp.zeros(2), jnp.int32(1))) == 0


def test_no_smoothing_is_cross_entropy():
    z = jnp.array([1.0, -2.0, 0.5])
    found = smoothed_cross_entropy(z, jnp.int32(1), smoothing=0.0)
    np.testing.assert_allclose(found, cross_entropy(z, jnp.int32(1)), rtol=1e-6)


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_objectives_score_and_success(loss):
    z, key = jnp.array([0.2, 1.0, -1.0]), jax.random.key(0)
    for y in range(3):
        score, success = untargeted(loss)(key, lambda x: x, z, y)
        np.testing.assert_allclose(score, loss(z, jnp.int32(y)), rtol=1e-6)
        assert bool(success) == (y != 1)
        score, success = targeted(loss)(key, lambda x: x, z, y)
        np.testing.assert_allclose(score, -loss(z, jnp.int32(y)), rtol=1e-6)
        assert bool(success) == (y == 1)


def test_equal_objectives_are_equal_so_that_they_share_compiled_code():
    assert untargeted(margin) == untargeted(margin)
    assert hash(targeted()) == hash(targeted())
    assert untargeted(margin) != untargeted()
    assert untargeted() != targeted()


def test_ensemble_is_the_mean_log_probability():
    scale = jax.tree_util.Partial(lambda w, x: w * x, jnp.float32(3.0))
    x = jnp.array([0.3, -1.0, 2.0])
    both = ensemble(scale, lambda x: -x)
    wanted = 0.5 * (log_softmax(3.0 * np.asarray(x)) + log_softmax(-np.asarray(x)))
    np.testing.assert_allclose(both(x), wanted, rtol=1e-5)
    assert len(jax.tree.leaves(both)) >= 1  # the weights of its members are its leaves
    assert ensemble(scale) is scale
    with pytest.raises(ValueError, match="model_fns"):
        ensemble()
    assert advfeat.as_model_fn(both) is both


# --- The difference of logits ratio. --------------------------------------------------------------

DLRS = {
    "dlr": jax.jit(jax.vmap(jax.value_and_grad(lambda z, y, t: dlr(z, y)))),
    "dlr_targeted": jax.jit(jax.vmap(jax.value_and_grad(dlr_targeted))),
    "margin_targeted": jax.jit(jax.vmap(jax.value_and_grad(margin_targeted))),
    "cross_entropy_targeted": jax.jit(jax.vmap(jax.value_and_grad(cross_entropy_targeted))),
}


def reference_towards(name, z, y, t):
    first, _, third, fourth = np.sort(z)[::-1][:4]
    return {
        "dlr": (np.delete(z, y).max() - z[y]) / (first - third),
        "dlr_targeted": (z[t] - z[y]) / (first - (third + fourth) / 2),
        "margin_targeted": z[t] - z[y],
        "cross_entropy_targeted": log_softmax(z)[t],
    }[name]


@pytest.mark.parametrize("name", DLRS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_losses_to_ascend_and_their_slopes(name, scale):
    rng = np.random.default_rng(0)
    z = (scale * rng.normal(size=(200, 5))).astype(np.float32)
    y = np.arange(200) % 5
    t = (y + 1 + np.arange(200) // 5 % 4) % 5
    value, slope = DLRS[name](z, y, t)
    exact, step = z.astype(np.float64), 1e-6 * scale
    wanted = [reference_towards(name, *row) for row in zip(exact, y, t, strict=True)]
    np.testing.assert_allclose(value, wanted, rtol=2e-5, atol=2e-6 * scale)
    for k in range(5):
        ahead, behind = exact.copy(), exact.copy()
        ahead[:, k] += step
        behind[:, k] -= step
        difference = [
            (reference_towards(name, a, i, j) - reference_towards(name, b, i, j)) / (2 * step)
            for a, b, i, j in zip(ahead, behind, y, t, strict=True)
        ]
        np.testing.assert_allclose(slope[:, k], difference, rtol=1e-3, atol=1e-3 / scale + 1e-4)
    wrong, above = z.argmax(1) != y, z[np.arange(200), t] > z[np.arange(200), y]
    if name == "dlr":
        np.testing.assert_array_equal(np.asarray(value) > 0, wrong)
        assert np.all(np.asarray(value)[~wrong] >= -1 - 1e-6)
    elif name != "cross_entropy_targeted":
        np.testing.assert_array_equal(np.asarray(value) > 0, above)


def test_the_ratio_is_blind_to_scale_and_shift_and_survives_ties():
    z = jnp.array([[1.0, 4.0, 2.0, 0.5, -3.0]])
    y, t = jnp.array([1]), jnp.array([2])
    for name in ("dlr", "dlr_targeted"):
        value, slope = DLRS[name](z, y, t)
        moved, flatter = DLRS[name](1000 * z + 7, y, t)
        np.testing.assert_allclose(moved, value, rtol=1e-5)
        np.testing.assert_allclose(1000 * flatter, slope, atol=1e-4)
        for tied in (jnp.zeros((1, 5)), jnp.array([[2.0, 2.0, 2.0, 2.0, 1.0]])):
            assert all(np.isfinite(leaf).all() for leaf in DLRS[name](tied, y, t))


def test_too_few_classes_for_a_ratio_are_refused():
    assert np.isfinite(dlr(jnp.arange(3.0), jnp.int32(0)))
    assert np.isfinite(dlr_targeted(jnp.arange(4.0), jnp.int32(0), jnp.int32(1)))
    with pytest.raises(ValueError, match="dlr needs logits of at least 3 classes, got 2"):
        jax.eval_shape(dlr, jnp.arange(2.0), jnp.int32(0))
    with pytest.raises(ValueError, match="dlr_targeted needs logits of at least 4 classes, got 3"):
        jax.eval_shape(dlr_targeted, jnp.arange(3.0), jnp.int32(0), jnp.int32(1))


def test_away_towards_succeeds_wherever_the_label_is_left():
    z, key = jnp.array([0.2, 1.0, -1.0, 0.9]), jax.random.key(0)
    for y in range(4):
        score, success = UntargetedViaTarget(margin_targeted)(key, lambda x: x, z, (y, 0))
        np.testing.assert_allclose(score, z[0] - z[y], rtol=1e-6)
        assert bool(success) == (y != 1)
    assert (
        UntargetedViaTarget()
        == UntargetedViaTarget(dlr_targeted)
        != UntargetedViaTarget(margin_targeted)
    )
    assert hash(UntargetedViaTarget()) == hash(UntargetedViaTarget(dlr_targeted))
