"""Norms: nearest points, steepest directions and uniform samples against float64 references."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import example, given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats

from advfeat.threats.norms import NORMS, l2_length, scale_to_norm

SHAPE = (1, 2, 3)
every_norm = pytest.mark.parametrize("name", oracle.NORMS)
quick = settings(max_examples=50, deadline=None, derandomize=True)

pixels = hnp.arrays(
    np.float32,
    SHAPE,
    elements=st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32)),
)
points = hnp.arrays(
    np.float32,
    SHAPE,
    elements=st.one_of(
        st.floats(0, 1, width=32),
        st.floats(-3, 3, width=32),
        st.floats(-(2.0**14), 2.0**14, width=32),
    ),
)
sizes = st.one_of(
    st.sampled_from([0.0, 1e-6, 8 / 255, 1.0, 6.0, 1e6, np.inf]), st.floats(0, 3, width=32)
)


@functools.cache
def compiled(name, method):
    return jax.jit(getattr(NORMS[name], method))


def project(name, eps, x0, x):
    return np.asarray(compiled(name, "project")(jnp.float32(eps), jnp.asarray(x0), jnp.asarray(x)))


def test_the_registry_holds_what_the_oracle_knows():
    assert tuple(NORMS) == oracle.NORMS
    assert all(NORMS[name].name == name for name in NORMS)


@every_norm
@given(x0=pixels, x=points, eps=sizes)
@quick
def test_projection_is_the_nearest_feasible_point(name, x0, x, eps):
    eps = float(np.float32(eps))
    found, nearest = project(name, eps, x0, x), oracle.project(name, eps, x0, x)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    far = oracle.length(name, found.astype(np.float64) - x0)
    assert far <= eps + oracle.tolerance(name, eps, x0.size)
    # L1 subtracts a threshold as large as x, which costs as many digits as x has before the point.
    rounding = 4 * oracle.ULP * np.abs(x).max() if name == "l1" else 0.0
    np.testing.assert_allclose(found, nearest, atol=5e-4 + rounding)
    excess = oracle.length("l2", found - x.astype(np.float64)) - oracle.length("l2", nearest - x)
    assert excess <= 3e-6 * (1 + oracle.length("l2", nearest - x))
    np.testing.assert_allclose(project(name, eps, x0, found), found, atol=1e-6)
    if eps == 0:
        np.testing.assert_allclose(found, x0, atol=1e-37)  # subnormal numbers count as 0


@pytest.mark.parametrize("seed", range(4))
@every_norm
def test_the_oracle_agrees_with_a_general_purpose_solver(name, seed):
    rng = np.random.default_rng(seed)
    x0, x = rng.random(3), rng.normal(0.5, 1.0, 3)
    eps = [0.1, 0.4, 0.8, 3.0][seed]
    # L1 and L-infinity are linear in a split d = u - v with u, v >= 0.
    ball = {
        "linf": lambda w: eps - w.reshape(2, 3).sum(0),
        "l2": lambda w: eps**2 - ((w[:3] - w[3:]) ** 2).sum(),
        "l1": lambda w: eps - w.sum(),
    }[name]
    bounds = [(0, 1 - v) for v in x0] + [(0, v) for v in x0]
    solved = optimize.minimize(
        lambda w: ((x0 + w[:3] - w[3:] - x) ** 2).sum(),
        np.zeros(6),
        bounds=bounds,
        constraints={"type": "ineq", "fun": ball},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    z = x0 + solved.x[:3] - solved.x[3:]
    np.testing.assert_allclose(oracle.project(name, eps, x0, x), z, atol=2e-4)


@every_norm
def test_projection_of_whole_images(name):
    rng = np.random.default_rng(1)
    x0 = rng.random((4, 16, 16, 3)).astype(np.float32)
    x = (x0 + rng.normal(0, 1.5, x0.shape)).astype(np.float32)
    once = jax.jit(jax.vmap(NORMS[name].project, (None, 0, 0)))
    for eps in (1e-3, 0.5, 5.0, 40.0):
        found = once(jnp.float32(eps), x0, x)
        for one, a, b in zip(found, x0, x, strict=True):
            np.testing.assert_allclose(one, oracle.project(name, eps, a, b), atol=2e-5)
            far = oracle.length(name, np.asarray(one, np.float64) - a)
            assert far <= eps + oracle.tolerance(name, eps, a.size)
        np.testing.assert_allclose(once(jnp.float32(eps), x0, found), found, atol=1e-6)


@pytest.mark.slow_for("l2")
@every_norm
def test_a_point_on_the_boundary_stays_there(name):
    # Rounding decides on which side of eps it lies; L1 once fell back to x0 here.
    rng = np.random.default_rng(0)
    x0 = rng.random((2000, 3)).astype(np.float32)
    x = np.clip(x0 + 0.1 * rng.normal(size=x0.shape), 0, 1).astype(np.float32)
    far = jax.vmap(NORMS[name].distance)(x0, x)
    batch = jax.jit(jax.vmap(NORMS[name].project))
    for ulps in (-4, -2, -1, 0, 1, 2):
        found = batch(far * (1 + ulps * oracle.ULP / 2), x0, x)
        np.testing.assert_allclose(found, x, atol=2e-6)


def test_l2_projection_with_many_faces_stays_feasible_and_near():
    # A geometric spread needs a pass per coordinate: the worst case there is.
    x0 = np.full(24, 0.5, np.float32)
    x = x0 + 2.0 ** np.arange(24, dtype=np.float32)
    for eps in (0.3, 1.4, 1.9, 2.4):
        found = project("l2", eps, x0, x)
        assert oracle.length("l2", found - x0) <= eps * (1 + 4 * oracle.ULP)
        gap = found - oracle.project("l2", eps, x0, x)
        assert oracle.length("l2", gap) <= 0.1 * eps


@pytest.mark.parametrize("far", [3.0, 300.0, 1e12, 1e25])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_l2_projection_of_black_and_white_images_is_the_nearest_point(far, share):
    # Half of the values point out of the box; the rest spread over decades.
    rng = np.random.default_rng(7)
    x0 = rng.integers(0, 2, 300).astype(np.float32)
    move = rng.normal(size=300) * 10.0 ** -rng.uniform(0, 4, 300)
    x = (x0 + far * move / np.abs(move).max()).astype(np.float32)
    eps = share * oracle.length("l2", np.clip(x, 0, 1) - x0)
    found = project("l2", eps, x0, x)
    gap = oracle.length("l2", found - oracle.project("l2", np.float32(eps), x0, x))
    assert gap <= 1e-5 * eps
    if far == 1e25:  # the oracle's bisection goes no further, and nothing changes any more
        further = project("l2", eps, x0, (x0 + 1e13 * (x - x0)).astype(np.float32))
        np.testing.assert_allclose(further, found, atol=1e-5)
    assert oracle.length("l2", found.astype(np.float64) - x0) <= eps * (1 + 4 * oracle.ULP)


@every_norm
@pytest.mark.parametrize("eps", [0.05, 0.4, 0.9])
def test_derivatives_of_the_projection_match_finite_differences(name, eps):
    rng = np.random.default_rng(3)
    x0, x, weights = rng.random(5), rng.normal(0.5, 0.7, 5), rng.normal(size=5)

    def score(e, point):
        return weights @ oracle.project(name, e, x0, point)

    h = 1e-6
    by_eps = (score(eps + h, x) - score(eps - h, x)) / (2 * h)
    by_x = [(score(eps, x + h * row) - score(eps, x - h * row)) / (2 * h) for row in np.eye(5)]
    found = compiled_slope(name)(jnp.float32(eps), jnp.float32(x), jnp.float32(x0), weights)
    np.testing.assert_allclose(found[0], by_eps, atol=2e-3)
    np.testing.assert_allclose(found[1], by_x, atol=2e-3)


@functools.cache
def compiled_slope(name):
    def score(eps, x, x0, weights):
        return jnp.sum(weights * NORMS[name].project(eps, x0, x))

    return jax.jit(jax.grad(score, argnums=(0, 1)))


@pytest.mark.slow_for("l1", "l2")
@every_norm
def test_no_derivative_is_nan(name):
    norm, x0 = NORMS[name], jnp.array([0.5, 0.5, 0.0, 1.0])

    def total(e, a, b):
        return jnp.sum(norm.project(e, a, b) ** 2) + norm.distance(a, b)

    slope = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    for x in (x0, jnp.full(4, 0.5), jnp.array([0.5, 0.6, 2.0, -3.0])):
        for eps in (0.0, 0.3, 9.0, np.inf):
            for gradient in slope(jnp.float32(eps), x0, x):
                assert np.isfinite(gradient).all(), (x, eps, gradient)
    twist = jax.jit(jax.grad(lambda g: jnp.sum(norm.direction(x0, g))))(jnp.zeros(4))
    assert np.isfinite(twist).all()


compiled_length = jax.jit(l2_length)


@given(values=hnp.arrays(np.float32, 5, elements=st.floats(-(2.0**60), 2.0**60, width=32)))
@example(values=np.full(5, 1e-30, np.float32))
@example(values=np.array([1e38, 1, 0, 0, 0], np.float32))
@example(values=np.full(5, -1.2e38, np.float32))
@quick
def test_l2_length_neither_overflows_nor_underflows(values):
    wanted = np.sqrt((values.astype(np.float64) ** 2).sum())
    # XLA on CPU rounds subnormal numbers to 0.
    found = compiled_length(jnp.asarray(values))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-37)


@every_norm
@pytest.mark.parametrize("scale", [1.0, 3e-25, 3e25, 2e38])
def test_direction_is_the_steepest_unit_move(name, scale):
    rng = np.random.default_rng(5)
    x = np.full(SHAPE, 0.5, np.float32)
    g = rng.uniform(-1.5, 1.5, size=SHAPE)
    d = compiled(name, "direction")(jnp.asarray(x), jnp.float32(g * scale))
    d = np.asarray(d, np.float64)
    assert oracle.length(name, d) == pytest.approx(1, rel=1e-6)
    assert np.sum(g * d) == pytest.approx(oracle.dual_length(name, g), rel=1e-6)


@every_norm
def test_direction_of_a_zero_gradient_is_zero(name):
    d = compiled(name, "direction")(jnp.full(SHAPE, 0.5), jnp.zeros(SHAPE))
    np.testing.assert_array_equal(d, np.zeros(SHAPE))


def test_l1_direction_sees_the_box_and_is_sparse():
    x = jnp.array([1.0, 0.0, 0.3, 0.7])
    blocked = jnp.array([9.0, -8.0, 1.0, -2.0])
    np.testing.assert_array_equal(compiled("l1", "direction")(x, blocked), [0, 0, 0, -1])
    # A hair off its face, where a projection leaves a pixel, is no room either.
    next_best = compiled("l1", "direction")(jnp.array([0.9999, 1e-7, 0.9, 0.0]), blocked)
    np.testing.assert_array_equal(next_best, [0, 0, 1, 0])
    nowhere = compiled("l1", "direction")(jnp.array([0.9999, 1e-7, 1.0, 0.0]), blocked)
    np.testing.assert_array_equal(nowhere, [0, 0, 0, 0])
    g = np.random.default_rng(0).normal(size=300).astype(np.float32)
    d = np.asarray(compiled("l1", "direction")(jnp.full(300, 0.5), jnp.asarray(g)))
    np.testing.assert_array_equal(np.flatnonzero(d), np.sort(np.argsort(-np.abs(g))[:3]))
    np.testing.assert_allclose(d[d != 0], np.sign(g[d != 0]) / 3)


@functools.cache
def draws(name, dimension=3, count=4000):
    keys = jax.random.split(jax.random.key(7), count)
    return np.asarray(jax.vmap(lambda k: NORMS[name].noise(k, (dimension,)))(keys), np.float64)


def is_distributed(values, distribution):
    return stats.kstest(values, distribution).pvalue > 1e-3


@pytest.mark.slow_for("l2")
@every_norm
def test_noise_fills_the_unit_ball_evenly(name):
    noise = draws(name)
    radius = np.array([oracle.length(name, row) for row in noise])
    assert radius.max() <= 1 + 1e-6
    # In n dimensions the share of a ball within r is r**n, whatever the norm.
    assert is_distributed(radius**3, stats.uniform.cdf)
    marginal = {
        "linf": stats.uniform(-1, 2).cdf,  # a cube
        "l2": lambda t: (2 + 3 * t - t**3) / 4,  # slices of a sphere of radius 1
        "l1": lambda t: 0.5 + 0.5 * np.sign(t) * (1 - (1 - np.abs(t)) ** 3),  # of an octahedron
    }[name]
    for axis in range(3):
        assert is_distributed(noise[:, axis], marginal)
    octants = np.bincount((noise > 0) @ [1, 2, 4], minlength=8)
    assert stats.chisquare(octants).pvalue > 1e-3


@every_norm
@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.4, 5.0, np.inf])
def test_samples_are_feasible_even_in_a_corner(name, eps):
    x0 = jnp.array([0.0, 1.0, 0.5, 0.9])
    keys = jax.random.split(jax.random.key(0), 64)
    x = np.asarray(compiled_samples(name)(keys, jnp.float32(eps), x0))
    assert x.min() >= 0
    assert x.max() <= 1
    far = max(oracle.length(name, row.astype(np.float64) - np.asarray(x0)) for row in x)
    assert far <= eps + oracle.tolerance(name, eps, 4)
    assert far == 0 if eps == 0 else far > 0.3 * min(eps, 1)


@functools.cache
def compiled_samples(name):
    return jax.jit(jax.vmap(NORMS[name].sample, (0, None, None)))


@pytest.mark.slow_for("l2")
@every_norm
def test_an_interior_sample_is_the_noise_times_eps(name):
    key, x0 = jax.random.key(3), jnp.full(4, 0.5)
    sample = compiled(name, "sample")(key, jnp.float32(0.2), x0)
    noise = jax.jit(NORMS[name].noise, static_argnums=1)(key, (4,))
    np.testing.assert_allclose(sample - x0, 0.2 * noise, atol=1e-6)


@pytest.mark.slow_for("l1", "l2")
@every_norm
def test_jit_and_vmap_change_nothing(name):
    rng = np.random.default_rng(2)
    x0 = rng.random((3, *SHAPE)).astype(np.float32)
    x = rng.normal(0.5, 1, x0.shape).astype(np.float32)
    norm, eps = NORMS[name], jnp.float32(0.3)
    x0, x = jnp.asarray(x0), jnp.asarray(x)
    rows = [norm.project(eps, a, b) for a, b in zip(x0, x, strict=True)]
    batch = jax.jit(jax.vmap(norm.project, (None, 0, 0)))(eps, x0, x)
    np.testing.assert_allclose(batch, np.stack(rows), atol=2e-7)
    rows = [norm.direction(a, b) for a, b in zip(x0, x, strict=True)]
    batch = jax.jit(jax.vmap(norm.direction))(x0, x)
    np.testing.assert_allclose(batch, np.stack(rows), atol=2e-7)


@pytest.mark.slow_for("bfloat16-l1", "bfloat16-l2")
@every_norm
@pytest.mark.parametrize("dtype", [jnp.bfloat16])
def test_half_precision_stays_half_precision_and_feasible(name, dtype):
    rng = np.random.default_rng(4)
    x0, x = jnp.asarray(rng.random(20), dtype), jnp.asarray(rng.normal(0.5, 1, 20), dtype)
    eps = jnp.float32(0.5)
    slack = oracle.length(name, np.full(20, float(jnp.finfo(dtype).eps)))
    made = compiled(name, "sample")(jax.random.key(0), eps, x0)
    for point in (compiled(name, "project")(eps, x0, x), made):
        assert point.dtype == dtype
        far = oracle.length(name, np.asarray(point, np.float64) - np.asarray(x0, np.float64))
        assert 0 < far <= 0.5 + slack
        assert float(point.min()) >= 0
        assert float(point.max()) <= 1
    assert compiled(name, "direction")(x0, x).dtype == dtype


@every_norm
@given(x0=pixels, noise=points, eps=st.floats(0, 4, width=32))
@example(x0=np.full(SHAPE, 1.0, np.float32), noise=np.full(SHAPE, 1.0, np.float32), eps=1.0)
@quick
def test_scaled_noise_has_exactly_the_norm_wanted(name, x0, noise, eps):
    run = compiled_scaling(name)
    found = np.asarray(run(jnp.float32(eps), jnp.asarray(x0), jnp.asarray(noise)))
    # Directions below a millionth of the largest are beyond float32's reach: leave them out.
    unit = noise / max(float(np.abs(noise).max()), 1e-30)
    reach = np.where(unit > 0, 1 - x0, np.where(unit < 0, x0, 0))
    farthest = oracle.length(name, reach)
    far = oracle.length(name, found.astype(np.float64) - x0)
    slack = 2e-6 * eps + 2 * oracle.tolerance(name, 0.0, x0.size)
    assert far <= eps + slack
    if np.all((unit == 0) | (np.abs(unit) > 1e-6)):
        assert far >= min(eps, farthest) - slack
    assert np.all((found - x0) * unit >= 0)


@functools.cache
def compiled_scaling(name):
    return jax.jit(lambda eps, x0, noise: scale_to_norm(NORMS[name], eps, x0, noise))
