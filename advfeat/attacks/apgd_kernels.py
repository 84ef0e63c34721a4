"""The update rules of Auto-PGD: ascent with adaptive step sizes.

Croce and Hein (2020), https://arxiv.org/abs/2003.01690, algorithm 1; for L1 Croce and Hein (2021),
https://arxiv.org/abs/2103.01208, algorithm 1 with its radius reduction. Constants are the papers';
those that the papers omit are taken from the authors' code.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.attacks.iterative import zero_like
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Evaluation

MOMENTUM = 0.75  # alpha: weight of the new step in the move
FIRST_STEP = 2.0  # initial step size, over eps
L1_SLOWER = 1.5  # divisor of the L1 step size at a checkpoint
L1_SMALLEST = 0.1  # smallest L1 step size, over the radius
L1_SPARSER = 0.95  # the search restarts if the best point's pixel count falls below this share


# --- Schedules: static tables indexed by step count. ----------------------------------------------


def windows(steps: int) -> np.ndarray:
    """Returns the checkpoint table `[steps + 1]`: steps since the last checkpoint, 0 in between.

    The first window is 22 % of the steps; each later one is shorter by 3 % of the steps, with a
    minimum of 6 %.

    >>> np.flatnonzero(windows(100)).tolist()
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    window, least, less = (max(share * steps // 100, 1) for share in (22, 6, 3))
    table = np.zeros(steps + 1, np.int32)
    at = window
    while at <= steps:
        table[at] = window
        window = max(window - less, least)
        at += window
    return table


def phases(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the radii and checkpoints of the L1 search, two arrays `[steps + 1]`.

    Returns:
      The radius at each step count, in units of eps: 3 for the first 30 % of the steps, 2 for the
      next 30 %, then 1. And whether that step ends a window of 4 % of the steps of its phase.

    >>> radius, _ = phases(10)
    >>> radius.tolist()
    [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    edges = [0, 3 * steps // 10, 6 * steps // 10, steps]
    radius, due = np.ones(steps + 1, np.float32), np.zeros(steps + 1, bool)
    for factor, begin, end in zip((3, 2, 1), edges[:-1], edges[1:], strict=True):
        window = max(4 * (end - begin) // 100, 1)
        radius[begin:end] = factor
        due[begin + window : end : window] = True
    return radius, due


# --- L-infinity and L2. ---------------------------------------------------------------------------


class AutoState(NamedTuple):
    """State of Auto-PGD.

    Attributes:
      x: the iterate.
      x0: the example.
      step: `[]` int32, steps taken.
      before: the previous iterate.
      best: the point of highest score.
      best_grad: gradient at `best`.
      best_score: `[]`, score of `best`.
      score: `[]`, score of the iterate before `x`.
      step_size: `[]`, over eps.
      rises: `[]` int32, number of steps since the last checkpoint that raised the score.
      checked: `[]`, best score at the last checkpoint.
      halved: `[]` bool, whether the last checkpoint halved the step size.
    """

    x: Array
    x0: Array
    step: Array
    before: Array
    best: Array
    best_grad: Array
    best_score: Array
    score: Array
    step_size: Array
    rises: Array
    checked: Array
    halved: Array


class AutoAscent(NamedTuple):
    """The update rule of Auto-PGD for L-infinity and L2.

    Attributes:
      threat: the set of allowed inputs, L-infinity or L2.
      steps: total number of steps, which determines the checkpoints.
      rho: `[]`, the step size is halved if at most this share of steps raised the score.
    """

    threat: ThreatModel
    steps: int
    rho: Array

    def first(self, x0: Array, start: Array) -> AutoState:
        """Returns the state at the start."""
        scalar = partial(jnp.full_like, x0, shape=(), dtype=jnp.float32)
        return AutoState(
            x=start,
            x0=x0,
            step=zero_like(x0),
            before=start,
            best=start,
            best_grad=jnp.zeros_like(x0),
            best_score=scalar(-jnp.inf),
            score=scalar(jnp.inf),  # the start never counts as a rise
            step_size=scalar(FIRST_STEP),
            rises=zero_like(x0),
            checked=scalar(-jnp.inf),
            # Disables the stall test at the first checkpoint, which has no predecessor.
            halved=jnp.full_like(x0, True, shape=(), dtype=bool),
        )

    def update(self, search: AutoState, seen: Evaluation) -> AutoState:
        """Adapts the step size at a checkpoint, then takes a step with momentum."""
        threat, score, grad = self.threat, seen.score.astype(jnp.float32), seen.grad
        assert grad is not None
        rises = search.rises + (score > search.score).astype(jnp.int32)
        best, best_grad, best_score = _better(score, grad, search)
        window = jnp.asarray(windows(self.steps))[search.step]
        due = window > 0
        stalled = ~search.halved & (search.checked >= best_score)
        few = rises.astype(jnp.float32) <= self.rho * window.astype(jnp.float32)
        halve = due & (few | stalled)
        step_size = jnp.where(halve, 0.5 * search.step_size, search.step_size)
        x, grad = jnp.where(halve, best, search.x), jnp.where(halve, best_grad, grad)

        length = step_size * finite_radius(threat, search.x0)
        stepped = threat.project(search.x0, x + length.astype(x.dtype) * threat.direction(x, grad))
        share = jnp.where(search.step > 0, MOMENTUM, 1.0).astype(x.dtype)
        move = share * (stepped - x) + (1.0 - share) * (x - search.before)
        return AutoState(
            x=threat.project(search.x0, x + move),
            x0=search.x0,
            step=search.step + 1,
            before=x,
            best=best,
            best_grad=best_grad,
            best_score=best_score,
            score=score,
            step_size=step_size,
            rises=jnp.where(due, 0, rises),
            checked=jnp.where(due, best_score, search.checked),
            halved=jnp.where(due, halve, search.halved),
        )


def _better(
    score: Array, grad: Array, search: AutoState | SparseState
) -> tuple[Array, Array, Array]:
    """Updates the best point, its gradient and its score with the iterate just evaluated."""
    new = (search.x, grad, score)
    old = (search.best, search.best_grad, search.best_score)
    # A NaN score compares false and is never kept.
    return jax.tree.map(partial(jnp.where, score > search.best_score), new, old)  # type: ignore[no-any-return]


def finite_radius(threat: ThreatModel, x0: Array, factor: Array | float = 1.0) -> Array:
    """Returns `factor * eps`, capped at the diameter of the box so that it is finite."""
    return jnp.minimum(factor * threat.eps, threat.norm.diameter(x0.size))


# --- L1. ------------------------------------------------------------------------------------------


class SparseState(NamedTuple):
    """State of Auto-PGD for L1.

    Attributes:
      x: the iterate.
      x0: the example.
      step: `[]` int32, steps taken.
      best: the point of highest score in this phase.
      best_grad: gradient at `best`.
      best_score: `[]`, score of `best`.
      step_size: `[]`, over the radius of the phase.
      moved: `[]` int32, pixels changed by the best point at the last checkpoint.
    """

    x: Array
    x0: Array
    step: Array
    best: Array
    best_grad: Array
    best_score: Array
    step_size: Array
    moved: Array


class SparseAscent(NamedTuple):
    """The update rule of Auto-PGD for L1, which adapts the sparsity of its steps.

    Attributes:
      threat: the set of allowed inputs. The search begins in a ball of three times its radius and
        enters it after 60 % of the steps.
      steps: total number of steps.
    """

    threat: ThreatModel
    steps: int

    def first(self, x0: Array, start: Array) -> SparseState:
        """Returns the state at the start."""
        scalar = partial(jnp.full_like, x0, shape=(), dtype=jnp.float32)
        return SparseState(
            x=start,
            x0=x0,
            step=zero_like(x0),
            best=start,
            best_grad=jnp.zeros_like(x0),
            best_score=scalar(-jnp.inf),
            step_size=scalar(1.0),
            moved=_moved(x0, start),
        )

    def update(self, search: SparseState, seen: Evaluation) -> SparseState:
        """Adapts sparsity and step size at a checkpoint, then moves the chosen pixels."""
        x0, score, grad = search.x0, seen.score.astype(jnp.float32), seen.grad
        assert grad is not None
        radii, checkpoints = phases(self.steps)
        best, best_grad, best_score = _better(score, grad, search)
        due = jnp.asarray(checkpoints)[search.step]
        moved = _moved(x0, best)
        afresh = moved.astype(jnp.float32) < L1_SPARSER * search.moved.astype(jnp.float32)
        slower = jnp.maximum(search.step_size / L1_SLOWER, L1_SMALLEST)
        step_size = jnp.where(due, jnp.where(afresh, 1.0, slower), search.step_size)
        moved = jnp.where(due, moved, search.moved)
        x = jnp.where(due & afresh, best, search.x)
        grad = jnp.where(due & afresh, best_grad, grad)

        factor, following = (jnp.asarray(radii)[search.step + i] for i in (0, 1))
        length = step_size * finite_radius(self.threat, x0, factor)
        stepped = x + length.astype(x.dtype) * _sparse_sign(grad, moved)
        # The next phase starts at the best point, projected onto its smaller ball.
        shrinks = following < factor
        target = jnp.where(shrinks, best, stepped)
        x = self.threat.norm.project(finite_radius(self.threat, x0, following), x0, target)
        return SparseState(
            x=x,
            x0=x0,
            step=search.step + 1,
            best=best,
            best_grad=best_grad,
            best_score=jnp.where(shrinks, -jnp.inf, best_score),
            step_size=jnp.where(shrinks, 1.0, step_size),
            moved=jnp.where(shrinks, _moved(x0, x), moved),
        )


def _moved(x0: Array, x: Array) -> Array:
    """Counts the pixels that changed by more than rounding."""
    return jnp.sum(jnp.abs(x - x0) > 1e-6, dtype=jnp.int32)


def _sparse_sign(gradient: Array, moved: Array) -> Array:
    """Returns the signs of the `moved / 1.5` largest entries (with ties), over their number."""
    size = jnp.abs(gradient)
    # Integer arithmetic: a floating-point quotient may round to either side.
    count = jnp.clip((2 * moved + 2) // 3, 1, size.size)
    least = jnp.sort(size.ravel())[size.size - count]
    sign = jnp.where(size >= least, jnp.sign(gradient), 0.0)
    return sign / jnp.maximum(jnp.sum(jnp.abs(sign)), 1.0)
