"""FAB: each iterate against NumPy float64, exact distances on linear models in every norm."""

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

every_norm = pytest.mark.parametrize("norm", oracle.NORMS)
SHORT = {
    "fab": functools.partial(advfeat.fab, steps=4),
    "fab_targeted": functools.partial(advfeat.fab_targeted, steps=4, targets=3),
}
CASES = [("fab", norm) for norm in oracle.NORMS] + [("fab_targeted", "l2")]
ALPHA_MAX, ETA, BETA = 0.3, 1.1, 0.8  # unlike the defaults, and so that each of them matters


# --- Every iterate. -------------------------------------------------------------------------------


def shortest(norm, x, slope, value):
    """The shortest d with value + <slope, d> = 0 and x + d in the box; else into the corner."""
    towards, size = -np.sign(value) * np.sign(slope), np.abs(slope)
    room = np.where(slope == 0, 0.0, np.where(towards > 0, 1 - x, x))
    if np.sum(size * room) < abs(value):
        return towards * room, False
    if norm == "l1":
        moved, left = np.zeros(x.size), abs(value)
        for i in np.argsort(-size.ravel()):
            moved[i] = min(room.ravel()[i], left / size.ravel()[i])
            left -= moved[i] * size.ravel()[i]
        return towards * moved.reshape(x.shape), True
    unit = np.ones_like(size) if norm == "linf" else size
    low, high = 0.0, float(np.max(room / unit))
    for _ in range(100):
        middle = 0.5 * (low + high)
        short = np.sum(size * np.minimum(middle * unit, room)) < abs(value)
        low, high = (middle, high) if short else (low, middle)
    return towards * np.minimum(high * unit, room), True


def leads_and_slopes(x, y):
    """Of the smooth network: how far each other class differences, and the gradients of that."""
    z, h = nearest.NET.logits(x), np.tanh(nearest.NET.u @ np.asarray(x, np.float64).ravel())
    others = [k for k in range(nearest.CLASSES) if k != y]
    rows = [(nearest.NET.v[k] - nearest.NET.v[y]) * (1 - h**2) for k in others]
    return {
        k: (z[k] - z[y], (nearest.NET.u.T @ row).reshape(x.shape))
        for k, row in zip(others, rows, strict=True)
    }


def reference(norm, x0, y, *, steps, target=None):
    """Algorithm 1: its iterates, and how far the nearest adversarial point is that it has seen."""
    x0 = np.asarray(x0, np.float64)
    trail, found = [x0], np.inf

    def note(point):
        fooled = max(lead for lead, _ in leads_and_slopes(point, y).values()) > 0
        return fooled, min(found, oracle.length(norm, point - x0)) if fooled else found

    for _ in range(steps):
        x = trail[-1]
        _, found = note(x)
        planes = leads_and_slopes(x, y)
        ways = {k: shortest(norm, x, slope, value) for k, (value, slope) in planes.items()}
        far = {k: oracle.length(norm, d) for k, (d, reached) in ways.items() if reached}
        if not far:  # as if there were no box
            far = {k: abs(value) / oracle.dual_length(norm, w) for k, (value, w) in planes.items()}
        chosen = min(far, key=far.get) if target is None else target
        value, slope = planes[chosen]
        here = ways[chosen][0]
        there, _ = shortest(norm, x0, slope, value + np.sum(slope * (x0 - x)))
        near, away = oracle.length(norm, here), oracle.length(norm, there)
        alpha = min(near / (near + away), ALPHA_MAX)
        x = np.clip((1 - alpha) * (x + ETA * here) + alpha * (x0 + ETA * there), 0, 1)
        fooled, found = note(x)
        trail.append(x0 + BETA * (x - x0) if fooled else x)
    return trail, found


def check_iterates(norm, attack, x, y, index, wanted):
    """Of a batch: that the runs are those of `reference`."""
    x, y, index = jnp.asarray(x), jnp.asarray(y), jnp.asarray(index)
    begin = jax.vmap(attack.init, (None, None, 0, 0, 0))
    run = jax.jit(begin)(nearest.KEY, nearest.SMOOTH, x, y, index)
    step = jax.jit(jax.vmap(attack.step, (None, 0)))
    trails, found = zip(*wanted, strict=True)
    for count, points in enumerate(zip(*trails, strict=True)):
        run = run if count == 0 else step(nearest.SMOOTH, run)
        np.testing.assert_allclose(
            run.search.x, np.stack(points), atol=1e-4, err_msg=f"iterate {count}"
        )
        assert set(np.asarray(run.search.step)) == {count}
    np.testing.assert_array_equal(run.search.nearest.success, np.isfinite(found))
    np.testing.assert_allclose(
        np.where(run.best.success, run.best.distance, np.inf), found, atol=1e-4
    )


