"""DDN: minimum-norm attack in L2 that decouples the direction from the norm.

Rony et al. (2019), "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial
Attacks and Defenses", https://arxiv.org/abs/1811.09600, algorithm 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks.iterative import IterativeAttack, zero_like
from advfeat.attacks.keeping import by_distance
from advfeat.attacks.step_rules import cosine
from advfeat.checks import check_eps, check_fraction, check_norm, check_positive
from advfeat.numerics import whole
from advfeat.objectives.classification import untargeted
from advfeat.threats import norms
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Evaluation, Key, Objective, pytree, static

FIRST_STEP, LAST_STEP = 1.0, 0.01  # the paper's values, in L2
AT_EDGE = 0.999  # share of eps from which a larger radius has no effect


class DDNState(NamedTuple):
    """State of DDN.

    Attributes:
      x: the iterate.
      x0: the example.
      step: `[]` int32, steps taken.
      radius: `[]`, radius of the sphere onto which the iterate was projected, before clipping.
      fallback: like the example, random direction used when the gradient is zero.
    """

    x: Array
    x0: Array
    step: Array
    radius: Array
    fallback: Array


def rounded_to_levels(threat: ThreatModel, x0: Array, x: Array, levels: Array) -> Array:
    """Quantises `x` to multiples of `1 / (levels - 1)` without leaving the threat model.

    Rounds to the nearest level if the result is allowed. Otherwise rounds every pixel towards `x0`,
    and leaves it at its value in `x0` if no level lies in between.
    """
    top = levels - 1
    steps = whole(x * top)  # a pixel already on a level stays there
    nearest = jnp.round(steps) / top
    low, high = jnp.minimum(x0, x), jnp.maximum(x0, x)
    inwards = jnp.where(x > x0, jnp.floor(steps), jnp.ceil(steps)) / top
    point = jnp.where(threat.contains(x0, nearest), nearest, jnp.clip(inwards, low, high))
    return point.astype(x0.dtype)


@pytree
class DecoupledDirectionNorm(IterativeAttack):
    """DDN: an `AttackFn`. Make one with `ddn`.

    Attributes:
      threat: L2; its eps (possibly infinite) bounds the search.
      gamma: `[]` float32, relative change of the radius per step.
      initial_norm: `[]` float32, initial radius.
      steps: number of moves.
      levels: `[]` float32, number of values a pixel may take, or None for any in [0, 1].
      objective: what to ascend.
    """

    threat: ThreatModel
    gamma: Array
    initial_norm: Array
    levels: Array | None
    steps: int = static()
    objective: Objective = static()
    keep = staticmethod(by_distance)

    def first(self, key: Key, x0: Array, start: Array) -> DDNState:
        """Returns the state at the start, with the direction to fall back on."""
        widest = jnp.minimum(self.threat.eps, self.threat.norm.diameter(x0.size))
        radius = jnp.full_like(x0, 0.0, shape=()) + jnp.minimum(self.initial_norm, widest)
        fallback = jax.random.normal(key, x0.shape, x0.dtype)
        return DDNState(start, x0, zero_like(x0), radius.astype(x0.dtype), fallback)

    def update(self, search: DDNState, seen: Evaluation) -> DDNState:
        """Steps along the gradient, then projects onto the sphere of the current radius."""
        x, x0, step, radius, fallback = search
        assert seen.grad is not None
        # A saturated cross-entropy has a gradient of exactly zero: move at random then.
        gradient = jnp.where(jnp.any(seen.grad != 0), seen.grad, fallback)
        step_size = cosine(FIRST_STEP, LAST_STEP, step, self.steps)
        offset = x - x0 + step_size * norms.L2.direction(x, gradient)
        # Clipping to the box brings the iterate nearer than its radius, so the radius may have to
        # exceed eps. It stops growing once the iterate itself reaches the edge of the ball.
        at_edge = self.threat.distance(x0, x) >= AT_EDGE * self.threat.eps
        growth = jnp.where(at_edge, 1.0, 1.0 + self.gamma)
        radius = radius * jnp.where(seen.success, 1.0 - self.gamma, growth)
        radius = jnp.minimum(radius, self.threat.norm.diameter(x0.size)).astype(x0.dtype)
        moved = x0 + radius * norms.L2.direction(x0, offset)
        moved = self.threat.project(x0, moved)
        if self.levels is not None:
            moved = rounded_to_levels(self.threat, x0, moved, self.levels)
        return DDNState(moved, x0, step + 1, radius, fallback)


def ddn(
    threat: ThreatModel,
    *,
    steps: int = 100,
    gamma: float | Array = 0.05,
    initial_norm: float | Array = 1.0,
    levels: int | None = None,
    objective: Objective = untargeted(),
) -> DecoupledDirectionNorm:
    """Returns DDN, the decoupled direction and norm attack (L2, minimum norm): algorithm 1.

    Each step follows the gradient by a length that decays from 1 to 0.01 on a cosine, then projects
    onto a sphere around the example, whose radius shrinks after a success and grows otherwise.

    Args:
      threat: L2. An infinite eps searches for the nearest adversarial example anywhere in the box;
        a finite one restricts search and success to the ball.
      steps: number of moves; the paper uses 100, 300 and 1000.
      gamma: `[]`, relative change of the radius per step, in [0, 1).
      initial_norm: `[]`, initial radius, in units of [0, 1] pixels.
      levels: quantise the pixels of every iterate to this many equally spaced values, 256 for 8-bit
        images (the pixels of `x` are assumed to be such values, too); None for no quantisation.
      objective: what to ascend; by default cross-entropy away from the label. A targeted objective
        makes the attack's `y` the target.

    Returns:
      An `AttackFn` for ONE example. `best` is the nearest success, at distance 0 if the example
      itself is a success.

    Raises:
      ValueError: for an unsupported norm, steps below 1, levels below 2, or a gamma or radius out
        of range.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> attack = ddn(advfeat.l2())
    >>> result = attack(jax.random.key(0), lambda x: x, jnp.array([0.7, 0.5]), 0)
    >>> result.best.x.round(2).tolist(), round(float(result.best.distance), 2)
    ([0.6, 0.6], 0.14)
    """
    check_norm(threat.norm.name, allowed=("l2",), attack="ddn")
    check_positive(steps, name="steps")
    check_fraction(gamma, name="gamma")
    check_eps(initial_norm, name="initial_norm")
    if levels is not None and (not isinstance(levels, int) or levels < 2):
        raise ValueError(f"levels must be a whole number >= 2 or None, got {levels!r}")
    return DecoupledDirectionNorm(
        threat=threat,
        gamma=jnp.asarray(gamma, jnp.float32),
        initial_norm=jnp.asarray(initial_norm, jnp.float32),
        # A leaf: XLA divides by a constant via its reciprocal, which lands an ulp off the level.
        levels=None if levels is None else jnp.asarray(levels, jnp.float32),
        steps=steps,
        objective=objective,
    )
