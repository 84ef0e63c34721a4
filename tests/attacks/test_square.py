"""The Square attack against the paper's formulas in NumPy, given the same draws."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import advfeat
from advfeat.attacks import square_l2_l1
from advfeat.attacks.square import SCHEDULE, side
from advfeat.types import Evaluation

KEY = jax.random.key(0)
EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0}
every_norm = pytest.mark.parametrize("norm", oracle.NORMS)


def picture(seed, shape, low=0.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def affine(params, x):
    weights, bias = params
    return weights @ x.ravel() + bias


def linear(seed, shape, lead=-20.0):
    """Two classes, label 0; `lead` of class 1 at the grey image. Returns the slope of the lead."""
    slope = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    weights = jnp.stack([jnp.zeros(slope.size), jnp.asarray(slope.ravel())])
    bias = jnp.float32([0.0, lead - 0.5 * slope.sum(dtype=np.float64)])
    return jax.tree_util.Partial(affine, (weights, bias)), slope.astype(np.float64)


# --- The paper, in NumPy. -------------------------------------------------------------------------


def paper_p(p, it):
    """Section 4.1 for 10,000 candidates, as the authors' `p_selection` counts them."""
    for factor, last in zip(
        (1, 2, 4, 8, 16, 32, 64, 128, 256),
        (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000),
        strict=True,
    ):
        if it <= last:
            return p / factor
    return p / 512


def paper_side(p, it, shape, norm):
    wanted = round(np.sqrt(paper_p(p, it) * shape[0] * shape[1]))
    if norm == "linf":
        return min(max(wanted, 1), *shape[:2])
    wanted = max(wanted, 3)
    return min(wanted + (wanted + 1) % 2, *shape[:2])


