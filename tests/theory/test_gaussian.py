"""The Gaussian model: errors against Monte Carlo and SciPy, bounds against simulation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import optimize, stats

from advfeat.theory import gaussian
from advfeat.threats.norms import NORMS

KEY = jax.random.key(0)
quick = settings(max_examples=25, deadline=None, derandomize=True)
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def problem(seed, dim=12):
    rng = np.random.default_rng(seed)
    return jnp.float32(rng.normal(size=dim)), jnp.float32(rng.normal(size=dim))


def oracle(weights, mean, noise, eps, norm="linf"):
    """The error in float64, by the formula's own terms from NumPy and SciPy."""
    weights, mean = np.asarray(weights, np.float64), np.asarray(mean, np.float64)
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    lost = eps * np.linalg.norm(weights, dual)
    return stats.norm.cdf(lost, weights @ mean, noise * np.linalg.norm(weights))


def worst_move(weights, norm):
    """The unit move that lowers the score most, by linear programming's vertices."""
    if norm == "linf":
        return -np.sign(weights)
    if norm == "l2":
        return -weights / np.linalg.norm(weights)
    move = np.zeros_like(weights)
    largest = np.argmax(np.abs(weights))
    move[largest] = -np.sign(weights[largest])
    return move


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_the_error_is_scipys(norm, seed, noise):
    weights, mean = problem(seed)
    for eps in (0.0, 0.1, 0.7):
        found = gaussian.robust_error(weights, mean, noise, eps, norm=NORMS[norm])
        assert float(found) == pytest.approx(oracle(weights, mean, noise, eps, norm), abs=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_the_error_is_that_of_attacked_samples(norm):
    # The attack moves real samples; a count of 40,000 is told from a wrong rate at 1e-6.
    _, mean = problem(1)
    weights = mean + 0.3 * problem(2)[0]
    noise, eps, count = 2.0, 0.25, 40_000
    x, y = gaussian.sample(KEY, mean, noise, count)
    w = np.asarray(weights, np.float64)
    move = eps * worst_move(w, norm)
    assert np.linalg.norm(move, ORDER[norm]) == pytest.approx(eps)
    wrong = np.sign((np.asarray(x) + np.asarray(y)[:, None] * move) @ w) != np.asarray(y)
    said = float(gaussian.robust_error(weights, mean, noise, eps, norm=NORMS[norm]))
    assert 0.05 < said < 0.6
    assert stats.binomtest(int(wrong.sum()), count, said).pvalue > 1e-6


def test_samples_are_of_the_model():
    mean = jnp.array([1.0, -2.0, 0.5])
    x, y = gaussian.sample(KEY, mean, 0.7, 20_000)
    assert stats.binomtest(int((y > 0).sum()), len(y)).pvalue > 1e-6
    z = (np.asarray(y)[:, None] * np.asarray(x) - np.asarray(mean)).ravel() / 0.7
    assert stats.kstest(z, "norm").pvalue > 1e-6
    again, _ = gaussian.sample(KEY, mean, 0.7, 20_000)
    np.testing.assert_array_equal(x, again)


@pytest.mark.slow
def test_the_drawn_estimator_has_the_law_of_the_sampled_one():
    mean, noise, count = jnp.array([1.0, -1.0]), 1.5, 5
    keys = jax.random.split(KEY, 4000)
    drawn = jax.vmap(lambda k: gaussian.draw_estimator(k, mean, noise, count))(keys)
    sampled = jax.vmap(lambda k: gaussian.mean_estimator(*gaussian.sample(k, mean, noise, count)))(
        jax.random.split(jax.random.key(1), 4000)
    )
    for one in (drawn, sampled):
        z = (np.asarray(one) - np.asarray(mean)) / (noise / np.sqrt(count))
        assert stats.kstest(z.ravel(), "norm").pvalue > 1e-6
        assert abs(np.corrcoef(z.T)[0, 1]) < 0.07


def test_means_of_fixed_length():
    mean = gaussian.draw_mean(KEY, 49, fixed_length=True)
    assert float(jnp.linalg.norm(mean)) == pytest.approx(7.0, rel=1e-5)
    free = gaussian.draw_mean(KEY, 49)
    np.testing.assert_allclose(mean / 7.0, free / jnp.linalg.norm(free), rtol=1e-5)


def test_limits():
    weights, mean = problem(3)
    error = gaussian.robust_error
    plain = float(error(weights, mean, 1.0, 0.0))
    assert plain == pytest.approx(oracle(weights, mean, 1.0, 0.0), abs=1e-6)
    for scale in (1e-25, 1e25):  # the classifier, not its length, decides
        assert float(error(scale * weights, mean, 1.0, 0.0)) == pytest.approx(plain, rel=1e-4)
    many = gaussian.draw_estimator(KEY, mean, 1.0, 1e14)  # n to infinity: the best classifier
    assert float(error(many, mean, 1.0, 0.0)) == pytest.approx(
        stats.norm.cdf(-np.linalg.norm(mean)), rel=1e-3
    )
    assert float(error(mean, mean, 1e-6, 0.0)) == 0  # noise to 0
    assert float(error(mean, mean, 1e-6, 1e3)) == 1
    assert float(error(jnp.zeros(12), mean, 1.0, 5.0)) == 0.5
    assert float(error(weights, mean, 1.0, jnp.inf)) == 1


def test_the_optimal_classifier_is_optimal():
    mean, noise, eps = jnp.array([1.2, -0.4, 0.1, 2.0, -0.9]), 1.3, 0.5
    least = float(gaussian.optimal_robust_error(mean, noise, eps))
    weights = gaussian.optimal_weights(mean, eps)
    assert float(gaussian.robust_error(weights, mean, noise, eps)) == pytest.approx(least, rel=1e-5)
    found = optimize.minimize(
        lambda w: oracle(w, mean, noise, eps),
        np.asarray(mean),
        method="Nelder-Mead",
        options={"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-12},
    )
    assert found.fun == pytest.approx(least, abs=1e-5)
    assert least > float(gaussian.optimal_robust_error(mean, noise, 0.0))
    assert float(gaussian.optimal_robust_error(mean, noise, 3.0)) == 0.5  # all is cancelled


def test_the_posterior_is_bayes():
    # Regression over draws of the model: the mean of what is to come given the estimate.
    noise, count, draws = 1.5, 4, 60_000
    rng = np.random.default_rng(0)
    mean = rng.normal(size=draws)
    estimate = mean + noise / np.sqrt(count) * rng.normal(size=draws)
    following = mean + noise * rng.normal(size=draws)
    slope = np.polyfit(estimate, following, 1)[0]
    found = gaussian.posterior(jnp.ones(1), noise, count)
    assert float(found.mean[0]) == pytest.approx(slope, abs=0.02)
    spread = np.std(following - float(found.mean[0]) * estimate)
    assert float(found.noise) == pytest.approx(spread, rel=0.02)


numbers = {
    "dim": st.integers(2, 300),
    "noise": st.floats(0.2, 6.0),
    "count": st.integers(1, 200),
    "eps": st.floats(0.0, 1.2),
    "seed": st.integers(0, 2**31 - 1),
}


@functools.partial(jax.jit, static_argnames=("dim", "fixed_length"))
def simulated(key, dim, noise, count, eps, fixed_length):
    def one(key):
        key_mean, key_draw = jax.random.split(key)
        mean = gaussian.draw_mean(key_mean, dim, fixed_length=fixed_length)
        weights = gaussian.draw_estimator(key_draw, mean, noise, count)
        shrunk = gaussian.optimal_weights(gaussian.posterior(weights, noise, count).mean, eps)
        return [
            gaussian.robust_error(weights, mean, noise, eps),
            gaussian.robust_error(shrunk, mean, noise, eps),
        ]

    return jax.vmap(one)(jax.random.split(key, 400))


@pytest.mark.slow
@quick
@given(**{**numbers, "dim": st.sampled_from([2, 30, 300])})
def test_no_learner_falls_below_the_lower_bounds(dim, noise, count, eps, seed):
    key = jax.random.key(seed)
    plain, shrunk = simulated(key, dim, noise, float(count), eps, False)
    least = jax.vmap(lambda k: gaussian.least_error(k, dim, noise, float(count), eps))(
        jax.random.split(jax.random.fold_in(key, 1), 400)
    )
    floor = float(gaussian.lower_bound(dim, noise, count, eps))

    def middle(values, other=0.0):
        values = np.asarray(values, np.float64)
        return values.mean(), 5 * np.hypot(values.std() / 20, other) + 1e-4

    mean, slack = middle(least)
    assert mean >= floor - slack
    assert mean <= 0.5 + 1e-6
    for learner in (plain, shrunk):
        assert middle(learner)[0] >= mean - middle(learner, slack / 5)[1]
    # The shrunk learner is the one that reaches it.
    assert middle(shrunk)[0] == pytest.approx(mean, abs=middle(shrunk, slack / 5)[1])


@pytest.mark.slow
@quick
@given(**{**numbers, "dim": st.sampled_from([30, 300])})
def test_the_upper_bound_fails_no_more_often_than_it_says(dim, noise, count, eps, seed):
    plain, _ = simulated(jax.random.key(seed), dim, noise, float(count), eps, True)
    bound = float(gaussian.upper_bound(dim, noise, count, eps))
    failures = int((np.asarray(plain) > bound + 1e-6).sum())
    allowed = float(gaussian.failure_probability(dim, noise))
    assert allowed == 1 or stats.binomtest(failures, 400, allowed, "greater").pvalue > 1e-6


@given(
    dim=st.integers(2, 10**6),
    noise=st.floats(0.05, 100),
    eps=st.floats(0, 5),
    count=st.integers(0, 10**6),
)
@quick
def test_theorem_11_is_scipys(dim, noise, eps, count):
    scale = np.sqrt(count / (noise**2 + count))
    inside = 1.0 if scale == 0 else 2 * stats.norm.cdf(eps / scale) - 1
    wanted = 0.5 * inside**dim
    assert float(gaussian.lower_bound(dim, noise, count, eps)) == pytest.approx(wanted, abs=2e-4)


@given(dim=st.integers(2, 10**6), noise=st.floats(0.05, 100), eps=st.floats(0.01, 5))
@quick
def test_corollary_23_follows_from_theorem_11(dim, noise, eps):
    count = float(gaussian.lower_bound_count(dim, noise, eps))
    assert count == pytest.approx(eps**2 * noise**2 / (8 * np.log(dim)), rel=1e-4)
    assert float(gaussian.lower_bound(dim, noise, count, eps)) >= 0.5 * (1 - 1 / dim) - 1e-5


@given(
    dim=st.integers(2, 10**6),
    noise=st.floats(0.05, 20),
    eps=st.floats(0, 0.9),
    beta=st.floats(1e-4, 0.9),
)
@quick
def test_the_sufficient_count_solves_theorem_21(dim, noise, eps, beta):
    count = float(gaussian.upper_bound_count(dim, noise, eps, beta))
    assert count >= 1

    def promised(n):  # Theorem 21's largest eps, in float64
        aligned = (2 * np.sqrt(n) - 1) / (2 * np.sqrt(n) + 4 * noise)
        return aligned - noise * np.sqrt(2 * np.log(1 / beta) / dim)

    if not np.isfinite(count):
        assert promised(1e18) <= eps + 1e-4
        return
    assert promised(count) >= eps - 1e-4
    if count > 1.001:
        assert promised(count) == pytest.approx(eps, abs=1e-4)
    if promised(2 * count) > eps + 0.01:
        assert float(gaussian.upper_bound(dim, noise, 2 * count, eps)) <= beta * 1.01


@pytest.mark.parametrize("dim", [10**4, 10**6, 10**8])
@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("eps", [0.001, 0.02, 0.1, 0.25])
def test_corollary_22_asks_for_more(dim, share, eps):
    noise = share * dim**0.25 / 32
    asked = max(1.0, 64 * eps**2 * dim**0.5) if eps > 0.25 * dim**-0.25 else 1.0
    assert float(gaussian.upper_bound_count(dim, noise, eps, 0.01)) <= asked * (1 + 1e-3)


@pytest.mark.slow
def test_bounds_at_their_ends():
    lower, upper = gaussian.lower_bound, gaussian.upper_bound
    assert float(lower(10, 1.0, 0, 0.0)) == 0.5  # nothing was seen
    assert float(lower(10, 1.0, 5, 0.0)) == 0.0
    assert float(lower(10, 1.0, 5, jnp.inf)) == 0.5
    assert float(upper(10**6, 0.5, 1e10, 0.0)) == 0.0
    assert float(upper(100, 1.0, 100, 5.0)) == 1.0
    assert float(gaussian.failure_probability(1, 5.0)) == 1.0
    counts = jnp.arange(1.0, 200.0)
    falling = jax.vmap(lambda n: lower(50, 2.0, n, 0.5))(counts)
    rising = jax.vmap(lambda n: gaussian.alignment(2.0, n))(counts)
    assert (jnp.diff(falling) <= 0).all()
    assert (jnp.diff(rising) > 0).all()
    assert float(gaussian.alignment(2.0, 1e12)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_compiled_and_vectorised_are_the_same():
    weights, mean = problem(5)
    calls = [
        lambda eps: gaussian.robust_error(weights, mean, 1.1, eps),
        lambda eps: gaussian.optimal_robust_error(mean, 1.1, eps),
        lambda eps: gaussian.least_error(KEY, 9, 1.1, 3.0, eps),
        lambda eps: gaussian.lower_bound(9, 1.1, 3.0, eps),
        lambda eps: gaussian.lower_bound_count(9, 1.1, eps),
        lambda eps: gaussian.upper_bound(9, 1.1, 30.0, eps),
        lambda eps: gaussian.upper_bound_count(900, 1.1, eps, 0.1),
        lambda noise: gaussian.failure_probability(9, noise),
        lambda noise: gaussian.draw_estimator(KEY, mean, noise, 3.0),
        lambda noise: gaussian.sample(KEY, mean, noise, 3)[0],
        lambda noise: gaussian.posterior(mean, noise, 3.0).mean,
        lambda noise: gaussian.alignment(noise, 3.0),
    ]
    values = jnp.array([0.1, 0.4])
    for call in calls:
        alone, together = call(float(values[1])), jax.jit(jax.vmap(call))(values)
        np.testing.assert_allclose(together[1], alone, rtol=1e-4, atol=1e-6)


ONE = jnp.ones(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gaussian.draw_mean(KEY, 0), "dim must be a whole number >= 1, got 0"),
        (lambda: gaussian.sample(KEY, ONE, 0.0, 3), r"noise must lie in \(0, inf\], got 0"),
        (lambda: gaussian.sample(KEY, ONE, 1.0, 0), "count must be a whole number >= 1, got 0"),
        (lambda: gaussian.sample(KEY, jnp.ones((2, 2)), 1.0, 3), r"mean .* \[d\].*got \(2, 2\)"),
        (lambda: gaussian.sample(KEY, ONE, "x", 3), "noise must be a number"),
        (lambda: gaussian.mean_estimator(ONE, ONE), r"x, y must have shapes"),
        (lambda: gaussian.mean_estimator(jnp.ones((2, 3)), ONE), r"\(2, 3\) and \(3,\)"),
        (lambda: gaussian.draw_estimator(KEY, ONE, 1.0, 0.5), r"count must lie in \[1, inf\]"),
        (lambda: gaussian.robust_error(jnp.ones(2), ONE, 1.0, 0.1), r"weights must have shape"),
        (lambda: gaussian.robust_error(ONE, ONE, -1.0, 0.1), "noise must lie in .* got -1"),
        (lambda: gaussian.robust_error(ONE, ONE, 1.0, -0.1), "eps must be >= 0, got -0.1"),
        (lambda: gaussian.optimal_weights(ONE, jnp.nan), "eps must be >= 0, got NaN"),
        (lambda: gaussian.optimal_robust_error(ONE, jnp.nan, 0.1), "noise must lie in .* got nan"),
        (lambda: gaussian.posterior(ONE, 1.0, 0), r"count must lie in \[1, inf\], got 0"),
        (lambda: gaussian.least_error(KEY, 2.5, 1.0, 1, 0.1), "dim must be a whole number"),
        (lambda: gaussian.lower_bound(3, 1.0, -1, 0.1), r"count must lie in \[0, inf\], got -1"),
        (lambda: gaussian.lower_bound_count(1, 1.0, 0.1), r"dim must lie in \[2, inf\], got 1"),
        (lambda: gaussian.upper_bound(3, 1.0, 0, 0.1), r"count must lie in \[1, inf\], got 0"),
        (lambda: gaussian.upper_bound_count(3, 1.0, 0.1, 1.0), r"beta must lie in \(0, 1\), got 1"),
        (lambda: gaussian.failure_probability(3, 0.0), "noise must lie in"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
