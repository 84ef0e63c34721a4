"""Hyperplanes in the box: shortest moves against linear programs and bisection in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.optimize
from hypothesis import example, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from advfeat.threats.hyperplane import to_hyperplane, unbounded_distance
from advfeat.threats.norms import NORMS

SHAPE = (1, 2, 3)
every_norm = pytest.mark.parametrize("norm", oracle.NORMS)
quick = settings(max_examples=60, deadline=None, derandomize=True)

pixels = hnp.arrays(
    np.float32,
    SHAPE,
    elements=st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32)),
)
slopes = hnp.arrays(
    np.float32,
    SHAPE,
    elements=st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 2.0]),
        st.floats(-3, 3, width=32),
        st.floats(-(2.0**-10), 2.0**-10, width=32),
    ),
).map(lambda slope: np.where(np.abs(slope) < 1e-20, np.float32(0), slope))
# (Next to a slope of 1, one that float32 cannot square is none.)
# The value as a share of what the box allows at all, so that most hyperplanes meet it.
shares = st.one_of(st.sampled_from([0.0, 1e-4, 0.5, 2.0]), st.floats(2.0**-10, 1.5, width=32))
signs = st.sampled_from([-1.0, 1.0])


@functools.cache
def compiled(norm):
    return jax.jit(functools.partial(to_hyperplane, NORMS[norm]))


def move(norm, x, slope, value):
    found = compiled(norm)(jnp.float32(x), jnp.float32(slope), jnp.float32(value))
    return np.asarray(found.step, np.float64), bool(found.reached)


def float64(x, slope, value):
    return np.asarray(x, np.float64), np.asarray(slope, np.float64), float(np.float32(value))


def reach(x, slope, value):
    """The corner of the box where the affine function is nearest to the other sign, and how far
    it falls on the way there."""
    corner = np.where(slope * value > 0, 0.0, np.where(slope * value < 0, 1.0, x))
    return corner, -np.sign(value) * np.sum(slope * (corner - x))


def shortest(norm, x, slope, value):
    """The least length of d with value + <slope, d> = 0 and x + d in the box, which must exist."""
    d, w = x.size, slope.ravel()
    lows, highs = -x.ravel(), 1 - x.ravel()
    if norm == "l2":
        # The nearest point is clip(x - t * value * slope), which falls with t.
        low, high = 0.0, 1.0

        def fall(t):
            return np.sum(w * np.clip(-t * value * w, lows, highs)) + value

        while fall(high) * np.sign(value) > 1e-13 * abs(value) and high < 1e200:
            high *= 2
        for _ in range(300):
            middle = 0.5 * (low + high)
            short = fall(middle) * np.sign(value) > 0
            low, high = (middle, high) if short else (low, middle)
        return oracle.length("l2", np.clip(-high * value * w, lows, highs))
    # d and bounds on |d|: one per pixel for L1, one for all for L-infinity.
    bounds = np.eye(d) if norm == "l1" else np.ones((d, 1))
    count, scale = bounds.shape[1], np.abs(w).max()
    solved = scipy.optimize.linprog(
        np.r_[np.zeros(d), np.ones(count)],
        A_ub=np.block([[np.eye(d), -bounds], [-np.eye(d), -bounds]]),
        b_ub=np.zeros(2 * d),
        A_eq=np.r_[w / scale, np.zeros(count)][None],
        b_eq=[-value / scale],
        bounds=[*zip(lows, highs, strict=True), *[(0, None)] * count],
    )
    assert solved.success
    return solved.fun


@every_norm
@given(x=pixels, slope=slopes, share=shares, sign=signs)
@example(np.zeros(SHAPE, np.float32), -np.ones(SHAPE, np.float32), 0.5, 1.0)  # a tie of all
@example(np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32), 0.5, -1.0)  # no room at all
@quick
def test_the_move_is_the_shortest_within_the_box(norm, x, slope, share, sign):
    width = np.sum(np.abs(slope.astype(np.float64)))
    value = np.float32(sign * share * reach(*float64(x, slope, sign))[1])
    step, reached = move(norm, x, slope, value)
    x, slope, value = float64(x, slope, value)
    corner, room = reach(x, slope, value)
    assert np.isfinite(step).all()
    assert (x + step).min() >= -1e-7
    assert (x + step).max() <= 1 + 1e-7
    assert (step[slope == 0] == 0).all()
    if abs(abs(value) - room) > 1e-6 * width:
        assert reached == (abs(value) <= room)
    if not reached:
        np.testing.assert_allclose(x + step, corner, atol=1e-6)
        return
    assert abs(value + np.sum(slope * step)) <= 1e-6 * max(width, abs(value))
    # As long as the shortest one for a value next to this one: near the corner of the box, where
    # only flat pixels are left, a rounding of the value is a long way.
    length = oracle.length(norm, step)
    less, more = (value + np.sign(value) * rounding for rounding in (-2e-6 * width, 2e-6 * width))
    if less * value > 0:
        assert length >= shortest(norm, x, slope, less) * (1 - 1e-5)
    if 0 < abs(more) < room:
        assert length <= shortest(norm, x, slope, more) * (1 + 1e-5)


@every_norm
def test_it_is_exact_for_large_images_with_uneven_slopes(norm):
    rng = np.random.default_rng(0)
    for spread in (0.0, 1.0, 3.0):
        x = np.clip(rng.uniform(-0.5, 1.5, 3072), 0, 1).astype(np.float32)
        slope = (rng.normal(size=3072) * np.exp(spread * rng.normal(size=3072))).astype(np.float32)
        for share in (1e-4, 0.03, 0.5, 0.98):
            value = np.float32(-share * reach(*float64(x, slope, -1.0))[1])
            step, reached = move(norm, x, slope, value)
            assert reached
            wide = float64(x, slope, value)
            assert np.sum(wide[1] * step) == pytest.approx(-wide[2], rel=2e-6)
            if norm == "l2":
                assert oracle.length(norm, step) == pytest.approx(shortest(norm, *wide), rel=1e-5)
                continue
            size, room = np.abs(wide[1]), np.where(slope > 0, 1 - wide[0], wide[0])
            moved = np.abs(step)
            if norm == "linf":  # whoever has moved less has no room left
                free = (moved < room - 1e-7) & (size > 0)
                np.testing.assert_allclose(moved[free], moved.max(), rtol=1e-5)
            else:  # whoever is flatter than one that has room left has not moved
                partly = (moved > 0) & (moved < room - 1e-7)
                assert partly.sum() <= 1
                steepest_left = size[moved < room - 1e-7].max()
                assert (moved[size < steepest_left] == 0).all()


@every_norm
def test_the_scale_of_the_network_does_not_matter(norm):
    x = np.float32([0.2, 0.9, 0.5, 0.0])
    slope = np.float32([1.0, -3.0, 0.5, 2.0])
    wanted, _ = move(norm, x, slope, 0.4)
    for scale in (1e-30, 1e-6, 1e6, 1e30):
        found, reached = move(norm, x, slope * np.float32(scale), 0.4 * scale)
        assert reached
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    # Flat to next to nothing, and as far as ever: out of reach, so into the corner.
    found, reached = move(norm, x, slope * np.float32(1e-30), 0.4)
    assert not reached
    np.testing.assert_allclose(x + found, [0, 1, 0, 0], atol=1e-7)


@every_norm
def test_slopes_that_say_nothing_move_nothing(norm):
    x = np.float32([0.2, 0.9, 0.5])
    for bad in (0.0, np.nan, np.inf):
        step, reached = move(norm, x, np.float32([bad] * 3), -0.3)
        assert not reached
        np.testing.assert_array_equal(step, 0)
    step, reached = move(norm, x, np.zeros(3), 0.0)
    assert reached
    np.testing.assert_array_equal(step, 0)
    step, reached = move(norm, x, np.ones(3), np.nan)
    assert not reached
    np.testing.assert_array_equal(step, 0)
    step, reached = move(norm, x, np.ones(3), -np.inf)
    assert not reached
    np.testing.assert_allclose(x + step, 1)


@pytest.mark.slow_for("linf")
@every_norm
def test_it_works_on_batches_as_on_one(norm):
    rng = np.random.default_rng(1)
    x, slope = rng.uniform(size=(2, 5, *SHAPE)).astype(np.float32)
    slope -= 0.5
    value = np.float32(rng.normal(size=5) * 0.3)
    batched = jax.vmap(functools.partial(to_hyperplane, NORMS[norm]))(x, slope, value)
    for i in range(5):
        step, reached = move(norm, x[i], slope[i], value[i])
        np.testing.assert_allclose(batched.step[i], step, atol=1e-7)
        assert bool(batched.reached[i]) == reached


@pytest.mark.slow_for("l1")
@every_norm
def test_without_the_box_the_distance_is_that_of_the_dual_norm(norm):
    rng = np.random.default_rng(2)
    x, slope = np.full(SHAPE, 0.5), rng.normal(size=SHAPE).astype(np.float32)
    wanted = 0.1 / oracle.dual_length(norm, slope)
    found = unbounded_distance(NORMS[norm], jnp.asarray(slope), jnp.float32(-0.1))
    assert float(found) == pytest.approx(wanted, rel=1e-6)
    # Well inside the box, the move there is as long.
    assert oracle.length(norm, move(norm, x, slope, 0.1)[0]) == pytest.approx(wanted, rel=1e-5)
    for bad in (0.0, np.inf, np.nan):
        flat = jnp.full(SHAPE, bad, jnp.float32)
        assert float(unbounded_distance(NORMS[norm], flat, jnp.float32(1.0))) == np.inf
