"""Losses and objectives against NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import advfeat
from advfeat import cross_entropy, margin, smoothed_cross_entropy, targeted, untargeted
from advfeat.ensemble import ensemble

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
        score, success = untargeted(loss)(lambda x: x, z, y, key)
        np.testing.assert_allclose(score, loss(z, jnp.int32(y)), rtol=1e-6)
        assert bool(success) == (y != 1)
        score, success = targeted(loss)(lambda x: x, z, y, key)
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
