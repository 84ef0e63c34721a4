"""Square attack in L2 and L1: its bump updates and their norm budget.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049, section 3.4 and algorithm 3; for L1
the variant in the code of Croce and Hein (2021), https://arxiv.org/abs/2103.01208. All shapes are
static: a square with a traced side length is a mask.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Key

SHRINKS = 5  # passes of the threshold search per candidate; any number gives a feasible point
START_SHRINKS = 12  # passes for the start, which lies much farther outside the ball
Corner = tuple[Array, Array]
"""Row and column of a square's first pixel, each `[]` int32."""


class Geometry(NamedTuple):
    """Shape of the bumps for a norm.

    Attributes:
      power: exponent p of the Lp norm.
      decay: a bump is a sum of concentric squares of heights `1 / n ** decay`.
    """

    power: int
    decay: int


GEOMETRIES = {"l2": Geometry(2, 2), "l1": Geometry(1, 4)}


class Draw(NamedTuple):
    """The random numbers behind one candidate, each uniform in [0, 1).

    Attributes:
      place: `[2]`, row and column of the new square.
      donor: `[2]`, row and column of the square that is cleared to free norm budget.
      way: `[]`, whether the halves of a bump lie side by side or one above the other.
      sign: `[C]`, sign of each channel.
    """

    place: Array
    donor: Array
    way: Array
    sign: Array


def draw(key: Key, channels: int) -> Draw:
    """Draws all random numbers of one candidate at once.

    >>> [part.shape for part in draw(jax.random.key(0), 3)]
    [(2,), (2,), (), (3,)]
    """
    numbers = jax.random.uniform(key, (5 + channels,), jnp.float32)  # in 64-bit mode too
    return Draw(numbers[0:2], numbers[2:4], numbers[4], numbers[5:])


def corner(shape: tuple[int, ...], side: Array, place: Array) -> Corner:
    """Places a square in an image `[H, W, C]`, uniformly over all positions where it fits.

    The authors' code omits the last position, so that small squares never reach the last row and
    column.
    """
    row, column = (
        jnp.floor(place[axis] * (shape[axis] - side + 1).astype(place.dtype)).astype(jnp.int32)
        for axis in (0, 1)
    )
    return row, column


def window(shape: tuple[int, ...], at: Corner, side: Array) -> Array:
    """Returns the mask `[H, W, 1]` of the square."""
    rows, columns = jnp.arange(shape[0]) - at[0], jnp.arange(shape[1]) - at[1]
    rows, columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    return rows[:, None, None] & columns[None, :, None]


