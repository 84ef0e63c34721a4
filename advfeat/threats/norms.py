"""Norms for ONE example: distance, steepest direction, projection, uniform sampling.

Everything here is safe at a zero gradient and at eps 0 and infinity, and works under `jit`,
`vmap`, `grad` and `shard_map`. Images live in the box [0, 1], and `x0` must lie in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from advfeat.numerics import over, scaled
from advfeat.types import Array, Key, Number

L2_PASSES = 16  # four are exact for most images; black-and-white ones far outside need ten or more
L1_SHARE = 0.01  # share of coordinates moved by one step in the sparse L1 direction
L1_ROOM = 0.5 / 255  # pixels closer than this to their face of the box count as saturated


@dataclasses.dataclass(frozen=True)
class Norm:
    """A norm as a set of pure functions on one example. Static and hashable.

    Attributes:
      name: `linf`, `l2` or `l1`.
      distance: `(x0, x) -> distance`.
      direction: `(x, gradient) -> ` steepest ascent direction of unit norm; 0 at a zero gradient.
      project: `(eps, x0, x) -> ` the nearest point of ball and box.
      noise: `(key, shape) -> ` a uniform draw from the unit ball; float32, also in 64-bit mode.
      diameter: `(size) -> ` diameter of the box, beyond which a larger eps has no effect.
    """

    name: str
    distance: Callable[[Float[Array, "*x"], Float[Array, "*x"]], Float[Array, ""]]
    direction: Callable[[Float[Array, "*x"], Float[Array, "*x"]], Float[Array, "*x"]]
    project: Callable[[Number, Float[Array, "*x"], Float[Array, "*x"]], Float[Array, "*x"]]
    noise: Callable[[Key, tuple[int, ...]], Float[Array, "*x"]]
    diameter: Callable[[int], float]

    def sample(self, key: Key, eps: Number, x0: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """Samples uniformly from the ball around `x0`, then projects into the box."""
        radius = jnp.minimum(eps, self.diameter(x0.size)).astype(x0.dtype)
        return self.project(eps, x0, x0 + radius * self.noise(key, x0.shape).astype(x0.dtype))

    def __repr__(self) -> str:
        return f"Norm({self.name})"


def l2_length(x: Float[Array, "*x"]) -> Float[Array, ""]:
    """Computes the Euclidean length without overflow or underflow; its gradient at 0 is 0, not NaN.

    >>> l2_length(jnp.array([3e-25, 4e-25]))
    Array(5.e-25, dtype=float32)
    >>> jax.grad(l2_length)(jnp.zeros(2))
    Array([0., 0.], dtype=float32)
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    is_zero = largest == 0
    ratio = over(x, largest)
    square = jnp.sum(ratio * ratio)
    return jnp.where(is_zero, 0.0, largest * jnp.sqrt(jnp.where(is_zero, 1.0, square)))


# --- L-infinity ---------------------------------------------------------------------------------


def _linf_project(eps: Number, x0: Array, x: Array) -> Array:
    low, high = jnp.maximum(x0 - eps, 0.0), jnp.minimum(x0 + eps, 1.0)
    return jnp.clip(x, low, high).astype(x0.dtype)


def _linf_noise(key: Key, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)


# --- L2 -----------------------------------------------------------------------------------------


def _l2_direction(x: Array, gradient: Array) -> Array:
    del x
    ratio, largest = scaled(gradient)
    # The `where` is inside the root, whose infinite slope at 0 would make the derivative NaN.
    square = jnp.where(largest > 0, jnp.sum(ratio * ratio), jnp.ones_like(largest))
    return ratio / jnp.sqrt(square)