@pytest.mark.slow_for("l1", "l2")
@every_norm
def test_every_iterate_is_that_of_numpy(norm):
    attack = advfeat.fab(
        advfeat.threat_model(norm, np.inf), steps=6, alpha_max=ALPHA_MAX, eta=ETA, beta=BETA
    )
    x, y = nearest.smooth_images()
    wanted = [reference(norm, *pair, steps=6) for pair in zip(x, y, strict=True)]
    assert any(np.isfinite(found) for _, found in wanted)
    check_iterates(norm, attack, x, y, [0] * len(x), wanted)


@pytest.mark.slow
def test_every_targeted_iterate_is_that_of_numpy():
    attack = advfeat.fab_targeted(
        advfeat.l2(), steps=6, targets=3, alpha_max=ALPHA_MAX, eta=ETA, beta=BETA
    )
    x, y = (np.stack([both[1]] * 3) for both in nearest.smooth_images())
    order = [k for k in np.argsort(-nearest.NET.logits(x[0])) if k != y[0]]
    wanted = [reference("l2", x[0], y[0], steps=6, target=target) for target in order]
    check_iterates("l2", attack, x, y, [0, 1, 2], wanted)


# --- Linear models: the nearest point is known, the box included. ---------------------------------


@pytest.mark.slow_for("fab-l2", "fab-linf", "fab_targeted-l2")
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_it_finds_the_nearest_point_of_linear_models(name, norm):
    attack = SHORT[name](advfeat.threat_model(norm, np.inf))
    for corners, apart in ((False, 1.5), (True, 1.0)):
        model, x, y = nearest.problem(2, corners=corners, apart=apart)
        found = nearest.attacked(attack, model, x, y)
        nearest.check_record(norm, np.inf, found, model, x, y)
        assert found.best.success.all()
        wanted = nearest.nearest(norm, model, x, y)
        # Without the final search the overshoot alone would leave 5 per cent.
        np.testing.assert_allclose(found.best.distance / wanted, 1, atol=1e-3)
        assert np.median(found.best.distance / wanted) < 1.00005


@pytest.mark.slow
def test_the_contract_of_minimum_norm_attacks():
    nearest.check_contract("linf", SHORT["fab"])


@pytest.mark.slow
def test_the_targeted_form_at_what_is_wrong_flat_or_broken():
    model, x, y = nearest.problem(11)
    attack = SHORT["fab_targeted"](advfeat.l2())
    wrong = nearest.attacked(attack, model, x, (y + 1) % nearest.CLASSES).best
    assert wrong.success.all()
    np.testing.assert_array_equal(wrong.x, x)
    weights, bias = model.args[0]
    # The label is what is predicted: of NaN, the first class.
    for params, label in (((0 * weights, jnp.arange(4.0)), 3), ((np.nan * weights, bias), 0)):
        stuck = jax.tree_util.Partial(nearest.affine, params)
        found = nearest.attacked(attack, stuck, x, np.full(len(x), label))
        assert not found.best.success.any()
        np.testing.assert_array_equal(found.best.x, x)
        assert np.isfinite(found.last.x).all()