def safe_divide(x: Array, y: Array) -> Array:
    """Computes `x / y`, or 0 where y is 0."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1.0), 0.0)


def _sums(kind: Geometry, x: Array) -> Array:
    """Sums the powers of each channel: `[1, 1, C]`.

    Rows are reduced first: that reduction vectorises on CPU, a joint one over both axes does not,
    and partial sums round less.
    """
    size = jnp.abs(x) if kind.power == 1 else x * x
    rows = jax.lax.optimization_barrier(jnp.sum(size, axis=0, keepdims=True))
    return jnp.sum(rows, axis=1, keepdims=True)


def _root(kind: Geometry, x: Array) -> Array:
    return x if kind.power == 1 else jnp.sqrt(x)


def _norm(kind: Geometry, x: Array) -> Array:
    return _root(kind, jnp.sum(_sums(kind, x)))


def bump(kind: Geometry, shape: tuple[int, ...], at: Corner, side: Array, sideways: Array) -> Array:
    """Draws a square with a positive bump in one half and a negative one in the other.

    Both halves have the same norm. The paper's equation 2 depends only on the Chebyshev distance
    from the centre of the half, so it is evaluated by table lookup along each axis.

    Args:
      kind: bump shape of the norm.
      shape: `[H, W, ...]`, shape of the image.
      at: position of the square.
      side: `[]` int32.
      sideways: `[]` bool, whether the halves lie side by side, not one above the other.

    Returns:
      `[H, W, 1]` of norm 1; 0 outside the square.

    >>> halves = bump(GEOMETRIES["l2"], (3, 3), (0, 0), jnp.int32(3), jnp.bool_(False))
    >>> print(halves[:, :, 0].round(2))
    [[ 0.14  0.68  0.14]
     [-0.13 -0.13 -0.13]
     [-0.13 -0.65 -0.13]]
    """
    half, longest = side // 2, max(shape[:2]) + 1
    heights = np.cumsum([0.0] + [1.0 / n**kind.decay for n in range(1, longest + 1)])
    table = jnp.asarray(heights, jnp.float32)

    def along(size: int, low: Array, cut: Array) -> tuple[Array, Array, Array]:
        offset = jnp.arange(size) - low
        first = offset < half
        middle = jnp.where(first, half // 2, half + (side - half) // 2)
        far = jnp.abs(offset - jnp.where(cut, middle, half))
        inside = (offset >= 0) & (offset < side)
        return table[jnp.minimum(far, longest)], inside, first | ~cut

    rows, inside_rows, first_rows = along(shape[0], at[0], ~sideways)
    columns, inside_columns, first_columns = along(shape[1], at[1], sideways)
    inside = (inside_rows[:, None] & inside_columns[None, :])[:, :, None]
    first = (first_rows[:, None] & first_columns[None, :])[:, :, None]
    height = table[half + 1] - jnp.maximum(rows[:, None], columns[None, :])[:, :, None]
    hill, hollow = jnp.where(inside & first, height, 0.0), jnp.where(inside & ~first, height, 0.0)
    # A square of one pixel has only the negative half.
    halves = jnp.where(half > 0, 2.0, 1.0)
    norms = [_root(kind, halves * _sums(kind, part)) for part in (hill, hollow)]
    hill, hollow = map(safe_divide, (hill, hollow), norms)
    return hill - hollow


def grid(key: Key, threat: ThreatModel, x0: Array, *, kind: Geometry) -> Array:
    """Returns the start of the search: a grid of about five by five bumps over the image."""
    height, width, channels = x0.shape
    tile = max(min(height, width) // 5, 1)
    rows, columns = height // tile, width // tile
    origin = (jnp.int32(0), jnp.int32(0))
    upright, sideways = (
        bump(kind, (tile, tile), origin, jnp.int32(tile), jnp.bool_(way))[None, :, None]
        for way in (False, True)
    )
    key_way, key_sign = jax.random.split(key)
    way = jax.random.bernoulli(key_way, 0.5, (rows, 1, columns, 1, 1))
    sign = jax.random.rademacher(key_sign, (rows, 1, columns, 1, channels), x0.dtype)
    move = (jnp.where(way, sideways, upright) * sign).reshape(rows * tile, columns * tile, channels)
    spare = (height - rows * tile, width - columns * tile)
    move = jnp.pad(move, [(n // 2, n - n // 2) for n in spare] + [(0, 0)])
    radius = jnp.minimum(threat.eps, threat.norm.diameter(x0.size)).astype(x0.dtype)
    if kind.power == 1:
        # Each bump has norm 1; soft thresholding leaves only their centres.
        return _shrunk(radius, x0, x0 + move, passes=START_SHRINKS)
    return jnp.clip(x0 + radius * safe_divide(move, _norm(kind, move)), 0.0, 1.0)


def _shrunk(eps: Array, x0: Array, x: Array, *, passes: int) -> Array:
    """Maps `x` into L1 ball and box: clips to the box, then soft-thresholds onto the ball.

    The iteration of Michelot (1986) approaches the threshold from below. It avoids the sort that an
    exact projection onto both sets would need.
    """
    move = jnp.clip(x, 0.0, 1.0) - x0
    size = jnp.abs(move)

    def rise(_: int, threshold: Array) -> Array:
        above = size > threshold
        excess = jnp.sum(jnp.where(above, size, 0.0)) - eps
        return jnp.maximum(safe_divide(excess, jnp.sum(above).astype(excess.dtype)), threshold)

    # Not unrolled: XLA would then recompute `size` and all its inputs in every pass.
    threshold = jax.lax.fori_loop(0, passes, rise, jnp.full_like(x0, 0.0, shape=()))
    left = move - jnp.clip(move, -threshold, threshold)
    left = left * jnp.minimum(safe_divide(eps, _norm(GEOMETRIES["l1"], left)), 1.0)
    point = x0 + left
    # Half an ulp of excess in thousands of values exceeds a tiny eps, so step one ulp back.
    ulp = jnp.sign(left) * jnp.finfo(x0.dtype).eps * point
    return jnp.clip(point - jnp.where(jnp.abs(point - x0) > jnp.abs(left), ulp, 0.0), 0.0, 1.0)


def with_new_bump(
    kind: Geometry, threat: ThreatModel, x0: Array, kept: Array, side: Array, draw: Draw
) -> Array:
    """Proposes a candidate: adds a bump in one square and clears another to free norm budget.

    Algorithm 3. Budget lost to clipping of earlier changes is spent as well.
    """
    shape, channels = x0.shape, x0.shape[-1]
    radius = jnp.minimum(threat.eps, threat.norm.diameter(x0.size)).astype(x0.dtype)
    # In units of eps, since the square of eps may underflow. The barrier halves the cost of a
    # candidate: without it XLA repeats the division in each of the sums.
    move = jax.lax.optimization_barrier(safe_divide(kept - x0, radius))
    at = corner(shape, side, draw.place)
    inside, cleared = window(shape, at, side), window(shape, corner(shape, side, draw.donor), side)
    old = jnp.where(inside, move, 0.0)
    fresh = bump(kind, shape, at, side, draw.way < 0.5)
    fresh = fresh * jnp.where(draw.sign < 0.5, 1.0, -1.0)[None, None, :]
    fresh = fresh + safe_divide(old, _root(kind, _sums(kind, old)))
    held = _sums(kind, jnp.where(inside | cleared, move, 0.0))
    unspent = jnp.maximum(1.0 - jnp.sum(_sums(kind, move)), 0.0)
    budget = _root(kind, unspent / channels + held)
    if kind.power == 1:
        budget = budget * channels  # too much on purpose: thresholding makes the change sparse
    fresh = safe_divide(fresh, _root(kind, _sums(kind, fresh))) * budget
    move = jnp.where(inside, fresh, jnp.where(cleared, 0.0, move))
    if kind.power == 1:
        return _shrunk(radius, x0, x0 + radius * move, passes=SHRINKS)
    # Shrinks by two ulps, since rounding can leave a point about one ulp outside.
    length = _norm(kind, move) * (1.0 + 2.0 * jnp.finfo(x0.dtype).eps)
    return jnp.clip(x0 + radius * safe_divide(move, length), 0.0, 1.0)
