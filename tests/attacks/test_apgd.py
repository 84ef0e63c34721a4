"""Auto-PGD against NumPy float64, iterate by iterate, and against closed forms."""

import contextlib
import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import passes
import pytest
from hypothesis import given, settings, strategies as st
from jax.sharding import AxisType, PartitionSpec as P

import advfeat
from advfeat.attacks.apgd import apgd, apgd_targeted, averaged
from advfeat.attacks.apgd_kernels import AutoAscent, SparseAscent, phases, windows
from advfeat.attacks.batch import _attack_batch
from advfeat.objectives.classification import likely_target
from advfeat.types import Evaluation, randomised

SHAPE, CLASSES, HIDDEN, BATCH, STEPS = (4, 4, 1), 5, 8, 8, 50
EPS = {"linf": 0.15, "l2": 0.6, "l1": 1.5}
KEY = jax.random.key(0)
every_norm = pytest.mark.parametrize("norm", oracle.NORMS)


def both(params, x):
    """A tanh network and a linear one added up, so that one compiled function serves for all."""
    u, v, weights, bias = params
    return v @ jnp.tanh(u @ x.ravel()) + weights @ x.ravel() + bias


def network(u=0.0, v=0.0, weights=0.0, bias=0.0):
    shapes = ((HIDDEN, 16), (CLASSES, HIDDEN), (CLASSES, 16), (CLASSES,))
    leaves = zip((u, v, weights, bias), shapes, strict=True)
    return jax.tree_util.Partial(
        both, tuple(jnp.float32(np.broadcast_to(leaf, shape)) for leaf, shape in leaves)
    )


def stacked(models):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)


@functools.cache
def compiled(method):
    """`init`, `step` or `finish` of any attack on BATCH images, each with a network of its own."""
    if method == "init":
        axes = (None, 0, 0, 0, 0, None)
        return jax.jit(jax.vmap(lambda attack, *rest: attack.init(*rest), axes))
    return jax.jit(jax.vmap(lambda attack, *rest: getattr(attack, method)(*rest), (None, 0, 0)))


def trail(attack, models, x, y, *, key=KEY, index=0):
    """Every state of one round, then its result."""
    keys = jax.random.split(key, BATCH)
    x, y = jnp.float32(x), jnp.asarray(y, jnp.int32)
    run = compiled("init")(attack, keys, models, x, y, jnp.int32(index))
    for _ in range(attack.steps):
        yield run
        run = compiled("step")(attack, models, run)
    yield run
    yield compiled("finish")(attack, models, run)


def attacked(attack, model, x, y, **options):
    *_, result = trail(attack, stacked([model] * BATCH), x, y, **options)
    return jax.tree.map(np.asarray, result)


# --- The reference: algorithm 1 of both papers, on lists of everything seen. ----------------------


class Close(Exception):
    """Rounding could decide a comparison either way; from here on the runs may differ."""


def less(a, b, *, by=3e-6):
    if a != b and abs(a - b) < by * max(1, abs(a)):
        raise Close
    return a < b


def checkpoints(n):
    window, at, found = int(0.22 * n + 1e-9), 0, []
    while at + max(window, 1) <= n:
        at += max(window, 1)
        found.append(at)
        window = max(window - max(int(0.03 * n + 1e-9), 1), int(0.06 * n + 1e-9))
    return found


class Trail:
    """Points, scores and gradients of a run; `best` is the index of the highest score."""

    def __init__(self, look, seen):
        self.evaluate, self.seen = look, seen
        self.x, self.f, self.g = [], [], []

    def look(self, x):
        score, gradient = self.evaluate(x)
        self.x.append(x)
        self.f.append(score)
        self.g.append(gradient)

    def note(self, event):
        self.seen[event] = self.seen.get(event, 0) + 1

    @property
    def best(self):
        top = 0
        for i in range(1, len(self.f)):
            top = i if less(self.f[top], self.f[i]) else top
        return top


