"""The Bernoulli model: errors against enumeration and Monte Carlo, bounds against simulation."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from advfeat.theory import bernoulli

KEY = jax.random.key(0)
# Compiled: test_compiled_and_vectorised_are_the_same has them as they are.
robust_error = jax.jit(bernoulli.robust_error, static_argnames=("count", "threshold"))
simulated_error = jax.jit(bernoulli.simulated_error, static_argnames="draws")
draw_estimator = jax.jit(bernoulli.draw_estimator, static_argnames="count")
quick = settings(max_examples=40, deadline=None, derandomize=True)


def enumerated(weights, signs, bias, eps):
    """Every example with its probability; the adversary tries every corner of its ball."""
    weights, signs = np.asarray(weights, np.float64), np.asarray(signs, np.float64)
    wrong = 0.0
    for right in itertools.product([1, -1], repeat=len(signs)):
        chance = np.prod([0.5 + r * bias for r in right])
        for y in (-1, 1):
            x = y * signs * right
            corners = itertools.product([-eps, eps], repeat=len(signs))
            said = [1 if weights @ (x + np.array(c)) >= -1e-9 else -1 for c in corners]
            wrong += 0.5 * chance * any(word != y for word in said)
    return wrong


@given(
    weights=st.lists(st.integers(-3, 3), min_size=4, max_size=4),
    signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4),
    bias=st.floats(0.01, 0.5),
    eps=st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.5]),
)
@quick
def test_the_error_is_that_of_all_examples_one_by_one(weights, signs, bias, eps):
    found = robust_error(jnp.array(weights), jnp.array(signs), bias, eps, count=3)
    assert float(found) == pytest.approx(enumerated(weights, signs, bias, eps), abs=1e-5)


@pytest.mark.parametrize("dim", [5, 25, 50, 400])
@pytest.mark.parametrize("tenths", range(11))
def test_a_tie_is_a_tie_whatever_the_floats_say(dim, tenths):
    # All weights 1: margin and eps |w|_1 in whole tenths, and twice a binomial.
    bias, margins = 0.2, 2 * np.arange(dim + 1) - dim
    law = stats.binom.pmf(np.arange(dim + 1), dim, 0.5 + bias)
    lost, tied = 10 * margins < tenths * dim, 10 * margins == tenths * dim
    wanted = law[lost].sum() + 0.5 * law[tied].sum()
    weights = jnp.ones(dim)
    found = robust_error(weights, jnp.ones(dim), bias, tenths / 10, count=1)
    assert float(found) == pytest.approx(wanted, abs=2e-5)
    if dim < 100:
        tenth = 0.1 * weights
        simulated = simulated_error(KEY, tenth, jnp.ones(dim), bias, tenths / 10, draws=20_000)
        assert float(simulated) == pytest.approx(wanted, abs=0.018)


def test_the_law_of_the_margin_is_scipys():
    # All weights 1 and in the right direction: twice a binomial.
    dim, bias = 300, 0.2
    law = bernoulli.margin_law(jnp.ones(dim), jnp.ones(dim), bias, count=1)
    hits = (np.arange(-dim, dim + 1) + dim) / 2
    wanted = np.where(hits % 1 == 0, stats.binom.pmf(hits, dim, 0.5 + bias), 0.0)
    np.testing.assert_allclose(law, wanted, rtol=2e-4, atol=1e-37)
    assert float(law.sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_a_larger_bound_on_the_weights_changes_nothing():
    signs = bernoulli.draw_signs(KEY, 50)
    weights = draw_estimator(jax.random.key(1), signs, 0.1, 3)
    tight, loose = (float(robust_error(weights, signs, 0.1, 0.05, count=count)) for count in (3, 8))
    assert tight == pytest.approx(loose, rel=1e-5)


def attacked(key, weights, signs, bias, eps, count, threshold):
    """The share of real samples that real perturbations fool, in float64."""
    x, y = (np.asarray(part, np.float64) for part in bernoulli.sample(key, signs, bias, count))
    w = np.asarray(weights, np.float64)
    moved = x - eps * y[:, None] * np.sign(w)
    seen = np.sign(moved) if threshold else moved
    return int((np.where(seen @ w >= 0, 1, -1) != y).sum())


@pytest.mark.slow_for("0.0-False")
@pytest.mark.parametrize(("eps", "threshold"), [(0.0, False), (0.05, False), (0.3, True)])
def test_the_error_is_that_of_attacked_samples(eps, threshold):
    signs = bernoulli.draw_signs(KEY, 101)
    weights = draw_estimator(jax.random.key(1), signs, 0.12, 5)
    said = robust_error(weights, signs, 0.12, eps, count=5, threshold=threshold)
    assert 0.005 < said < 0.9
    wrong = attacked(jax.random.key(2), weights, signs, 0.12, eps, 30_000, threshold)
    assert stats.binomtest(wrong, 30_000, float(said)).pvalue > 1e-6


@pytest.mark.slow_for("0.0")
@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_the_simulated_error_is_the_exact_one(eps):
    signs = bernoulli.draw_signs(KEY, 60)
    weights = draw_estimator(jax.random.key(1), signs, 0.15, 3)
    exact = float(robust_error(weights, signs, 0.15, eps, count=3))
    found = simulated_error(jax.random.key(2), weights, signs, 0.15, eps, draws=20_000)
    assert float(found) == pytest.approx(exact, abs=5 * 0.5 / np.sqrt(20_000))
    scaled = simulated_error(  # a power of two: the ties stay ties
        jax.random.key(2), weights / 4, signs, 0.15, eps, draws=20_000
    )
    assert float(scaled) == pytest.approx(float(found), abs=2e-3)


def test_samples_are_of_the_model():
    signs = jnp.array([1.0, -1.0, 1.0])
    x, y = bernoulli.sample(KEY, signs, 0.3, 20_000)
    assert set(np.unique(x)) == {-1.0, 1.0}
    agree = np.asarray(y)[:, None] * np.asarray(x) * np.asarray(signs) > 0
    for column in agree.T:
        assert stats.binomtest(int(column.sum()), len(column), 0.8).pvalue > 1e-6
    assert np.abs(np.corrcoef(agree.T) - np.eye(3)).max() < 0.04
    assert stats.binomtest(int((y > 0).sum()), len(y)).pvalue > 1e-6


@pytest.mark.slow
def test_the_drawn_estimator_has_the_law_of_the_sampled_one():
    signs, count, draws = jnp.array([1.0, -1.0]), 4, 5000
    keys = jax.random.split(KEY, draws)
    drawn = jax.vmap(lambda k: draw_estimator(k, signs, 0.2, count))(keys)
    sampled = jax.vmap(lambda k: bernoulli.sum_estimator(*bernoulli.sample(k, signs, 0.2, count)))(
        jax.random.split(jax.random.key(1), draws)
    )
    wanted = stats.binom.pmf(np.arange(count + 1), count, 0.7) * draws
    for found in (drawn, sampled):
        for column, sign in zip(np.asarray(found).T, signs, strict=True):
            hits = (column * int(sign) + count) // 2
            seen = np.bincount(hits, minlength=count + 1)
            assert stats.chisquare(seen, wanted).pvalue > 1e-6


@pytest.mark.slow
def test_behind_a_threshold_eps_does_nothing_below_one_and_everything_from_there():
    signs = jnp.ones(20)
    weights = draw_estimator(KEY, signs, 0.3, 1)
    error = functools.partial(robust_error, weights, signs, 0.3, count=1)
    for eps in (0.2, 0.999):
        assert float(error(eps=eps, threshold=True)) == float(error(eps=0.0))
        assert float(error(eps=eps)) > float(error(eps=0.0))
    assert float(error(eps=1.0, threshold=True)) == 1


def test_limits():
    signs = jnp.ones(10)
    error = functools.partial(robust_error, signs=signs, count=1)
    assert float(error(jnp.ones(10), bias=0.5, eps=0.0)) == 0  # nothing is ever wrong
    assert float(error(-jnp.ones(10), bias=0.5, eps=0.0)) == 1
    assert float(error(jnp.ones(10), bias=0.5, eps=0.9)) == 0
    assert float(error(jnp.ones(10), bias=0.5, eps=1.0)) == 0.5  # the tie: one label loses it
    assert float(error(jnp.ones(10), bias=0.5, eps=1.1)) == 1
    assert float(error(jnp.zeros(10), bias=0.2, eps=0.7)) == 0.5


@functools.partial(jax.jit, static_argnames=("dim", "count"))
def simulated(key, dim, bias, count, eps):
    def one(key):
        key_signs, key_draw = jax.random.split(key)
        signs = bernoulli.draw_signs(key_signs, dim)
        weights = draw_estimator(key_draw, signs, bias, count)
        return [
            robust_error(weights, signs, bias, 0.0, count=count),
            robust_error(weights, signs, bias, eps, count=count),
            bernoulli.error_bound(weights, signs, bias, eps),
        ]

    return jax.vmap(one)(jax.random.split(key, 100))


@pytest.mark.slow
@given(
    bias=st.floats(0.02, 0.5),
    eps=st.floats(0.0, 1.0),
    count=st.sampled_from([1, 4]),
    dim=st.just(60),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_bounds_hold(bias, eps, count, dim, seed):
    found = simulated(jax.random.key(seed), dim, bias, count, eps)
    standard, robust, hoeffding = (np.asarray(part) for part in found)
    assert (robust <= hoeffding + 1e-5).all()
    assert (robust >= standard - 1e-6).all()
    if count == 1:
        bound, failure = (float(part) for part in bernoulli.one_example_bound(dim, bias))
        failed = int((standard > bound + 1e-6).sum())
        assert stats.binomtest(failed, 100, failure, "greater").pvalue > 1e-6


@given(dim=st.integers(10, 10**6), beta=st.floats(1e-4, 0.9))
@quick
def test_corollary_28_solves_theorem_27(dim, beta):
    bias = float(bernoulli.one_example_bias(dim, beta))
    if bias <= 0.5:
        bound, failure = bernoulli.one_example_bound(dim, bias)
        assert float(bound) == pytest.approx(beta, rel=1e-3)
        assert float(failure) == pytest.approx(np.exp(-(bias**2) * dim / 2), rel=1e-2, abs=1e-30)


@pytest.mark.slow
def test_compiled_and_vectorised_are_the_same():
    signs = bernoulli.draw_signs(KEY, 12)
    weights = bernoulli.draw_estimator(KEY, signs, 0.2, 2)
    calls = [
        lambda bias: bernoulli.robust_error(weights, signs, bias, 0.1, count=2),
        lambda bias: bernoulli.robust_error(weights, signs, bias, 0.1, count=2, threshold=True),
        lambda bias: bernoulli.error_bound(weights, signs, bias, 0.1),
        lambda bias: bernoulli.draw_estimator(KEY, signs, bias, 3),
        lambda bias: bernoulli.one_example_bound(9, bias)[0],
        lambda beta: bernoulli.one_example_bias(9, beta),
        lambda bias: bernoulli.simulated_error(KEY, weights, signs, bias, 0.1, draws=30),
    ]
    values = jnp.array([0.05, 0.2])
    for call in calls:
        alone, together = call(float(values[1])), jax.jit(jax.vmap(call))(values)
        np.testing.assert_allclose(together[1], alone, rtol=1e-4, atol=1e-6)


ONE = jnp.ones(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bernoulli.draw_signs(KEY, 0), "dim must be a whole number >= 1, got 0"),
        (lambda: bernoulli.sample(KEY, ONE, 0.6, 2), r"bias must lie in \(0, 0.5\], got 0.6"),
        (lambda: bernoulli.sample(KEY, ONE, 0.0, 2), r"bias must lie in \(0, 0.5\], got 0"),
        (lambda: bernoulli.sample(KEY, jnp.ones((2, 2)), 0.2, 2), r"signs .* got \(2, 2\)"),
        (lambda: bernoulli.sample(KEY, ONE, 0.2, 0), "count must be a whole number >= 1"),
        (lambda: bernoulli.sum_estimator(ONE, ONE), "x, y must have shapes"),
        (lambda: bernoulli.draw_estimator(KEY, ONE, 0.2, 0), r"count must lie in \[1, inf\]"),
        (lambda: bernoulli.margin_law(jnp.ones(2), ONE, 0.2, count=1), "weights must have shape"),
        (lambda: bernoulli.margin_law(ONE, ONE, 0.2, count=0), "count must be a whole number"),
        (lambda: bernoulli.robust_error(ONE, ONE, 0.2, -1, count=1), "eps must be >= 0, got -1"),
        (lambda: bernoulli.simulated_error(KEY, ONE, ONE, 0.2, 0.1, draws=0), "draws must be"),
        (lambda: bernoulli.simulated_error(KEY, jnp.ones(2), ONE, 0.2, 0.1, draws=2), "weights"),
        (lambda: bernoulli.error_bound(jnp.ones(2), ONE, 0.2, 0.1), "weights must have shape"),
        (lambda: bernoulli.one_example_bound(0, 0.2), "dim must be"),
        (lambda: bernoulli.one_example_bias(9, 1.0), r"beta must lie in \(0, 1\), got 1"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
