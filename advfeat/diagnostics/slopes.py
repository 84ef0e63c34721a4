"""A check of the gradient: whether there is one, and whether it is that of the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.diagnostics.case import Case, Seen, percent
from advfeat.keys import stream
from advfeat.losses import cross_entropy, margin
from advfeat.threat import ThreatModel
from advfeat.types import Array, Key, ModelFn, with_key

# Limits, as shares of the points looked at: images, and random points near them.
NO_GRADIENT = 0.05  # whose gradient is exactly zero
MISLEADING = 0.1  # where a small step gains far from what its gradient promises:
GAIN = (0.25, 4.0)  # less than the one or more than the other times as much
SMALL = 0.125  # length of that step, over eps


class _Slope(NamedTuple):
    """Of one point: the dual length of its gradients, and what a small step promised and gained."""

    cross_entropy: Array
    margin: Array
    promised: Array
    gained: Array


@jax.jit
def _slopes(
    key: Key, ids: Array, threat: ThreatModel, length: Array, model_fn: ModelFn, x: Array, y: Array
) -> _Slope:
    """`[B, 2]`: at each image and at a random allowed point near it."""

    def at(network: ModelFn, x: Array, y: Array) -> _Slope:
        logits, pull = jax.vjp(network, x)
        before, slope = jax.value_and_grad(margin)(logits, y)
        (flat,), (slope,) = pull(jax.grad(cross_entropy)(logits, y)), pull(slope)
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


def gradients(case: Case) -> Iterator[Seen]:
    """Gradients that are zero, not a number, or point nowhere."""
    rows = case.sample()
    batch, size = case.batch(rows)
    eps = jnp.minimum(case.threat.eps, case.threat.norm.diameter(case.images[0].size))
    parts = [
        _slopes(
            stream(case.key, "checks/gradients"),
            jnp.asarray(batch[start : start + size]),
            case.threat,
            SMALL * eps,
            case.model_fn,
            jnp.asarray(case.images[batch[start : start + size]], jnp.float32),
            jnp.asarray(case.labels[batch[start : start + size]]),
        )
        for start in range(0, len(batch), size)
    ]
    slope = jax.tree.map(lambda *leaf: np.concatenate(leaf)[: len(rows)].ravel(), *parts)
    where = f"of {len(slope.margin)} points (images, and random points near them)"
    bad = float((~np.isfinite(slope.cross_entropy) | ~np.isfinite(slope.margin)).mean())
    yield Seen(
        "nan_gradients",
        bad,
        0.0,
        f"At {percent(bad)} {where} the gradient is infinite or not a number.",
    )
    flat, gone = float((slope.cross_entropy == 0).mean()), float((slope.margin == 0).mean())
    yield Seen(
        "zero_gradients",
        max(flat, gone),
        NO_GRADIENT,
        f"The gradient is exactly zero at {percent(flat)} (cross-entropy) and {percent(gone)} "
        f"(margin) {where}: attacks that follow it go nowhere.",
    )
    told = np.isfinite(slope.promised) & (slope.promised > 0)
    gain = slope.gained[told] / slope.promised[told]
    less, more = ((gain < GAIN[0]).sum() / len(told), (gain > GAIN[1]).sum() / len(told))
    yield Seen(
        "misleading_gradients",
        float(less + more),
        MISLEADING,
        f"The gradient is not that of what the network computes: a step of {SMALL:g} eps along it "
        f"gains less than {GAIN[0]:g} times what it promises at {percent(less)} {where}, and more "
        f"than {GAIN[1]:g} times as much at {percent(more)}.",
    )