def auto_reference(look, norm, eps, x0, start, n, seen, rho=0.75):
    """Yields x^(0), x^(1), ... of APGD (2020), algorithm 1."""
    trail, step, halved, best_at = Trail(look, seen), 2 * eps, [True], []
    marks, x, previous = [0, *checkpoints(n)], start, start
    for k in range(n + 1):
        yield x
        trail.look(x)
        at, gradient = x, trail.g[-1]
        if k in marks[1:]:
            j = marks.index(k)
            rises = sum(less(trail.f[i], trail.f[i + 1]) for i in range(marks[j - 1], k))
            first = rises <= rho * (k - marks[j - 1])
            top = trail.best
            second = not halved[-1] and best_at[-1] == top
            trail.note("few rises" if first else "stalled" if second else "kept")
            halved.append(first or second)
            best_at.append(top)
            if halved[-1]:
                step, at, gradient = step / 2, trail.x[top], trail.g[top]
        if norm == "linf" and np.abs(gradient).min() < 1e-6:
            raise Close
        direct = oracle.project(norm, eps, x0, at + step * oracle.direction(norm, at, gradient))
        share = 0.75 if k else 1.0
        x = oracle.project(
            norm, eps, x0, at + share * (direct - at) + (1 - share) * (at - previous)
        )
        previous = at


