"""Checks of the gradient: whether it is non-zero, finite, and that of the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat import devices
from advfeat.evaluation.diagnostics.case import Context, Finding, percent
from advfeat.keys import stream
from advfeat.numerics import finite
from advfeat.objectives.losses import cross_entropy, margin
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Key, ModelFn, with_key

# Limits, as shares of the points examined: images, and random points near them.
NO_GRADIENT = 0.05  # share of points whose gradient is exactly zero
MISLEADING = 0.1  # share of points where a small step gains far from what its gradient predicts
GAIN = (0.25, 4.0)  # actual gain over predicted gain outside this interval is misleading
SMALL = 0.125  # length of the small step, over eps


class _Slope(NamedTuple):
    """Largest gradient entries at a point, and predicted and actual gain of a small step."""

    cross_entropy: Array
    margin: Array
    promised: Array
    gained: Array


@devices.shared("ids", "x", "y")
def _slopes(
    key: Key, ids: Array, threat: ThreatModel, length: Array, model_fn: ModelFn, x: Array, y: Array
) -> _Slope:
    """Measures slopes `[B, 2]` at each image and at a random allowed point near it."""

    def at(network: ModelFn, x: Array, y: Array) -> _Slope:
        logits, pull = jax.vjp(network, x)
        before, slope = jax.value_and_grad(margin)(logits, y)
        (flat,), (slope,) = pull(jax.grad(cross_entropy)(logits, y)), pull(slope)
        flat, slope = finite(flat), finite(slope)  # as in the attacks
        moved = jnp.clip(x + length * threat.direction(x, slope), 0.0, 1.0)
        return _Slope(
            cross_entropy=jnp.max(jnp.abs(flat)),
            margin=jnp.max(jnp.abs(slope)),
            promised=jnp.vdot(slope, moved - x),
            gained=margin(network(moved), y) - before,
        )

    def one(i: Array, x: Array, y: Array) -> _Slope:
        key_start, key_model = jax.random.split(jax.random.fold_in(key, i))
        points = jnp.stack([x, threat.sample(key_start, x)])
        return jax.vmap(at, (None, 0, None))(with_key(model_fn, key_model), points, y)

    return jax.vmap(one)(ids, x, y)


@devices.shared("ids", "x", "y")
def _broken(
    key: Key, ids: Array, threat: ThreatModel, model_fn: ModelFn, x: Array, y: Array
) -> Array:
    """Returns whether the gradient has non-finite entries where attacks go, `[B]` bool.

    Examines the image, a random allowed point, and both after a step of length eps.
    """

    def one(i: Array, x: Array, y: Array) -> Array:
        key_start, key_model = jax.random.split(jax.random.fold_in(key, i))
        network = with_key(model_fn, key_model)
        eps = jnp.minimum(threat.eps, threat.norm.diameter(x.size)).astype(x.dtype)

        def look(point: Array) -> tuple[Array, Array]:
            slope = jax.grad(lambda z: margin(network(z), y))(point)
            ahead = point + eps * threat.direction(point, finite(slope))
            return threat.project(x, ahead), ~jnp.isfinite(slope).all()

        starts = jnp.stack([x, threat.sample(key_start, x)])
        # A scan, so that the network is compiled only once.
        _, broken = jax.lax.scan(lambda at, _: jax.vmap(look)(at), starts, None, length=2)
        return broken.any()

    return jax.vmap(one)(ids, x, y)


def finite_gradients(case: Context) -> Iterator[Finding]:
    """Checks for non-finite gradients at the survivors of gradient-based attacks."""
    rows = np.flatnonzero(case.result.robust)
    attacks = case.result.attacks
    if not len(rows) or (attacks and not any(part.gradients for part in attacks)):
        return
    found = _by_batch(case, rows, _broken, stream(case.key, "checks/finite_gradients"), case.threat)
    count = int(found.sum())
    yield Finding(
        "nan_gradients",
        count / len(rows),
        0.0,
        f"{count} of the {len(rows)} images that stand have gradients with infinite or NaN "
        "entries, at the image or at an allowed point nearby. Attacks set those entries to 0 and "
        "may have missed adversarial examples. Find the root, logarithm, power or quotient in the "
        "network whose derivative diverges there, and keep its argument away from that point: "
        "sqrt(max(x, 1e-6)) instead of sqrt(x).",
    )


def _by_batch(case: Context, rows: np.ndarray, look: Any, key: Key, *given: Any) -> Any:
    """Applies `look` to rows in batches of one size; returns leaves with a leading axis."""
    batch, size = case.batch(rows)
    size = devices.rows_at_once(case.model_fn, case.images.shape[1:], size)
    key, given, model_fn = devices.everywhere((key, given, case.model_fn))

    def call(places: np.ndarray) -> Any:
        taken = batch[places]
        x = case.images[taken].astype(np.float32, copy=False)
        return look(key, taken, *given, model_fn, x, case.labels[taken])

    found = devices.in_parts(call, len(batch), size)
    return jax.tree.map(lambda leaf: leaf[: len(rows)], found)


def gradients(case: Context) -> Iterator[Finding]:
    """Checks for gradients that are zero or do not match the network."""
    rows = case.sample()
    eps = jnp.minimum(case.threat.eps, case.threat.norm.diameter(case.images[0].size))
    key = stream(case.key, "checks/gradients")
    found = _by_batch(case, rows, _slopes, key, case.threat, SMALL * eps)
    slope = jax.tree.map(np.ravel, found)
    where = f"of {len(slope.margin)} points (images, and random points near them)"
    flat, gone = float((slope.cross_entropy == 0).mean()), float((slope.margin == 0).mean())
    yield Finding(
        "zero_gradients",
        max(flat, gone),
        NO_GRADIENT,
        f"The gradient is exactly zero at {percent(flat)} (cross-entropy) and {percent(gone)} "
        f"(margin) {where}: attacks that follow it go nowhere.",
    )
    told = np.isfinite(slope.promised) & (slope.promised > 0)
    gain = slope.gained[told] / slope.promised[told]
    less, more = ((gain < GAIN[0]).sum() / len(told), (gain > GAIN[1]).sum() / len(told))
    yield Finding(
        "misleading_gradients",
        float(less + more),
        MISLEADING,
        f"The gradient is not that of what the network computes: a step of {SMALL:g} eps along it "
        f"gains less than {GAIN[0]:g} times what it promises at {percent(less)} {where}, and more "
        f"than {GAIN[1]:g} times as much at {percent(more)}.",
    )