def _l2_project(eps: Number, x0: Array, x: Array) -> Array:
    """Projects onto ball and box: `clip(x0 + s * (x - x0))` for the right s in [0, 1].

    The Lagrangian of `min |z - x|^2` under both constraints is separable, so z has that form, and
    its distance from x0 grows with s. For a fixed set of clipped coordinates, s has a closed form.
    Solving from below clips more coordinates in every pass and never overshoots.
    """
    clipped = jnp.clip(x, 0.0, 1.0)
    eps = jnp.minimum(eps, jnp.sqrt(float(x0.size))).astype(x0.dtype)
    step, most = _l2_unit(x - x0)
    length, room = l2_length(step), jnp.where(step > 0, 1.0 - x0, x0)

    def solved(scale: Array, eps: Array, step: Array, room: Array) -> Array:
        free = jnp.abs(step) * scale < room
        spent = jnp.sum(jnp.where(free, 0.0, room * room))
        square = jnp.sum(jnp.where(free, step * step, 0.0))
        left = jnp.maximum(eps * eps - spent, 0.0)
        ratio = left / jnp.where(square > 0, square, 1.0)
        # The inner `where` keeps the infinite slope of the root at 0 out of the gradient.
        wanted = jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1.0)), 0.0)
        return jnp.where(square > 0, jnp.minimum(wanted, most), most)

    # Only the last solve is differentiated: its derivative is that of the projection.
    fixed = jax.lax.stop_gradient((eps, step, room))
    scale = jax.lax.stop_gradient(jnp.minimum(eps / jnp.where(length > 0, length, 1.0), most))
    scale = jax.lax.fori_loop(0, L2_PASSES, lambda _, s: jnp.maximum(s, solved(s, *fixed)), scale)
    scale = solved(scale, eps, step, room)
    # Rounding can leave a point about one ulp outside; shrinking by two ulps keeps it inside.
    shrunk = jnp.clip(x0 + scale * (1.0 - 2.0 * jnp.finfo(x0.dtype).eps) * step, 0.0, 1.0)
    return jnp.where(l2_length(clipped - x0) <= eps, clipped, shrunk).astype(x0.dtype)