def sparse_reference(look, norm, eps, x0, start, n, seen):
    """Yields x^(0), x^(1), ... of APGD for L1 (2021), in balls of 3, 2 and 1 eps."""

    def pixels(x):
        far = np.abs(x - x0)
        if ((far > 3e-7) & (far < 3e-6)).any():
            raise Close
        return int((far > 1e-6).sum())

    edges = [0, 3 * n // 10, 6 * n // 10, n + 1]
    x = start
    for factor, begin, end in zip((3, 2, 1), edges[:-1], edges[1:], strict=True):
        radius, trail = factor * eps, Trail(look, seen)
        every = max(4 * (min(end, n) - begin) // 100, 1)
        x = oracle.project(norm, radius, x0, x)
        step, moved = radius, pixels(x)
        for k in range(end - begin):
            yield x
            trail.look(x)
            at, gradient = x, trail.g[-1]
            if k and k % every == 0:
                top = trail.best
                now = pixels(trail.x[top])
                if now < 0.95 * moved:
                    trail.note("sparser")
                    step, at, gradient = radius, trail.x[top], trail.g[top]
                else:
                    trail.note("slower" if step > 0.1 * radius else "slowest")
                    step = max(step / 1.5, 0.1 * radius)
                moved = now
            count = min(max(int(np.ceil(moved / 1.5 - 1e-9)), 1), x.size)
            order = np.argsort(-np.abs(gradient).ravel())
            size = np.abs(gradient).ravel()[order]
            if count < x.size and size[count - 1] - size[count] < 1e-5:
                raise Close
            sign = np.zeros(x.size)
            sign[order[:count]] = np.sign(gradient.ravel()[order[:count]])
            move = step * sign.reshape(x.shape) / count
            x = oracle.project(norm, radius, x0, at + move)
        x = trail.x[trail.best]


REFERENCE = {"linf": auto_reference, "l2": auto_reference, "l1": sparse_reference}


@pytest.mark.slow_for("l1", "linf")
@every_norm
def test_every_iterate_is_that_of_numpy(norm):
    attack = apgd(advfeat.threat_model(norm, EPS[norm]), steps=STEPS)
    seen, compared = {}, 0
    nets = [oracle.TanhNet(seed, SHAPE, HIDDEN, CLASSES) for seed in range(BATCH)]
    x0, labels = images(0).round(1), np.arange(BATCH) % CLASSES
    *runs, _ = trail(attack, stacked([network(net.u, net.v) for net in nets]), x0, labels)
    found = np.stack([run.search.x for run in runs])
    for i, (net, y) in enumerate(zip(nets, labels, strict=True)):
        wanted = REFERENCE[norm](
            lambda x, net=net, y=y: (net.loss(x, y), net.gradient(x, y)),
            norm,
            EPS[norm],
            x0[i],
            found[0, i].astype(np.float64),
            STEPS,
            seen,
        )
        with contextlib.suppress(Close):
            for count, point in enumerate(wanted):
                message = f"network {i}, iterate {count}"
                np.testing.assert_allclose(found[count, i], point, atol=2e-4, err_msg=message)
                compared += 1
    assert compared > 100
    assert seen


@pytest.mark.slow_for("l1-180-options2-events2", "linf-100-options0-events0")
@pytest.mark.parametrize(
    ("norm", "steps", "options", "events"),
    [
        ("linf", 100, {"rho": 0.75}, {"few rises", "stalled", "kept"}),
        ("l2", 43, {"rho": 0.5}, {"few rises", "stalled", "kept"}),
        ("l1", 180, {}, {"sparser", "slower", "slowest"}),
    ],
)
def test_every_decision_is_that_of_numpy_whatever_the_scores(norm, steps, options, events):
    """Scores that have nothing to do with the points, so that everything happens often."""
    threat, shape = advfeat.threat_model(norm, EPS[norm]), (6, 6, 1)
    make = SparseAscent if norm == "l1" else AutoAscent
    fall = 0.3 if norm == "l2" else 0.12
    kernel = make(threat, steps=steps, **{k: jnp.float32(v) for k, v in options.items()})
    update, seen, compared = jax.jit(kernel.update), {}, 0
    for seed in range(2 if norm == "l1" else 4):
        rng = np.random.default_rng(seed)
        # Steady rises and deep falls: a score may rise for long and still not be the best.
        falls = rng.uniform(size=steps + 1) < fall
        scores = np.cumsum(np.where(falls, -5, 1) * rng.uniform(0.5, 1, steps + 1))
        slopes = rng.permuted(np.tile(np.linspace(0.1, 1, 36), (steps + 1, 1)), axis=1)
        slopes = (slopes * rng.choice([-1, 1], size=slopes.shape)).reshape(-1, *shape)
        x0 = rng.uniform(size=shape).round(1)
        start = oracle.project(norm, EPS[norm], x0, x0 + rng.normal(size=shape))
        state = kernel.first(jnp.float32(x0), jnp.float32(start))
        script = iter(zip(scores, slopes, strict=True))
        wanted = REFERENCE[norm](
            lambda x, script=script: next(script),
            norm,
            EPS[norm],
            x0,
            start,
            steps,
            seen,
            **options,
        )
        with contextlib.suppress(Close):
            for count, point in enumerate(wanted):
                np.testing.assert_allclose(state.x, point, atol=2e-5, err_msg=f"{seed} {count}")
                compared += 1
                if count < steps:
                    score, slope = jnp.float32(scores[count]), jnp.float32(slopes[count])
                    by_hand = norm == "l1" and seed == 0 and count == steps // 2  # without jit
                    move = kernel.update if by_hand else update
                    state = move(state, Evaluation(score, jnp.bool_(False), slope))
    assert set(seen) == events
    assert compared > steps


def test_the_checkpoints_of_the_paper():
    assert np.flatnonzero(windows(100)).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    for steps in (1, 2, 5, 10, 33, 100, 250, 1000):
        table = windows(steps)
        assert table.shape == (steps + 1,)
        assert np.flatnonzero(table).tolist() == checkpoints(steps)
        # Windows tile the steps.
        ends = np.flatnonzero(table)
        np.testing.assert_array_equal(table[ends], np.diff(ends, prepend=0))
        radius, due = phases(steps)
        assert radius.shape == due.shape == (steps + 1,)
        assert radius[-1] == 1
        assert np.all(np.diff(radius) <= 0)
        if steps >= 10:
            shares = [np.mean(radius[:-1] == factor) for factor in (3, 2, 1)]
            np.testing.assert_allclose(shares, [0.3, 0.3, 0.4], atol=0.05)
        # A phase's start has no best point behind it.
        assert not due[np.flatnonzero(np.diff(radius)) + 1].any()


# --- Closed forms. --------------------------------------------------------------------------------


def images(seed, count=BATCH):
    """Some pixels at the box."""
    return np.random.default_rng(seed).uniform(-0.2, 1.2, (count, *SHAPE)).clip(0, 1)


def linear(seed, classes=CLASSES):
    """Logits far below all others stand for classes that do not exist."""
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(CLASSES, 16)), rng.normal(size=CLASSES)
    bias[classes:] = -100
    return network(weights=weights, bias=bias), weights, bias


def worst_lead(norm, eps, weights, bias, x, label, other):
    """In float64: the highest that logit `other` can get over `label`, box included."""
    x, slope = x.astype(np.float64), (weights[other] - weights[label]).reshape(SHAPE)
    at = oracle.project(norm, eps, x, x + 1e6 * slope)
    if norm == "l1":  # the steepest pixels first, each to the box
        room = np.where(slope > 0, 1 - x, x).ravel()
        order = np.argsort(-np.abs(slope).ravel())
        before = np.cumsum(room[order]) - room[order]
        moved = np.zeros(16)
        moved[order] = np.clip(eps - before, 0, room[order])
        at = x + np.sign(slope) * moved.reshape(SHAPE)
    return np.sum(slope * at) + bias[other] - bias[label]


@pytest.mark.slow_for("l1", "linf")
@every_norm
def test_finds_the_worst_point_of_a_linear_model(norm):
    model, weights, bias = linear(0, 2)
    x, labels, eps = np.float32(images(0)), np.arange(BATCH) % 2, 2 * EPS[norm]
    attack = apgd(advfeat.threat_model(norm, eps), steps=STEPS)
    found = attacked(attack, model, x, labels).best
    wrong_before, short = 0, []
    for i, y in enumerate(labels):
        clean, worst, reached = (
            worst_lead(norm, size, weights, bias, at, y, 1 - y)
            for size, at in ((0.0, x[i]), (eps, x[i]), (0.0, found.x[i]))
        )
        assert bool(found.success[i]) == (worst > 0)
        assert float(found.score[i]) == pytest.approx(np.log1p(np.exp(reached)), abs=1e-4)
        if clean > 0:
            wrong_before += 1
            np.testing.assert_array_equal(found.x[i], x[i])
            assert found.distance[i] == 0
        else:
            short.append((worst - reached) / (worst - clean))
    assert 0 < wrong_before < BATCH
    assert min(short) > -1e-5
    # Sparse steps fill one pixel after the other, and some are still on their way at the end.
    assert max(short) < (0.15 if norm == "l1" else 1e-5)


@every_norm
def test_infinite_eps_reaches_the_corner(norm):
    model, weights, bias = linear(4, 2)
    x = np.float32(images(7))
    attack = apgd(advfeat.threat_model(norm, np.inf), steps=STEPS)
    found = attacked(attack, model, x, np.zeros(BATCH)).best
    corner = (weights[1] > weights[0]).astype(float).reshape(SHAPE)
    before, after, most = (
        at.reshape(-1, 16) @ (weights[1] - weights[0]) for at in (x, found.x, corner)
    )
    right = before + bias[1] - bias[0] < 0
    assert right.any()
    share = (after - before)[right] / (most - before)[right]
    # As above: sparse steps, some of them spent on pixels that are at the box already.
    assert share.min() > (0.7 if norm == "l1" else 1 - 1e-4)


TARGETED = {"steps": 20, "targets": 3, "restarts": 2}


@pytest.mark.slow
def test_each_target_is_gone_to_on_a_linear_model():
    """One class lies in reach, and it is not always the likeliest."""
    _, weights, _ = linear(1)
    # A class that moves much without leading, and ones that lead without moving much.
    weights, bias = weights * np.array([1, 1, 0.2, 0.2, 2])[:, None], np.array([0, 0, 0.5, 0.5, -1])
    model, eps = network(weights=weights, bias=bias), 0.05
    x = np.float32(images(2, 16))
    logits = x.reshape(16, 16) @ weights.T + bias
    labels = logits.argmax(1)
    attack = apgd_targeted(advfeat.linf(eps), **TARGETED)
    found = advfeat.attack_dataset(KEY, attack, model, x, labels, batch_size=BATCH)
    checked, others = [], 0
    for i, y in enumerate(labels):
        ranked = [k for k in np.argsort(-logits[i]) if k != y]
        leads = [worst_lead("linf", eps, weights, bias, x[i], y, k) for k in ranked[:3]]
        if min(np.abs(leads)) > 0.01:
            checked.append(max(leads) > 0)
            others += leads[0] < 0 < max(leads)
            assert bool(found.best.success[i]) == (max(leads) > 0)
            reached = weights @ found.best.x[i].ravel() + bias
            assert bool(found.best.success[i]) == (reached.argmax() != y)
    assert others > 0
    assert 0 < sum(checked) < len(checked)
    assert set(found.queries) == {6 * 23}
    assert set(found.gradients) == {6 * 20}
    size = _attack_batch._cache_size()
    for eps, rho in ((np.float32(0.5), 0.5), (jnp.float32(np.inf), jnp.float32(0.9))):
        attack = apgd_targeted(advfeat.linf(eps), rho=rho, **TARGETED)
        advfeat.attack_dataset(KEY, attack, linear(5)[0], x, labels, batch_size=BATCH)
    assert _attack_batch._cache_size() == size


def test_rounds_go_through_the_targets_from_the_likeliest():
    model = network(weights=np.eye(CLASSES, 16), bias=np.arange(5.0) * 10)
    attack = apgd_targeted(advfeat.linf(0.1), **TARGETED)
    assert attack.rounds == 6
    x, label = jnp.full(SHAPE, 0.5), jnp.int32(3)
    start = jax.jit(jax.vmap(lambda index: attack.start(KEY, model, x, label, index)))
    _, (labels, targets) = start(jnp.arange(6))
    np.testing.assert_array_equal(targets, [4, 2, 1, 4, 2, 1])
    np.testing.assert_array_equal(labels, [3] * 6)


@given(logits=st.permutations(list(range(6))), label=st.integers(0, 5))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_likely_targets_are_the_other_classes_in_order(logits, label):
    found = [int(likely_target(jnp.float32(logits), label, rank)) for rank in range(5)]
    assert found == [i for i in np.argsort(-np.array(logits)) if i != label]


def test_likely_targets_never_name_the_label():
    for z in ([0.0] * 4, [-np.inf] * 4, [np.inf, 1.0, -np.inf, 0.0]):
        for label in range(4):
            found = {int(likely_target(jnp.float32(z), label, rank)) for rank in range(3)}
            assert found == set(range(4)) - {label}


# --- Starts and what counts. ----------------------------------------------------------------------

NET = oracle.TanhNet(3, SHAPE, HIDDEN, CLASSES)
MODEL = network(NET.u, NET.v)


@pytest.mark.slow_for("l2")
@every_norm
def test_starts_lie_on_the_sphere(norm):
    eps, x = EPS[norm] / 3, jnp.full(SHAPE, 0.5)
    attack = apgd(advfeat.threat_model(norm, eps))
    draw = jax.jit(jax.vmap(lambda key: attack.start(key, MODEL, x, 0, 0)[0]))
    noise = np.asarray(draw(jax.random.split(KEY, 400)), np.float64) - 0.5
    far = [oracle.length(norm, n) for n in noise]
    np.testing.assert_allclose(far, 3 * eps if norm == "l1" else eps, rtol=1e-5)
    assert np.abs(noise.mean(0)).max() < 4 * noise.std() / np.sqrt(400)
    if norm == "linf":  # a uniform cube blown up until its largest coordinate, 16/17, is 1
        assert np.mean(np.abs(noise)) / eps == pytest.approx(0.5 * 17 / 16, rel=0.02)
    if norm == "l2":
        assert np.mean(noise**4) / eps**4 == pytest.approx(3 / (16 * 18), rel=0.05)


@every_norm
def test_what_is_found_is_what_is_claimed(norm):
    x, y = np.float32(images(5)), np.arange(BATCH) % CLASSES
    attack = apgd(advfeat.threat_model(norm, EPS[norm]), steps=STEPS)
    *runs, found = trail(attack, stacked([MODEL] * BATCH), x, y)
    best = -np.inf
    for i, label in enumerate(y):
        for point in (found.best, found.last):
            assert float(point.score[i]) == pytest.approx(NET.loss(point.x[i], label), abs=1e-4)
            assert bool(point.success[i]) == (NET.logits(point.x[i]).argmax() != label)
            far = oracle.length(norm, np.asarray(point.x[i], np.float64) - x[i])
            assert far <= EPS[norm] + oracle.tolerance(norm, EPS[norm], 16)
        if found.best.distance[i] > 0:
            # Of all points within eps it is the worst, success first.
            points = [x[i], *(np.asarray(run.search.x[i], np.float64) for run in runs)]
            inside = [p for p in points if oracle.length(norm, p - x[i]) <= EPS[norm] + 1e-5]
            best = max((NET.logits(p).argmax() != label, NET.loss(p, label)) for p in inside)
            assert bool(found.best.success[i]) == best[0]
            assert float(found.best.score[i]) == pytest.approx(best[1], abs=1e-4)
    assert set(np.asarray(found.queries)) == {STEPS + 2}
    assert set(np.asarray(found.gradients)) == {STEPS}


def test_points_of_the_wider_balls_are_never_found():
    """In L1 the search fools the network at once in 3 eps, but cannot within eps."""
    weights = np.zeros((CLASSES, 16))
    weights[1] = 1
    model = network(weights=weights, bias=np.array([1.0, 0, -100, -100, -100]))
    x, models = jnp.zeros((BATCH, *SHAPE)), stacked([model] * BATCH)
    attack, outside = apgd(advfeat.l1(0.5), steps=STEPS), 0
    for run in list(trail(attack, models, x, np.zeros(BATCH)))[:-1]:
        outside += int((jnp.sum(run.search.x[0]) > 1) & (run.search.step[0] < 0.6 * STEPS))
        assert not run.best.success.any()
        assert run.best.distance.max() <= 0.5 + 1e-6
        if int(run.search.step[0]) == 5:  # cut short, the result is allowed nevertheless
            cut = compiled("finish")(attack, models, run)
            for point in (cut.best, cut.last):
                assert point.distance.max() <= 0.5 + 1e-6
                assert not point.success.any()
    assert outside > 10
    assert run.best.score.min() > np.log1p(np.exp(-0.51))  # but what lay within was noted


@every_norm
def test_no_gradient_and_nan_leave_allowed_points(norm):
    attack = apgd(advfeat.threat_model(norm, EPS[norm]), steps=STEPS)
    x = np.float32(images(8))
    still = attacked(attack, network(bias=np.eye(CLASSES)[0]), x, np.zeros(BATCH))
    broken = attacked(attack, network(bias=np.nan), x, np.zeros(BATCH))
    for point in (still.best, still.last, broken.best, broken.last):
        for i in range(BATCH):
            far = oracle.length(norm, point.x[i].astype(np.float64) - x[i])
            assert far <= EPS[norm] + oracle.tolerance(norm, EPS[norm], 16)
    assert not still.best.success.any()
    np.testing.assert_array_equal(broken.best.x, x)


# --- Random networks. -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_mean_over_draws():
    def one(key, x):
        value = jax.random.normal(key, ())
        return Evaluation(value, value > 0.0, value * x)

    x, keys = jnp.arange(3.0), jax.random.split(KEY, 20)
    seen = jax.jit(jax.vmap(averaged(one, 4), (0, None)))(keys, x)
    normal = jax.vmap(lambda key: jax.random.normal(key, ()))
    values = np.asarray(jax.jit(jax.vmap(lambda key: normal(jax.random.split(key, 4))))(keys))
    mean = values.mean(1)
    np.testing.assert_allclose(seen.score, mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.grad, mean[:, None] * np.asarray(x), rtol=1e-4, atol=1e-6)
    # Two of four are not most.
    np.testing.assert_array_equal(seen.success, (values > 0).sum(1) > 2)
    assert ((values > 0).sum(1) == 2).any()
    assert averaged(one, 1) is one


def test_a_random_network_is_drawn_anew_for_every_evaluation():
    model = randomised(lambda key, x: jnp.stack([jnp.sum(x), jax.random.normal(key, ())]))
    attack, x = apgd(advfeat.linf(0.1), loss="margin", eot=4), jnp.full(SHAPE, 0.5)
    seen = attack.value_oracle(model, jnp.int32(0))(KEY, x)
    draws = [float(jax.random.normal(key, ())) for key in jax.random.split(KEY, 4)]
    assert float(seen.score) == pytest.approx(np.mean(draws) - 8, abs=1e-5)


# --- Counts, compilation, transformations. --------------------------------------------------------


@pytest.mark.slow_for("<lambda>-22-12")
@pytest.mark.parametrize(
    ("make", "queries", "gradients"),
    [
        (lambda: apgd(advfeat.linf(0.1), steps=4, restarts=2), 2 * 6, 2 * 4),
        (lambda: apgd_targeted(advfeat.linf(0.1), steps=3, targets=2, eot=2), 2 * 11, 2 * 6),
    ],
)
def test_counts_are_those_of_the_passes_really_made(make, queries, gradients):
    made, said = passes.made_and_said(
        make(), KEY, lambda x: x.ravel()[:CLASSES], jnp.full(SHAPE, 0.5)
    )
    assert made == said == (queries, gradients)


@pytest.mark.slow_for("l1")
@every_norm
def test_carries_vary_over_devices_as_they_must(norm):
    attack = apgd_targeted(advfeat.threat_model(norm, 0.1), steps=2, targets=2, eot=2)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.jit(
        jax.shard_map(
            lambda *given: advfeat.attack_batch(*given[:-1], ids=given[-1]),
            mesh=mesh,
            in_specs=(P(), P(), P(), P("data"), P("data"), P("data")),
            out_specs=P("data"),
        )
    )
    x, y, ids = jnp.float32(images(9)), jnp.zeros(BATCH, int), jnp.arange(BATCH)
    split.lower(KEY, attack, MODEL, x, y, ids)  # tracing is what would fail


# --- Bad input. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [apgd, apgd_targeted])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"restarts": 0}, "restarts must be"),
        ({"eot": 1.5}, "eot must be"),
        ({"rho": 1.2}, r"rho must lie in \[0, 1\], got 1.2"),
        ({"rho": float("nan")}, r"rho must lie in \[0, 1\], got nan"),
        ({"loss": "hinge"}, "loss must be one of ce, dlr, margin or a function, got 'hinge'"),
    ],
)
def test_bad_options_are_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(advfeat.linf(0.1), **options)


