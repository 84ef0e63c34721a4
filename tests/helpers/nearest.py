"""What minimum-norm attacks are held to: exact distances on linear models, in NumPy float64.

One shape, one number of classes and one batch size everywhere, so that few programs are compiled.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.optimize

import advfeat

SHAPE, CLASSES, BATCH = (4, 4, 1), 4, 12
KEY = jax.random.key(0)
NET = oracle.TanhNet(0, SHAPE, classes=CLASSES)


def affine(params, x):
    weights, bias = params
    return weights @ x.ravel() + bias


@functools.cache
def problem(seed, *, low=0.2, high=0.8, scale=1.0, apart=1.5, corners=False):
    """A linear model, images, and their labels as it predicts them.

    The attacks follow the margin or the cross-entropy to the class that they see leading, which
    need not be the nearest; here, in every norm, the other classes are `apart` times as far. With
    `corners` every second image is black and white.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(CLASSES, int(np.prod(SHAPE))))
    bias = -weights.sum(1) / 2
    model = jax.tree_util.Partial(affine, (jnp.float32(scale * weights), jnp.float32(scale * bias)))
    images = []
    while len(images) < BATCH:
        x = rng.uniform(low, high, SHAPE).astype(np.float32)
        x = np.round(x) if corners and len(images) % 2 else x
        z = weights @ x.ravel() + bias
        gaps = np.sort(z.max() - z)[1:]
        # Most images are no good, which is cheaper to see from the logits than from the distances.
        if gaps[0] > 0.2 and gaps[1] > apart * gaps[0]:
            far = [np.sort(distances(norm, model, x, np.argmax(z))) for norm in oracle.NORMS]
            if far[1][0] > 0.05 and all(d[1] > apart * d[0] for d in far):
                images.append(x)
    x = np.stack(images)
    x.flags.writeable = False
    return model, x, np.argmax(logits_of(model, x), -1)


def logits_of(model, x):
    weights, bias = (np.asarray(leaf, np.float64) for leaf in model.args[0])
    return np.asarray(x, np.float64).reshape(len(x), -1) @ weights.T + bias


def attacked(attack, model, x, y, **options):
    return advfeat.attack_dataset(KEY, attack, model, x, y, batch_size=BATCH, **options)


def to_half_space(norm, x, slope, gap):
    """The least |d| with slope · d >= gap and x + d in the box; infinite where there is none."""
    size, room = np.abs(slope), np.where(slope > 0, 1 - x, x)
    if gap <= 0:
        return 0.0
    if size @ room < gap:
        return np.inf
    if norm == "l1":  # the steepest pixels first, each up to its face of the box
        order = np.argsort(-size)
        gains = np.cumsum((size * room)[order])
        full = int(np.searchsorted(gains, gap))
        left = gap - (gains[full - 1] if full else 0.0)
        return room[order][:full].sum() + left / size[order][full]
    unit = np.ones_like(size) if norm == "linf" else size
    low, high = 0.0, float(np.max(room / unit))
    for _ in range(60):
        middle = 0.5 * (low + high)
        short = size @ np.minimum(middle * unit, room) < gap
        low, high = (middle, high) if short else (low, middle)
    return oracle.length(norm, np.minimum(high * unit, room))


def distances(norm, model, image, label, *, confidence=0.0):
    """How far the nearest points of the box are where each other class leads by `confidence`."""
    weights = np.asarray(model.args[0][0], np.float64)
    flat, z = np.asarray(image, np.float64).ravel(), logits_of(model, image[None])[0]
    return [
        to_half_space(norm, flat, weights[k] - weights[label], z[label] - z[k] + confidence)
        for k in range(CLASSES)
        if k != label
    ]


def nearest(norm, model, x, y, **options):
    """For each image, how far the nearest point of the box is that is not of its class."""
    pairs = zip(x, y, strict=True)
    return np.array(
        [min(distances(norm, model, image, label, **options)) for image, label in pairs]
    )


