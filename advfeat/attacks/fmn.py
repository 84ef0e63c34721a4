"""FMN: minimum-norm attack in L-infinity, L2 or L1 with an adaptive norm constraint.

Pintor et al. (2021), "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints",
https://arxiv.org/abs/2102.12827, algorithm 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from advfeat.attacks.iterative import IterativeAttack, zero_like
from advfeat.attacks.keeping import by_distance
from advfeat.attacks.step_rules import cosine
from advfeat.checks import check_eps, check_fraction, check_norm, check_positive
from advfeat.objectives.classification import untargeted
from advfeat.objectives.losses import margin
from advfeat.threats import norms
from advfeat.threats.balls import ThreatModel
from advfeat.threats.hyperplane import unbounded_distance
from advfeat.types import Array, Evaluation, Key, Objective, pytree, static


class FMNState(NamedTuple):
    """State of FMN.

    Attributes:
      x: the iterate.
      x0: the example.
      step: `[]` int32, steps taken.
      radius: `[]`, radius of the ball onto which the iterate was projected (the paper's epsilon).
      nearest: `[]`, distance of the nearest success so far; infinite before the first success.
    """

    x: Array
    x0: Array
    step: Array
    radius: Array
    nearest: Array


@pytree
class FastMinimumNorm(IterativeAttack):
    """FMN: an `AttackFn`. Make one with `fmn`.

    Attributes:
      threat: its norm is minimised; its eps (possibly infinite) bounds the search.
      step_size: `[]` float32, initial step size, in L2 for every norm.
      last_step_size: `[]` float32, final step size.
      gamma: `[]` float32, relative change of the radius in the first step.
      last_gamma: `[]` float32, relative change of the radius in the last step.
      steps: number of moves.
      objective: what to ascend; its score should be 0 at the decision boundary.
    """

    threat: ThreatModel
    step_size: Array
    last_step_size: Array
    gamma: Array
    last_gamma: Array
    steps: int = static()
    objective: Objective = static()
    keep = staticmethod(by_distance)

    def first(self, key: Key, x0: Array, start: Array) -> FMNState:
        """Returns the state at the start, before any success."""
        del key
        nothing = jnp.full_like(x0, jnp.inf, shape=())
        return FMNState(start, x0, zero_like(x0), nothing, nothing)

    def update(self, search: FMNState, seen: Evaluation) -> FMNState:
        """Steps along the gradient direction, then projects onto the ball of the current radius."""
        x, x0, step, radius, nearest = search
        assert seen.grad is not None
        step_size = cosine(self.step_size, self.last_step_size, step, self.steps)
        gamma = cosine(self.gamma, self.last_gamma, step, self.steps)
        far = self.threat.distance(x0, x)
        nearest = jnp.where(seen.success, jnp.minimum(nearest, far), nearest)
        # Before the first success, linearising the score estimates where the boundary lies. The
        # paper aims exactly at it and never crosses it if the network is linear.
        guess = far + unbounded_distance(self.threat.norm, seen.grad, seen.score)
        grown = jnp.where(jnp.isinf(nearest), guess, radius) * (1.0 + gamma)
        shrunk = jnp.minimum(radius * (1.0 - gamma), nearest)
        radius = jnp.where(seen.success, shrunk, grown)
        widest = jnp.minimum(self.threat.eps, self.threat.norm.diameter(x0.size))
        radius = jnp.minimum(radius, widest).astype(x0.dtype)
        # The step is L2-normalised in every norm; only the projection depends on the norm.
        move = step_size * norms.L2.direction(x, seen.grad)
        moved = self.threat.norm.project(radius, x0, x + move.astype(x0.dtype))
        return FMNState(moved, x0, step + 1, radius, nearest)


def fmn(
    threat: ThreatModel,
    *,
    steps: int = 100,
    step_size: float | Array = 1.0,
    last_step_size: float | Array | None = None,
    gamma: float | Array = 0.05,
    last_gamma: float | Array = 1e-3,
    objective: Objective = untargeted(margin),
) -> FastMinimumNorm:
    """Returns FMN, a fast minimum-norm attack with adaptive norm constraints: algorithm 1.

    Each step follows the gradient, then projects onto a ball around the example. Until the first
    success the ball extends to the boundary of the linearised network; afterwards its radius
    shrinks after a success and grows otherwise, with relative changes that decay over time.

    Args:
      threat: its norm is minimised. An infinite eps searches for the nearest adversarial example
        anywhere in the box; a finite one restricts search and success to the ball.
      steps: number of moves.
      step_size: `[]`, initial step size, measured in L2 for every norm; decays on a cosine.
      last_step_size: `[]`, final step size; by default a hundredth of the initial one.
      gamma: `[]`, relative change of the radius in the first step, in [0, 1).
      last_gamma: `[]`, relative change of the radius in the last step.
      objective: what to ascend; by default the margin away from the label. Its score should be 0
        at the decision boundary; `targeted(margin)` makes the attack's `y` the target.

    Returns:
      An `AttackFn` for ONE example. `best` is the nearest success, at distance 0 if the example
      itself is a success.

    Raises:
      ValueError: for an unsupported norm, steps below 1, or step sizes or shares out of range.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> attack = fmn(advfeat.linf())
    >>> result = attack(jax.random.key(0), lambda x: x, jnp.array([0.7, 0.5]), 0)
    >>> result.best.x.round(2).tolist(), round(float(result.best.distance), 2)
    ([0.6, 0.6], 0.1)
    """
    check_norm(threat.norm.name, allowed=tuple(norms.NORMS), attack="fmn")
    check_positive(steps, name="steps")
    check_eps(step_size, name="step_size")
    if last_step_size is None:
        last_step_size = step_size / 100
    check_eps(last_step_size, name="last_step_size")
    check_fraction(gamma, name="gamma")
    check_fraction(last_gamma, name="last_gamma")
    return FastMinimumNorm(
        threat=threat,
        step_size=jnp.asarray(step_size, jnp.float32),
        last_step_size=jnp.asarray(last_step_size, jnp.float32),
        gamma=jnp.asarray(gamma, jnp.float32),
        last_gamma=jnp.asarray(last_gamma, jnp.float32),
        steps=steps,
        objective=objective,
    )