@pytest.mark.parametrize("make", [apgd, apgd_targeted])
def test_a_norm_of_your_own_is_refused(make):
    norm = dataclasses.replace(advfeat.linf(0.1).norm, name="l7")
    with pytest.raises(ValueError, match=r"threat must measure in linf or l2 or l1 .* got l7"):
        make(advfeat.threat_model(norm, 0.1))


@pytest.mark.slow
def test_too_few_classes_are_named_while_tracing():
    x = jnp.full(SHAPE, 0.5)
    two, three = lambda x: x.ravel()[:2], lambda x: x.ravel()[:3]
    threat = advfeat.linf(0.1)
    cases = [
        (apgd_targeted(threat), two, "targets must be at most 1 for 2 classes, got 9"),
        (apgd_targeted(threat, targets=3), three, "targets must be at most 2 for 3 classes, got 3"),
        (apgd_targeted(threat, targets=2), three, "dlr_targeted needs .* 4 classes, got 3"),
        (apgd(threat, loss="dlr"), two, "dlr needs .* 3 classes, got 2"),
    ]
    for attack, model, message in cases:
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(partial(attack, KEY, model), x, jnp.int32(0))
    with pytest.raises(ValueError, match="targets must be a whole number >= 1"):
        apgd_targeted(threat, targets=0)
    for loss in ("margin", "ce", lambda z, y, t: z[t]):
        attack = apgd_targeted(threat, targets=1, steps=2, loss=loss)
        jax.eval_shape(partial(attack, KEY, two), x, jnp.int32(0))