def _l2_unit(step: Array) -> tuple[Array, Array]:
    """Rescales a very long step to largest entry 1; returns it with its original largest entry.

    Squaring a very long step would overflow. Entries whose squares would underflow after rescaling
    are set to 0. Other steps are returned unchanged, with 1.
    """
    exponent = jnp.finfo(step.dtype).maxexp
    unit, largest = scaled(step)
    unit = jnp.where(jnp.abs(unit) < 2.0 ** -(exponent // 2 - 1), 0.0, unit)
    far = largest > 2.0 ** (exponent // 4)
    return jnp.where(far, unit, step), jnp.where(far, largest, jnp.ones_like(largest))


def _l2_noise(key: Key, shape: tuple[int, ...]) -> Array:
    key_direction, key_radius = jax.random.split(key)
    direction = _l2_direction(jnp.zeros(()), jax.random.normal(key_direction, shape, jnp.float32))
    size = max(direction.size, 1)
    return direction * jax.random.uniform(key_radius, (), jnp.float32) ** (1.0 / size)


# --- L1 -----------------------------------------------------------------------------------------


def _l1_direction(x: Array, gradient: Array) -> Array:
    """Returns the sparse ascent direction: equal steps on the best coordinates that can move.

    The exact steepest direction moves one coordinate, and filling an image that way takes hundreds
    of steps. Moving the top one per cent is the sparse step of Tramer and Boneh (2019),
    https://arxiv.org/abs/1904.13000. Coordinates at their face of the box are excluded, and so are
    those within `L1_ROOM` of it, where the projection has just pulled them back. Otherwise, once
    the steepest coordinates reach the box, an attack would only push these back at every step.
    """
    room = jnp.where(gradient > 0, 1.0 - x, x)
    movable = room > L1_ROOM
    gain = jnp.where(movable, jnp.abs(scaled(gradient)[0]), 0.0).ravel()
    count = max(1, round(L1_SHARE * gain.size))
    top, index = jax.lax.top_k(gain, count)
    taken = jnp.zeros_like(gain).at[index].set(jnp.where(top > 0, 1.0, 0.0))
    share = taken / jnp.maximum(jnp.sum(taken), 1.0)
    return share.reshape(gradient.shape) * jnp.sign(gradient)


def _l1_project(eps: Number, x0: Array, x: Array) -> Array:
    """Projects onto ball and box: `x0 + sign(d) * clip(|d| - t, 0, room)` for the right t >= 0.

    The L1 length is piecewise linear and decreasing in t, with kinks at `|d|` (slope begins) and
    `|d| - room` (slope ends). Sorting the kinks finds the piece that contains eps.
    """
    step = x - x0
    size, room = jnp.abs(step).ravel(), jnp.where(step > 0, 1.0 - x0, x0).ravel()
    eps = jnp.minimum(eps, float(x0.size)).astype(x0.dtype)
    kinks = jnp.concatenate([size, jnp.maximum(size - room, 0.0)])
    slopes = jnp.concatenate([jnp.ones_like(size), -jnp.ones_like(size)])
    order = jnp.argsort(-kinks)
    kinks, slope = kinks[order], jnp.cumsum(slopes[order])
    following = jnp.append(kinks[1:], 0.0)
    total = jnp.cumsum(slope * (kinks - following))  # at t = following[k]
    # If rounding leaves every total below eps, takes the last piece, whose threshold is 0.
    piece = jnp.minimum(jnp.sum(total < eps), total.size - 1)
    excess = jnp.maximum(total[piece] - eps, 0.0)
    threshold = following[piece] + excess / jnp.maximum(slope[piece], 1.0)
    moved = jnp.clip(size - threshold, 0.0, room)
    spent = jnp.sum(moved)
    moved = moved * jnp.where(spent > eps, eps / jnp.where(spent > 0, spent, 1.0), 1.0)
    boxed = jnp.minimum(size, room)
    moved = jnp.where(jnp.sum(boxed) <= eps, boxed, moved)
    point = x0 + jnp.sign(step) * moved.reshape(x0.shape)
    return jnp.clip(point, 0.0, 1.0).astype(x0.dtype)


def _l1_noise(key: Key, shape: tuple[int, ...]) -> Array:
    """Samples the unit ball: normalised d + 1 exponentials (uniform on a simplex), random signs."""
    key_size, key_rest, key_sign = jax.random.split(key, 3)
    sizes = jax.random.exponential(key_size, shape, jnp.float32)
    total = jnp.sum(sizes) + jax.random.exponential(key_rest, (), jnp.float32)
    return sizes / total * jax.random.rademacher(key_sign, shape, sizes.dtype)


LINF = Norm(
    name="linf",
    distance=lambda x0, x: jnp.max(jnp.abs(x - x0)),
    direction=lambda x, gradient: jnp.sign(gradient),
    project=_linf_project,
    noise=_linf_noise,
    diameter=lambda size: 1.0,
)
"""The largest change of a pixel."""
L2 = Norm(
    name="l2",
    distance=lambda x0, x: l2_length(x - x0),
    direction=_l2_direction,
    project=_l2_project,
    noise=_l2_noise,
    diameter=lambda size: float(size) ** 0.5,
)
"""Euclidean length."""
L1 = Norm(
    name="l1",
    distance=lambda x0, x: jnp.sum(jnp.abs(x - x0)),
    direction=_l1_direction,
    project=_l1_project,
    noise=_l1_noise,
    diameter=lambda size: float(size),
)
"""The sum of all changes."""
NORMS = {norm.name: norm for norm in (LINF, L2, L1)}
"""The norms by name."""
_TITLES = {"linf": "L∞", "l2": "L2", "l1": "L1"}


def title(norm: str | Norm) -> str:
    """Returns the display name of a norm; flags and keys use its plain name.

    Args:
      norm: `linf`, `l2`, `l1`, or a `Norm`; an unknown name is returned unchanged.

    >>> title("linf"), title(L2)
    ('L∞', 'L2')
    """
    name = norm if isinstance(norm, str) else norm.name
    return _TITLES.get(name, name)


def scale_to_norm(
    norm: Norm, eps: Number, x0: Float[Array, "*x"], noise: Float[Array, "*x"], *, passes: int = 40
) -> Float[Array, "*x"]:
    """Scales noise so that `clip(x0 + s * noise)` lies exactly `eps` from `x0`; bisects on s.

    Clipping to the box reduces noise of norm eps to about 0.8 eps, for which a baseline "of the
    same norm" must compensate. If the box has too little room in the direction of the noise, the
    result is the farthest point in that direction, closer than eps.

    Args:
      norm: the norm of the distance.
      eps: target distance.
      x0: the example, in [0, 1].
      noise: only its direction matters.
      passes: number of bisections; each halves the error in s.

    Returns:
      A point of the box, at most eps away.

    >>> x0, noise = jnp.full(100, 0.9), jax.random.normal(jax.random.key(0), (100,))
    >>> round(float(L2.distance(x0, scale_to_norm(L2, jnp.float32(1.0), x0, noise))), 4)
    1.0
    """
    unit = scaled(noise)[0]
    # At scale 1/smallest every non-zero coordinate has reached its face of the box.
    magnitude = jnp.abs(unit)
    smallest = jnp.min(jnp.where(magnitude > 0, magnitude, 1.0))

    def at(log_scale: Array) -> Array:
        return jnp.clip(x0 + jnp.exp(log_scale) * unit, 0.0, 1.0)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        inside = norm.distance(x0, at(middle)) <= eps
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    top = -jnp.log(smallest)
    low = jnp.full_like(x0, -30.0, shape=())
    low, _ = jax.lax.fori_loop(0, passes, halve, (low, jnp.full_like(x0, 0.0, shape=()) + top))
    low = jnp.where(norm.distance(x0, at(top)) <= eps, top, low)
    return jnp.where(eps > 0, at(low), x0).astype(x0.dtype)
