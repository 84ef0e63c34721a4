"""Projections onto a hyperplane inside the box [0, 1], for ONE example, in three norms.

The projections of Croce and Hein (2020), "Minimally distorted Adversarial Examples with a Fast
Adaptive Boundary Attack", https://arxiv.org/abs/1907.02044, for attacks that step to the linearised
decision boundary.

Every coordinate moves in the direction that brings the affine function closer to 0, by a length
between 0 and its room, the distance to its face of the box. Only the lengths depend on the norm.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from advfeat.numerics import over, scaled
from advfeat.threats.norms import Norm, l2_length
from advfeat.types import Array

# Maximum needed by any of thousands of hyperplanes with 64 to 150,528 pixels, slopes spanning eight
# orders of magnitude and up to 99.9 % of the box used up; a typical one needs 4.
LINF_PASSES, L2_PASSES = 8, 16
HUGE = 1e30  # marks a kink that no step reaches; finite, so that products stay finite


class Move(NamedTuple):
    """A move to a hyperplane.

    Attributes:
      step: example plus step lies in the box, up to rounding.
      reached: whether the hyperplane meets the box. If not, the step ends in the corner
        of the box nearest to the hyperplane.
    """

    step: Float[Array, "*x"]
    reached: Bool[Array, ""]


def to_hyperplane(
    norm: Norm, x: Float[Array, "*x"], slope: Float[Array, "*x"], value: Float[Array, ""]
) -> Move:
    """Computes the shortest move inside the box [0, 1] to the zero set of an affine function.

    The function is `z -> value + <slope, z - x>`: the hyperplane `<w, z> + b = 0` has `slope = w`
    and `value = <w, x> + b`. Attacks know the value at `x` exactly, whereas recomputing it as a
    difference of two large numbers would lose precision.

    Args:
      norm: `linf`, `l2` or `l1`; measures the length of the move.
      x: the example, in [0, 1].
      slope: pixels with slope 0 stay. A zero or non-finite slope moves nothing.
      value: value of the affine function at `x`.

    Returns:
      The move, and whether it reaches the hyperplane.

    >>> from advfeat.threats.norms import L2
    >>> move = to_hyperplane(L2, jnp.array([0.5, 0.9]), jnp.array([1.0, 1.0]), jnp.float32(-0.4))
    >>> move.step.round(3).tolist(), bool(move.reached)
    ([0.3, 0.1], True)
    """
    largest = jnp.max(jnp.abs(slope))
    usable = jnp.isfinite(largest) & (largest > 0) & ~jnp.isnan(value)
    scale = jnp.where(usable, largest, jnp.ones_like(largest))
    # Rescaled so that the largest slope is 1, which prevents overflow and underflow.
    slope = over(jnp.where(usable, slope, jnp.zeros_like(slope)), scale)
    side = jnp.where(usable, -jnp.sign(value), 0.0).astype(x.dtype)
    towards = side * jnp.sign(slope)
    gap, steep = jnp.abs(over(value, scale)).astype(x.dtype), jnp.abs(slope).ravel()
    room = jnp.where(towards > 0, 1.0 - x, x).ravel()
    room = jnp.where(steep > 0, jnp.maximum(room, 0.0), 0.0)
    reached = gap <= jnp.sum(steep * room)
    moved = _LENGTHS[norm.name](steep, room, gap)
    moved = jnp.where(reached, moved, room).reshape(x.shape)
    return Move((towards * moved).astype(x.dtype), reached)


def unbounded_distance(
    norm: Norm, slope: Float[Array, "*x"], value: Float[Array, ""]
) -> Float[Array, ""]:
    """Computes the distance to a hyperplane without the box: `|value| / |slope|` in the dual norm.

    Infinite for a zero or non-finite slope.

    >>> from advfeat.threats.norms import LINF
    >>> unbounded_distance(LINF, jnp.array([3.0, -1.0]), jnp.float32(-0.4)).round(3)
    Array(0.1, dtype=float32)
    """
    slope, largest = scaled(slope)
    length = dual_length(norm, slope)
    distance = over(jnp.abs(over(value, largest)), length)
    usable = (length > 0) & jnp.isfinite(length) & jnp.isfinite(distance)
    return jnp.where(usable, distance, jnp.inf)


def dual_length(norm: Norm, slope: Float[Array, "*x"]) -> Float[Array, ""]:
    """Computes the dual norm of a slope: the maximum rise per unit of distance.

    L1 for L-infinity, L2 for L2, L-infinity for L1.

    >>> from advfeat.threats.norms import LINF
    >>> float(dual_length(LINF, jnp.array([3.0, -1.0])))
    4.0
    """
    return _DUAL[norm.name](slope)


def _capped(gain: Array, steep: Array, room: Array, gap: Array, *, passes: int) -> Array:
    """Solves for lengths `min(t * gain, room)` with `sum(steep * lengths)` equal to the gap.

    The sum is concave, piecewise linear and increasing in t. Newton's method from below therefore
    never overshoots and ends exactly after few passes, in less than a tenth of the time of a sort.
    """
    kink = jnp.minimum(room / jnp.where(gain > 0, gain, 1.0), HUGE)
    area, rate = steep * room, steep * gain

    def newton(_: Array, time: Array) -> Array:
        is_capped = kink <= time
        left = gap - jnp.sum(jnp.where(is_capped, area, 0.0))
        speed = jnp.sum(jnp.where(is_capped, 0.0, rate))
        wanted = jnp.where(speed > 0, left / jnp.where(speed > 0, speed, 1.0), HUGE)
        return jnp.clip(wanted, time, HUGE)

    time = jax.lax.fori_loop(0, passes, newton, jnp.zeros_like(gap))
    return jnp.minimum(time * gain, room)


def _linf_lengths(steep: Array, room: Array, gap: Array) -> Array:
    """Moves all pixels equally far."""
    return _capped(jnp.ones_like(steep), steep, room, gap, passes=LINF_PASSES)


def _l2_lengths(steep: Array, room: Array, gap: Array) -> Array:
    """Moves all pixels along the slope, since the Lagrangian of `min |d|^2` is separable."""
    return _capped(steep, steep, room, gap, passes=L2_PASSES)


def _l1_lengths(steep: Array, room: Array, gap: Array) -> Array:
    """Moves the steepest pixels first, each as far as it can: a fractional knapsack."""
    downwards, area = jax.lax.sort((-steep, steep * room), num_keys=1)
    last = jnp.minimum(jnp.sum(jnp.cumsum(area) < gap), steep.size - 1)
    threshold = -downwards[last]
    full, partial = steep > threshold, steep == threshold
    left = gap - jnp.sum(jnp.where(full, steep * room, 0.0))
    whole = jnp.sum(jnp.where(partial, steep * room, 0.0))
    share = jnp.clip(left / jnp.where(whole > 0, whole, 1.0), 0.0, 1.0)
    return jnp.where(full, room, jnp.where(partial, share * room, 0.0))


_LENGTHS = {"linf": _linf_lengths, "l2": _l2_lengths, "l1": _l1_lengths}
_DUAL = {
    "linf": lambda slope: jnp.sum(jnp.abs(slope)),
    "l2": l2_length,
    "l1": lambda slope: jnp.max(jnp.abs(slope)),
}
