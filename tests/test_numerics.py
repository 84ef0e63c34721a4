"""Arithmetic at the ends of the range, and the attacks that lean on it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import advfeat
from advfeat import saliency
from advfeat.attacks import ATTACKS, norms_of
from advfeat.attacks.step_rules import momentum
from advfeat.numerics import finite, over, scaled
from advfeat.threats.hyperplane import to_hyperplane, unbounded_distance
from advfeat.threats.norms import NORMS

KEY = jax.random.key(0)
MOST, LEAST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
divided = jax.jit(over)


@given(
    values=hnp.arrays(np.float32, 3, elements=st.floats(-MOST, MOST, width=32)),
    scale=st.floats(LEAST, MOST, width=32),
)
@example(values=np.array([1e38, 2e38, 1], np.float32), scale=2e38)
@example(values=np.array([1e-38, 2e-38, 0], np.float32), scale=LEAST)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_quotient_is_that_of_float64(values, scale):
    with np.errstate(over="ignore"):
        wanted = (values.astype(np.float64) / scale).astype(np.float32)
    found = divided(values, jnp.float32(scale))
    # XLA on CPU rounds subnormal numbers to 0, of the values too.
    lost = LEAST * (1 + 1 / scale)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=lost)


def test_nothing_over_nothing_is_nothing_and_has_a_slope():
    x = jnp.array([0.0, -0.0])
    np.testing.assert_array_equal(over(x, jnp.float32(0)), 0)
    slope = jax.grad(lambda x: jnp.sum(scaled(x)[0]))(x)
    assert np.isfinite(slope).all()
    assert finite(jnp.array([np.inf, -np.inf, np.nan, -2])).tolist() == [0, 0, 0, -2]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e38])
@pytest.mark.parametrize("name", NORMS)
def test_a_boundary_lies_where_it_is_whatever_the_scale(name, scale):
    # The nearest root of 2 (a - 0.5) + (b - 0.5) = 0.3 in each norm, by hand.
    x, slope, value = jnp.full(2, 0.5), jnp.float32(scale) * jnp.array([2.0, 1.0]), -0.3 * scale
    found = to_hyperplane(NORMS[name], x, slope, jnp.float32(value))
    wanted = {"linf": [0.1, 0.1], "l2": [0.12, 0.06], "l1": [0.15, 0.0]}[name]
    np.testing.assert_allclose(found.step, wanted, atol=1e-6)
    far = {"linf": 0.1, "l2": 0.3 / np.sqrt(5), "l1": 0.15}[name]
    distance = unbounded_distance(NORMS[name], slope, jnp.float32(value))
    np.testing.assert_allclose(distance, far, rtol=1e-6)


def test_momentum_of_huge_gradients():
    rule = momentum()(advfeat.l2(1.0), jnp.float32(1.0))
    x, gradient = jnp.zeros(2), jnp.array([3e38, 1e38])
    moved, _ = rule.update(gradient, rule.init(x), x)
    np.testing.assert_allclose(moved, np.array([3, 1]) / np.sqrt(10), rtol=1e-6)


# --- A root of a pixel: its slope is infinite where the pixel is black. ---------------------------


def rooted(x, *, scale=1.0):
    """Ten classes; the boundary of the first with the second lies at x[0, 1] = 0.49."""
    lead = 1e-3 * jnp.sqrt(x[0, 0, 0]) + jnp.sqrt(x[0, 1, 0]) - 0.70
    return scale * jnp.concatenate([jnp.stack([lead, 0.0]), jnp.full(8, -1.0)])


def attacked(name, network):
    norm = next(norm for norm in ("l2", "l1") if norm in norms_of(name))
    attack = ATTACKS[name](advfeat.threat_model(norm, 0.1))
    x = np.array([[[[0.0], [0.5]]]], np.float32)
    return advfeat.attack_dataset(KEY, attack, network, x, np.array([0]))


@pytest.mark.slow_for(
    "apgd_ce",
    "apgd_dlr",
    "apgd_targeted",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "elastic_net",
    "fab",
    "fab_targeted",
    "fmn",
    "pgd",
    "pgd_momentum",
    "square",
)
@pytest.mark.parametrize("name", [name for name in ATTACKS if "noise" not in name])
def test_an_infinite_slope_stops_no_attack(name):
    found = attacked(name, rooted)
    assert found.best.success.all()
    assert np.isfinite(found.last.x).all()


@pytest.mark.slow_for("fab", "fmn")
@pytest.mark.parametrize("name", ["fab", "deepfool", "fmn"])
def test_a_huge_slope_stops_no_attack(name):
    def network(x):
        return 2e38 * jnp.stack([x[0, 1, 0] - 0.49, 0.0])

    assert attacked(name, network).best.success.all()


@pytest.mark.slow_for("method0")
@pytest.mark.parametrize(
    "method",
    [
        saliency.gradient(),
        saliency.gradient_times_input(),
        saliency.layer_gradient(),
        saliency.smoothgrad(sigma=0.0, samples=2),
    ],
)
def test_maps_leave_such_entries_out(method):
    network = saliency.split(lambda x: x, rooted)
    found = method(KEY, network, jnp.array([[[0.0], [0.25]]]), 0)
    factor = 0.25 if getattr(method, "times_input", False) else 1.0
    np.testing.assert_allclose(found.ravel(), [0.0, factor * 1.0], rtol=1e-6)


# --- Robust accuracy with and without the root. ---------------------------------------------------


def of_roots(weights, least, x):
    return weights @ (jnp.sqrt(jnp.maximum(x.ravel(), least)) - 0.72)


@functools.cache
def images():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 16)).astype(np.float32)
    weights[:, 0] = 1e-3
    x = rng.uniform(0.2, 0.9, size=(40, 4, 4, 1)).astype(np.float32)
    x[:, 0, 0, 0] = 0.0
    network = functools.partial(jax.tree_util.Partial, of_roots, jnp.asarray(weights))
    return network, x, advfeat.predict(network(1e-6), x).argmax(1)


@pytest.mark.slow_for("pgd")
@pytest.mark.parametrize("attack", ["pgd", "fmn"])
def test_the_robust_accuracy_is_that_without_the_black_pixel(attack):
    network, x, y = images()
    look = functools.partial(
        advfeat.evaluate,
        KEY,
        images=x,
        labels=y,
        threat=advfeat.l2(0.1),
        suite=[attack],
        checks=False,
    )
    steep, sound = look(model_fn=network(0.0)), look(model_fn=network(1e-6))
    assert 0.1 < sound.robust.mean() < 0.9
    np.testing.assert_array_equal(steep.robust, sound.robust)
    (warned,) = steep.warnings
    assert warned.code == "nan_gradients"
    count = sound.robust.sum()
    assert warned.sentence.startswith(f"{count} of the {count} images that stand have gradients")
    assert not steep.trusted
    assert not sound.warnings