def paper_rectangle(height, width, norm):
    """Equation 2, as what it is: squares around the middle, of falling heights, added up."""
    hill = np.zeros((height, width))
    for k in range(max(height, width) // 2 + 1):
        rows = slice(max(height // 2 - k, 0), height // 2 + k + 1)
        columns = slice(max(width // 2 - k, 0), width // 2 + k + 1)
        hill[rows, columns] += 1 / (k + 1) ** (2 if norm == "l2" else 4)
    return hill / max(oracle.length(norm, hill), 1e-300) if hill.size else hill


def paper_bump(size, norm, sideways):
    half = size // 2
    bump = np.concatenate(
        [paper_rectangle(half, size, norm), -paper_rectangle(size - half, size, norm)]
    )
    bump /= oracle.length(norm, bump)
    return bump.T if sideways else bump


def lengths(norm, d):
    return np.array([oracle.length(norm, d[:, :, c]) if d.size else 0 for c in range(d.shape[2])])


def paper_candidate(norm, eps, x0, kept, size, draw):
    """Algorithms 2 and 3 in float64, given where things lie."""
    x0, kept = np.asarray(x0, np.float64), np.asarray(kept, np.float64)
    place, donor, way, sign = (np.asarray(part, np.float64) for part in draw)
    room = np.array(x0.shape[:2]) - size + 1
    (r, c), (r2, c2) = (np.floor(u * room).astype(int) for u in (place, donor))
    one, two = np.s_[r : r + size, c : c + size], np.s_[r2 : r2 + size, c2 : c2 + size]
    sign = np.where(sign < 0.5, 1.0, -1.0)
    if norm == "linf":
        for signs in (sign, -sign):
            new = kept.copy()
            new[one] = np.clip(x0[one] + eps * signs, 0, 1)
            if np.abs(new - kept).max() > 1e-6:
                break
        return new
    q, channels = (2 if norm == "l2" else 1), x0.shape[2]
    move = kept - x0
    either = np.zeros(x0.shape)
    either[one], either[two] = 1, 1
    unspent = max(eps**q - oracle.length(norm, move) ** q, 0)
    budget = (unspent / channels + lengths(norm, move * either) ** q) ** (1 / q)
    old, old_length = move[one], lengths(norm, move[one])
    new = paper_bump(size, norm, way < 0.5)[:, :, None] * sign
    new = new + np.divide(old, old_length, out=np.zeros_like(old), where=old_length > 0)
    new *= budget * (channels if norm == "l1" else 1) / lengths(norm, new)
    move[two] = 0
    move[one] = new
    if norm == "l2":
        return np.clip(x0 + eps * move / oracle.length("l2", move), 0, 1)
    boxed = np.clip(x0 + move, 0, 1) - x0
    low, high = 0.0, np.abs(boxed).max()
    for _ in range(60):  # the soft threshold that leaves a norm of eps
        middle = (low + high) / 2
        too_much = np.maximum(np.abs(boxed) - middle, 0).sum() > eps
        low, high = (middle, high) if too_much else (low, middle)
    threshold = high if np.abs(boxed).sum() > eps else 0.0
    return x0 + np.sign(boxed) * np.maximum(np.abs(boxed) - threshold, 0)


# --- The square and the bump. ---------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("shape", "period"),
    [((8, 8, 1), SCHEDULE), ((32, 32, 3), SCHEDULE), ((20, 30, 3), 37), ((28, 28, 1), 5000)],
)
def test_the_side_follows_the_schedule(shape, period, norm):
    counts = np.arange(SCHEDULE)
    rule = functools.partial(side, shape=shape, period=period, odd=norm != "linf")
    found = jax.jit(jax.vmap(jax.vmap(rule, (None, 0)), (0, None)))
    ps = np.float32([0.05, 0.3, 0.8, 1.0])
    for p, sides in zip(ps, found(ps, counts), strict=True):
        wanted = [paper_side(float(p), n * SCHEDULE // period, shape, norm) for n in counts]
        np.testing.assert_array_equal(sides, wanted)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_bump_is_the_papers(norm):
    shape = (11, 9, 3)

    @jax.jit
    def bump(row, column, size, sideways):
        return square_l2_l1.bump(
            square_l2_l1.GEOMETRIES[norm], shape, (row, column), size, sideways
        )[:, :, 0]

    for size in range(1, 10):
        for row, column in ((0, 0), (11 - size, 9 - size), ((11 - size) // 2, 0)):
            for sideways in (False, True):
                wanted = np.zeros(shape[:2])
                wanted[row : row + size, column : column + size] = paper_bump(size, norm, sideways)
                found = bump(row, column, size, sideways)
                np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_squares_reach_every_place_alike():
    shape = (6, 4, 1)
    keys = jax.random.split(KEY, 4000)
    draws = jax.vmap(lambda key: square_l2_l1.draw(key, 1))(keys)
    corner = jax.jit(jax.vmap(functools.partial(square_l2_l1.corner, shape), (None, 0)))
    for size in (1, 3, 4):
        for field in (draws.place, draws.donor):
            rows, columns = corner(size, field)
            for found, places in ((rows, 6 - size + 1), (columns, 4 - size + 1)):
                share = np.bincount(found, minlength=places) / 4000
                assert share.size == places
                np.testing.assert_allclose(share, 1 / places, atol=0.035)
    assert np.corrcoef(np.concatenate([draws.place, draws.donor], 1).T)[
        np.triu_indices(4, 1)
    ] == pytest.approx(0, abs=0.07)


# --- One proposal, and the ladder. ----------------------------------------------------------------


PERIOD = 60


@functools.cache
def compiled(norm, shape):
    """A search's beginning and its move; the scores come from outside."""
    del shape

    def of(eps):
        threat = dataclasses.replace(advfeat.threat_model(norm, 1.0), eps=eps)
        return advfeat.square(threat, steps=PERIOD, p=jnp.float32(0.8), rescale_schedule=True)

    def init(eps, key, x0):
        attack = of(eps)
        start, _ = attack.start(key, None, x0, 0, 0)
        return attack.first(key, x0, start)

    def update(eps, state, score, success):
        return of(eps).update(state, Evaluation(score, success, None))

    return jax.jit(init), jax.jit(update)


def search(norm, eps, x0):
    """The state after the example was looked at, and how to go on with a score."""
    init, update = compiled(norm, x0.shape)
    eps = jnp.float32(eps)

    def go_on(state, score, success=False):
        return update(eps, state, jnp.float32(score), success)

    return init(eps, KEY, x0), go_on


COLOUR, GREYSCALE = (8, 7, 3), (5, 5, 1)
EVERYWHERE = [("linf", COLOUR), ("l2", COLOUR), ("l1", COLOUR), ("l1", GREYSCALE)]


@pytest.mark.slow_for("l1-shape3")
@pytest.mark.parametrize(("norm", "shape"), EVERYWHERE)
def test_every_candidate_is_the_papers(norm, shape):
    rng = np.random.default_rng(1)
    x0, eps = picture(0, shape), EPS[norm]
    state, go_on = search(norm, eps, x0)
    start = np.asarray(state.kept)
    np.testing.assert_array_equal(state.x, x0)
    state = go_on(state, 9.0)
    np.testing.assert_array_equal(state.x, start)
    kept, best = start, -np.inf
    key = jax.random.fold_in(KEY, 2**31 - 1)
    moved = 0
    for count in range(1, 45):
        score = np.float32(rng.normal() + 0.05 * count)
        if score > best:
            kept, best = np.asarray(state.x), score
        state = go_on(state, score)
        np.testing.assert_array_equal(state.kept, kept)
        draw = square_l2_l1.draw(jax.random.fold_in(key, count), shape[2])
        size = paper_side(0.8, (count - 1) * SCHEDULE // PERIOD, shape, norm)
        wanted = paper_candidate(norm, eps, x0, kept, size, draw)
        np.testing.assert_allclose(state.x, wanted, atol=1e-3 if norm == "l1" else 2e-5)
        moved += np.abs(state.x - kept).max() > 1e-3
        assert int(state.step) == count + 1
    assert moved > 25, moved


@pytest.mark.slow_for("l1-shape3")
@pytest.mark.parametrize(("norm", "shape"), EVERYWHERE)
def test_every_candidate_lies_in_the_threat_model(norm, shape):
    rng = np.random.default_rng(2)
    for seed, eps in enumerate((0.0, 1e-20, 1e-3, 0.03, 0.5, 3.0, np.inf)):
        x0 = picture(seed, shape)
        x0[:2] = np.round(x0[:2])
        state, go_on = search(norm, eps, x0)
        points, scores = [], []
        for count in range(PERIOD):
            state = go_on(state, rng.normal() + 0.02 * count)
            points.append(np.asarray(state.x))
            scores.append(float(state.score))
        points = np.stack(points)
        assert points.dtype == np.float32
        assert points.min() >= 0
        assert points.max() <= 1
        far = np.array([oracle.length(norm, point.astype(np.float64) - x0) for point in points])
        # As if there were few values, however many there are.
        assert np.all(far <= eps + oracle.tolerance(norm, eps, 6))
        threat = advfeat.threat_model(norm, eps)
        assert within(threat, x0, points).all()
        assert np.all(np.diff(scores[1:]) >= 0)
        if 1e-3 <= eps <= 0.5:
            assert np.median(far) > 0.5 * eps
        if eps == 0:
            np.testing.assert_array_equal(points, np.broadcast_to(x0, points.shape))


@jax.jit
def within(threat, x0, points):
    return jax.vmap(threat.contains, (None, 0))(x0, points)


def test_the_ladder():
    state, go_on = search("linf", 0.25, np.full(COLOUR, 0.5, np.float32))
    start = state.kept
    # The start is kept although the example scored more: the search must leave the example.
    state = go_on(go_on(state, 5.0), -3.0)
    np.testing.assert_array_equal(state.kept, start)
    assert float(state.score) == -3.0
    for score in (-3.0, -4.0, np.nan, -np.inf):
        state = go_on(state, score)
        np.testing.assert_array_equal(state.kept, start)
        assert float(state.score) == -3.0
    higher = go_on(state, -2.0)
    np.testing.assert_array_equal(higher.kept, state.x)
    assert not go_on(higher, np.nan, True).success
    # Success counts for more than a score, and ends the search, also before a higher score.
    there = go_on(higher, -7.0, True)
    np.testing.assert_array_equal(there.kept, higher.x)
    for score, success in ((8.0, False), (-8.0, True), (np.nan, True)):
        np.testing.assert_array_equal(there.x, higher.x)
        there = go_on(there, score, success)


def test_an_example_that_is_wrong_already_ends_the_search():
    x0 = np.full(COLOUR, 0.5, np.float32)
    state, go_on = search("linf", 0.25, x0)
    state = go_on(go_on(state, -1.0, True), 4.0, True)
    np.testing.assert_array_equal(state.x, x0)


def test_a_start_of_nan_is_searched_from_all_the_same():
    state, go_on = search("linf", 0.25, np.full(COLOUR, 0.5, np.float32))
    state = go_on(go_on(state, 0.0), np.nan)
    first = state.x
    np.testing.assert_array_equal(go_on(state, -50.0).kept, first)


def test_a_candidate_always_changes_something():
    # Late in the search squares are one pixel: without a second look half of them change nothing.
    state, go_on = search("linf", 0.25, np.full(GREYSCALE, 0.5, np.float32))
    for count in range(80):
        state = go_on(state, -count)
        if count > 1:
            assert np.abs(state.x - state.kept).max() == 0.5


# --- Starts. --------------------------------------------------------------------------------------


def starts(norm, x, eps, count=64):
    attack = advfeat.square(advfeat.threat_model(norm, eps), steps=1)
    draw = jax.jit(jax.vmap(lambda key: attack.start(key, None, jnp.asarray(x), 0, 0)[0]))
    return np.asarray(draw(jax.random.split(KEY, count)))


def test_the_start_is_stripes_in_linf():
    found = starts("linf", np.full((6, 5, 3), 0.5, np.float32), 0.1)
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1], found.shape))
    signs = (found[:, 0] - 0.5) / 0.1
    np.testing.assert_allclose(np.abs(signs), 1, atol=1e-6)
    assert np.mean(signs > 0) == pytest.approx(0.5, abs=0.06)
    assert len({row.tobytes() for row in signs}) == 64


@pytest.mark.parametrize("shape", [(13, 11, 3), (4, 3, 2)])
def test_the_start_is_a_grid_of_bumps_in_l2(shape):
    x = np.full(shape, 0.5, np.float32)
    found = (starts("l2", x, 0.2).astype(np.float64) - 0.5) / 0.2
    np.testing.assert_allclose([oracle.length("l2", d) for d in found], 1, rtol=1e-5)
    tile = max(min(shape[:2]) // 5, 1)
    rows, columns = shape[0] // tile, shape[1] // tile
    top, left = (shape[0] - rows * tile) // 2, (shape[1] - columns * tile) // 2
    tiles = found[:, top : top + rows * tile, left : left + columns * tile]
    assert np.abs(found).sum() == pytest.approx(np.abs(tiles).sum())
    tiles = tiles.reshape(64, rows, tile, columns, tile, shape[2])
    tiles = tiles.transpose(0, 1, 3, 5, 2, 4).reshape(-1, tile, tile)
    tiles = tiles * np.sqrt(rows * columns * shape[2])
    kinds = [s * paper_bump(tile, "l2", way) for way in (False, True) for s in (1, -1)]
    far = np.array([np.abs(tiles - kind).max((1, 2)) for kind in kinds])
    assert far.min(0).max() < 1e-5
    share = np.bincount(far.argmin(0), minlength=4) / len(tiles)
    if tile == 1:  # a bump of one pixel lies no way
        share = np.array([share[0] + share[2], share[1] + share[3]])
    np.testing.assert_allclose(share, 1 / share.size, atol=0.05)


@pytest.mark.slow
def test_the_start_in_l1_is_what_a_threshold_leaves_of_the_bumps():
    x = np.full((20, 20, 3), 0.5, np.float32)
    found = starts("l1", x, 4.0).astype(np.float64) - 0.5
    np.testing.assert_allclose(np.abs(found).sum((1, 2, 3)), 4.0, rtol=1e-5)
    moved = np.abs(found) > 0
    assert 0.02 < moved.mean() < 0.3
    # Every bump of 25 has kept something of its hill and of its hollow.
    tiles = found.reshape(64, 5, 4, 5, 4, 3)
    assert (tiles.max((2, 4)) > 0).all()
    assert (tiles.min((2, 4)) < 0).all()


# --- Closed forms, counts, ends. ------------------------------------------------------------------

SHAPE = (6, 6, 2)
GREY = np.full(SHAPE, 0.5, np.float32)
WEAK = {"linf": 0.1, "l2": 0.3, "l1": 0.3}


@jax.jit
def attacked(attack, model, x, y=0):
    keys = jax.random.split(KEY, 12)
    return jax.vmap(attack, (0, None, None, None))(keys, model, x, y)


def searched(norm, model, x=GREY, eps=None, **options):
    threat = advfeat.threat_model(norm, WEAK[norm] if eps is None else eps)
    return attacked(advfeat.square(threat, steps=1200, rescale_schedule=True, **options), model, x)


@pytest.mark.slow
def test_linf_finds_the_worst_corner_of_a_linear_model():
    x = picture(0, SHAPE)
    model, slope = linear(0, SHAPE)
    found = np.asarray(searched("linf", model, x).best.x, np.float64)
    worst = np.where(slope > 0, np.minimum(x + np.float32(0.1), 1), np.maximum(x - 0.1, 0))
    gained = ((found - x) * slope).sum((1, 2, 3)) / np.sum(slope * (worst - x))
    assert gained.min() > 0.95
    assert np.mean(gained > 1 - 1e-5) > 0.3  # reached exactly


@pytest.mark.slow_for("l1-0.7", "l2-0.5")
@pytest.mark.parametrize(("norm", "share"), [("linf", 0.99), ("l2", 0.5), ("l1", 0.7)])
def test_a_linear_models_worst_case_is_approached(norm, share):
    model, slope = linear(2, SHAPE)
    worst = WEAK[norm] * oracle.dual_length(norm, slope)
    found = np.asarray(searched(norm, model).best.x, np.float64)
    gained = ((found - GREY) * slope).sum((1, 2, 3))
    assert np.all(gained <= worst * (1 + 1e-5))
    # Bumps are smooth and three pixels wide; this slope is neither.
    assert np.mean(gained) > share * worst


@pytest.mark.slow_for("l1", "l2")
@every_norm
def test_it_stops_at_the_first_success_and_sees_what_is_wrong_already(norm):
    _, slope = linear(2, SHAPE)
    model, _ = linear(2, SHAPE, lead=-0.2 * WEAK[norm] * oracle.dual_length(norm, slope))
    found = searched(norm, model)
    assert found.best.success.all()
    np.testing.assert_array_equal(found.best.x, found.last.x)
    assert np.all(found.best.distance > 0)
    wrong, _ = linear(2, SHAPE, lead=0.01)
    found = searched(norm, wrong)
    assert found.best.success.all()
    np.testing.assert_array_equal(found.best.distance, np.zeros(12))
    np.testing.assert_array_equal(found.last.x, np.broadcast_to(GREY, (12, *SHAPE)))


@pytest.mark.slow
def test_queries_are_counted_no_gradient_is_taken_and_eps_and_p_are_traced():
    seen = []

    @jax.custom_vjp
    def tap(x):
        jax.debug.callback(lambda: seen.append(1))
        return x

    def backward(*_):
        raise AssertionError("a gradient was asked for")

    tap.defvjp(backward, backward)
    slope = jnp.linspace(0, 0.1, 36)
    model = jax.tree_util.Partial(lambda x: jnp.stack([9.0, tap(x).ravel() @ slope]))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(attack):
        return attack(KEY, model, jnp.full((6, 6, 1), 0.5), 0)

    found = [
        run(advfeat.square(advfeat.linf(eps), steps=7, restarts=3, p=p))
        for eps, p in ((0.1, 0.9), (0.1, 0.02), (np.float32(0.3), jnp.float32(0.5)))
    ]
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert len(seen) == 3 * 24
    for result in found:
        assert (int(result.queries), int(result.gradients)) == (24, 0)
    assert np.abs(found[0].last.x - found[1].last.x).max() > 0.1


@pytest.mark.slow
def test_the_whole_attack_is_its_steps_by_hand_the_worst_of_its_restarts():
    x, (model, _) = jnp.asarray(picture(4, SHAPE)), linear(4, SHAPE)
    attack = advfeat.square(advfeat.linf(0.1), steps=9, restarts=2, rescale_schedule=True)
    whole = jax.jit(attack)(KEY, model, x, 0)
    begin, step = jax.jit(attack.init), jax.jit(attack.step)
    rounds = []
    for index in range(2):
        run = begin(KEY, model, x, 0, index)
        for _ in range(9):
            run = step(model, run)
        rounds.append(attack.finish(model, run))  # without jit
    scores = [float(result.best.score) for result in rounds]
    assert scores[0] != scores[1]
    worst = rounds[int(np.argmax(scores))]
    for found, wanted in ((whole.best, worst.best), (whole.last, rounds[-1].last)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)


@pytest.mark.slow
def test_gradients_of_the_surroundings_pass():
    init, update = compiled("l1", GREYSCALE)
    state = init(jnp.float32(2.0), KEY, picture(0, GREYSCALE))
    state = update(jnp.float32(2.0), state, jnp.float32(0.0), False)

    def moved(eps):
        return jnp.sum(update(eps, state, jnp.float32(1.0), False).x ** 2)

    assert np.isfinite(jax.grad(moved)(2.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"restarts": 0}, "restarts must be a whole number >= 1, got 0"),
        ({"p": 0.0}, r"p must lie in \(0, 1\], got 0.0"),
        ({"p": 1.5}, r"p must lie in \(0, 1\], got 1.5"),
        ({"p": float("nan")}, r"p must lie in \(0, 1\], got nan"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        advfeat.square(advfeat.linf(0.1), **options)


def test_other_norms_are_refused():
    threat = advfeat.linf(0.1)
    other = dataclasses.replace(threat, norm=dataclasses.replace(threat.norm, name="l7"))
    with pytest.raises(ValueError, match="threat must measure in linf or l2 or l1"):
        advfeat.square(other)