def nearest_of_class(norm, model, x, targets):
    """For each image, how far the nearest point of the box is where the target leads."""
    weights = np.asarray(model.args[0][0], np.float64)
    found = []
    for image, t, z in zip(
        np.asarray(x, np.float64).reshape(len(x), -1), targets, logits_of(model, x), strict=True
    ):
        others = np.arange(CLASSES) != t
        slopes, gaps = (weights[t] - weights)[others], (z - z[t])[others]
        size = image.size
        if norm == "l2":
            solved = scipy.optimize.minimize(
                lambda d: d @ d,
                np.zeros(size),
                jac=lambda d: 2 * d,
                bounds=list(zip(-image, 1 - image, strict=True)),
                constraints={
                    "type": "ineq",
                    "fun": lambda d, s=slopes, g=gaps: s @ d - g,
                    "jac": lambda d, s=slopes: s,
                },
                method="SLSQP",
                options={"ftol": 1e-12, "maxiter": 500},
            )
            assert solved.success
            found.append(np.sqrt(solved.fun))
            continue
        # d and bounds t on |d|: one per pixel for L1, one for all for L-infinity.
        bounds = np.eye(size) if norm == "l1" else np.ones((size, 1))
        count = bounds.shape[1]
        solved = scipy.optimize.linprog(
            np.r_[np.zeros(size), np.ones(count)],
            A_ub=np.block(
                [
                    [-slopes, np.zeros((len(slopes), count))],
                    [np.eye(size), -bounds],
                    [-np.eye(size), -bounds],
                ]
            ),
            b_ub=np.r_[-gaps, np.zeros(2 * size)],
            bounds=[*zip(-image, 1 - image, strict=True), *[(0, None)] * count],
        )
        assert solved.success
        found.append(solved.fun)
    return np.array(found)


def tanh_net(weights, x):
    return weights[1] @ jnp.tanh(weights[0] @ x.ravel())


SMOOTH = jax.tree_util.Partial(tanh_net, (jnp.float32(NET.u), jnp.float32(NET.v)))
"""NET as a JAX function: what the attacks' iterates are compared on, one by one."""


def margin_and_gradient(x, y):
    """Of NET: how far the best other class leads, and the gradient of that."""
    z, h = NET.logits(x), np.tanh(NET.u @ np.asarray(x, np.float64).ravel())
    other = int(np.argmax(np.where(np.arange(CLASSES) == y, -np.inf, z)))
    gradient = (NET.u.T @ ((NET.v[other] - NET.v[y]) * (1 - h**2))).reshape(np.shape(x))
    return z[other] - z[y], gradient


def cosine(first, last, share):
    return last + (first - last) * (1 + np.cos(np.pi * share)) / 2


def smooth_images():
    """Images that NET labels, some with black and white pixels, and their labels."""
    x = np.random.default_rng(5).uniform(0, 1, (4, *SHAPE)).astype(np.float32)
    x[::2] = np.round(3 * x[::2]) / 3
    return x, np.array([int(np.argmax(NET.logits(image))) for image in x])


_begin = jax.jit(lambda attack, *rest: attack.init(*rest))
_step = jax.jit(lambda attack, *rest: attack.step(*rest))
_end = jax.jit(lambda attack, *rest: attack.finish(*rest))


def check_iterates(norm, attack, x, y, wanted, *, confidence=0.0):
    """That every iterate on NET is that of a reference, and that the nearest success is kept."""
    run = _begin(attack, KEY, SMOOTH, jnp.asarray(x), jnp.int32(y), jnp.int32(0))
    for index, point in enumerate(wanted):
        np.testing.assert_allclose(run.search.x, point, atol=1e-4, err_msg=f"iterate {index}")
        assert int(run.search.step) == index
        if index + 1 < len(wanted):
            run = _step(attack, SMOOTH, run)
    assert index == attack.steps
    best = _end(attack, SMOOTH, run).best
    leads = [margin_and_gradient(point, y)[0] for point in wanted]
    fooled = [
        oracle.length(norm, point - x)
        for point, lead in zip(wanted, leads, strict=True)
        if lead > max(confidence, 0.0)
    ]
    assert bool(best.success) == bool(fooled)
    if fooled:
        assert float(best.distance) == pytest.approx(min(fooled), abs=3e-4)
    return bool(fooled)


# --- What holds for every minimum-norm attack. ----------------------------------------------------


def lead(model, x, y):
    logits = logits_of(model, x)
    others = np.where(np.arange(CLASSES) == np.asarray(y)[:, None], -np.inf, logits)
    return others.max(-1) - logits[np.arange(len(x)), y]