@pytest.mark.slow
@given(seed=st.integers(0, 99), eps=st.sampled_from([0.0, 0.05, 0.3, 2.0, np.inf]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_what_it_claims_is_true(seed, eps):
    for norm in oracle.NORMS:
        found = nearest.check_claims(norm, SHORT["fab"](advfeat.threat_model(norm, eps)), seed)
        assert set(found.queries) == {14}
        assert set(found.gradients) == {12}


def test_iterates_beyond_eps_may_lead_back_into_it():
    # The overshoot passes eps, and only the final search comes back.
    model, x, y = nearest.problem(7)
    wanted = nearest.nearest("l2", model, x, y)
    for i in range(3):
        eps = 1.002 * wanted[i]
        attack = SHORT["fab"](advfeat.l2(eps), eta=1.05, beta=1.0)
        best = nearest.attacked(attack, model, x, y).best
        assert best.success[i]
        assert best.distance[i] <= eps


# --- Rounds. --------------------------------------------------------------------------------------


@every_norm
def test_restarts_begin_half_of_eps_away(norm):
    x = jnp.full(nearest.SHAPE, 0.5)
    default = {"linf": 0.3, "l2": 1.0, "l1": 5.0}[norm]
    begin = jax.jit(
        lambda eps, index: (
            advfeat.fab(advfeat.threat_model(norm, eps), restarts=3)
            .init(nearest.KEY, nearest.SMOOTH, x, jnp.int32(0), index)
            .search.x
        )
    )
    for eps in (0.0, 0.2, np.inf):
        starts = [np.asarray(begin(jnp.float32(eps), jnp.int32(i)), np.float64) for i in range(3)]
        np.testing.assert_array_equal(starts[0], x)
        wanted = 0.5 * (default if np.isinf(eps) else eps)
        for start in starts[1:]:
            assert oracle.length(norm, start - 0.5) == pytest.approx(wanted, rel=1e-5, abs=1e-7)
        if eps:
            assert np.abs(starts[1] - starts[2]).max() > 1e-3
            offsets = np.stack(starts[1:]) - 0.5
            assert 0.2 < np.mean(offsets > 0) < 0.8
    wide = np.asarray(begin(jnp.float32(50.0), jnp.int32(1)))
    assert wide.min() >= 0
    assert wide.max() <= 1


def test_rounds_go_over_all_targets_before_the_next_restart():
    attack = advfeat.fab_targeted(advfeat.linf(0.2), targets=3, restarts=2)
    assert attack.rounds == 6
    x, y = (jnp.asarray(both[0]) for both in nearest.smooth_images())
    order = [k for k in np.argsort(-nearest.NET.logits(x)) if k != y]
    begin = jax.jit(attack.init)
    runs = [begin(nearest.KEY, nearest.SMOOTH, x, y, jnp.int32(i)) for i in range(6)]
    assert [int(run.aim[1]) for run in runs] == [*order, *order]
    assert [bool((run.search.x == x).all()) for run in runs] == [True] * 3 + [False] * 3
    assert [int(run.queries) for run in runs] == [1] * 6


@pytest.mark.slow
def test_survivors_have_the_same_verdicts():
    model, x, y = nearest.problem(4)
    eps = float(np.median(nearest.nearest("l2", model, x, y)))
    attack = SHORT["fab_targeted"](advfeat.l2(1.001 * eps))
    whole = nearest.attacked(attack, model, x, y).best
    stopped = advfeat.attack_survivors(nearest.KEY, attack, model, x, y, batch_size=4).best
    np.testing.assert_array_equal(stopped.success, whole.success)
    assert 0 < whole.success.sum() < len(x)


@pytest.mark.slow_for("attack1-22-4")
@pytest.mark.parametrize(
    ("attack", "queries", "gradients"),
    [
        (advfeat.fab(advfeat.linf(0.1), steps=3), 12, 3 * 2),
        (advfeat.fab_targeted(advfeat.l2(), steps=2, targets=2), 2 * 11, 2 * 2),
    ],
)
def test_counts_are_those_of_the_passes_really_made(attack, queries, gradients):
    made, said = passes.made_and_said(
        attack,
        nearest.KEY,
        lambda x: jnp.stack([2.0, 1.0, 0.5]) * jnp.sum(x),
        jnp.full((2, 2, 1), 0.5),
    )
    assert made == said == (queries, gradients)


# --- Arguments. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [advfeat.fab, advfeat.fab_targeted])
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"restarts": 0}, "restarts must be a whole number >= 1, got 0"),
        ({"alpha_max": 1.5}, r"alpha_max must lie in \[0, 1\], got 1.5"),
        ({"beta": -0.1}, r"beta must lie in \[0, 1\], got -0.1"),
        ({"beta": np.nan}, r"beta must lie in \[0, 1\], got nan"),
        ({"eta": 0.9}, "eta must be a number >= 1, got 0.9"),
        ({"eta": np.inf}, "eta must be a number >= 1, got inf"),
    ],
)
def test_bad_options_are_named(make, options, match):
    with pytest.raises(ValueError, match=match):
        make(advfeat.l2(1.0), **options)


def test_bad_targets_are_named():
    with pytest.raises(ValueError, match="targets must be a whole number >= 1, got 0"):
        advfeat.fab_targeted(advfeat.l2(1.0), targets=0)
    attack = advfeat.fab_targeted(advfeat.l2(1.0), targets=4)
    x = jnp.full(nearest.SHAPE, 0.5)
    with pytest.raises(ValueError, match="targets must be at most 3 for 4 classes, got 4"):
        attack(nearest.KEY, nearest.SMOOTH, x, 0)