def check_record(norm, eps, found, model, x, y, *, confidence=0.0):
    """That what an attack claims of its points is true, and allowed."""
    for point in (found.best, found.last):
        assert point.x.min() >= 0
        assert point.x.max() <= 1
        far = np.array([oracle.length(norm, d) for d in point.x.astype(np.float64) - x])
        np.testing.assert_allclose(point.distance, far, rtol=1e-5, atol=1e-6)
        if np.isfinite(eps):
            assert np.all(far <= eps + oracle.tolerance(norm, eps, x[0].size))
        leads = lead(model, point.x, y)
        clear = np.abs(leads - confidence) > 1e-4
        np.testing.assert_array_equal(point.success[clear], (leads > confidence)[clear])
    if confidence == 0:
        wanted = nearest(norm, model, x, y)
        assert np.all((found.best.distance >= wanted - 1e-5)[found.best.success])


def check_claims(norm, attack, seed, **options):
    """That what an attack claims is true, on a problem with corners; returns its result."""
    model, x, y = problem(seed, corners=True, apart=1.0)
    found = attacked(attack, model, x, y)
    check_record(norm, float(attack.threat.eps), found, model, x, y, **options)
    return found


def ratios_of_class(norm, attack, **options):
    """How much farther a targeted attack goes than the nearest points of the next class.

    It must reach every one, and none may be nearer than the nearest.
    """
    model, x, y = problem(3, **options)
    targets = (y + 1) % CLASSES
    best = attacked(attack, model, x, targets).best
    np.testing.assert_array_equal(np.argmax(logits_of(model, best.x), -1), targets)
    ratios = best.distance / nearest_of_class(norm, model, x, targets)
    assert np.all(ratios >= 1 - 1e-4)
    return ratios


def check_contract(norm, make):
    """What is misclassified, a finite eps, a plateau, a network of NaN, jit and bad steps.

    Args:
      norm: the norm's name.
      make: `(threat, **options) -> attack`, always with the same static options.
    """
    model, x, y = problem(11, scale=10.0)
    free = make(advfeat.threat_model(norm, np.inf))
    found = attacked(free, model, x, y)
    check_record(norm, np.inf, found, model, x, y)
    assert found.best.success.all()

    wrong = attacked(free, model, x, (y + 1) % CLASSES)
    assert wrong.best.success.all()
    np.testing.assert_array_equal(wrong.best.x, x)
    np.testing.assert_array_equal(wrong.best.distance, 0)

    # A finite eps succeeds where the nearest point is clearly within it, and only there.
    eps = float(np.median(found.best.distance))
    some = attacked(make(advfeat.threat_model(norm, eps)), model, x, y)
    check_record(norm, eps, some, model, x, y)
    wanted = nearest(norm, model, x, y)
    assert some.best.success[wanted < 0.85 * eps].all()
    assert not some.best.success[wanted > eps * (1 + 1e-4)].any()
    none = attacked(make(advfeat.threat_model(norm, 0.0)), model, x, y)
    np.testing.assert_array_equal(none.best.x, x)
    np.testing.assert_array_equal(none.last.x, x)
    assert not none.best.success.any()

    flat = jax.tree_util.Partial(affine, (0 * model.args[0][0], jnp.arange(4.0)))
    stuck = attacked(free, flat, x, np.full(BATCH, 3))
    check_record(norm, np.inf, stuck, flat, x, np.full(BATCH, 3))
    assert not stuck.best.success.any()
    broken = jax.tree_util.Partial(affine, (jnp.nan * model.args[0][0], model.args[0][1]))
    lost = attacked(free, broken, x, y).best
    assert not lost.success.any()
    np.testing.assert_array_equal(lost.x, x)

    key = jax.random.fold_in(KEY, 2)
    one = free(key, model, jnp.asarray(x[2]), jnp.int32(y[2]))
    np.testing.assert_allclose(one.best.x, found.best.x[2], atol=1e-4)
    assert int(one.queries) == found.queries[2]
    for bad in ({"steps": 0}, {"steps": 2.5}):
        with pytest.raises(ValueError, match="steps must be a whole number >= 1, got"):
            make(advfeat.threat_model(norm, 1.0), **bad)
