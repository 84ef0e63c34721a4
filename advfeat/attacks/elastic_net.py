"""EAD: sparse adversarial examples by an elastic-net penalty, L1 plus squared L2.

Chen et al. (2018), "EAD: Elastic-Net Attacks to Deep Neural Networks via Adversarial Examples",
https://arxiv.org/abs/1709.04114, algorithm 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks.iterative import AttackState, zero_like
from advfeat.attacks.keeping import by_distance, choose
from advfeat.attacks.tradeoff import PenaltyAttack, Tradeoff, binary_searched, tradeoff
from advfeat.checks import check_eps, check_norm, check_positive
from advfeat.objectives.classification import untargeted
from advfeat.objectives.losses import margin
from advfeat.threats.balls import ThreatModel
from advfeat.types import (
    Array,
    Best,
    Evaluation,
    Key,
    ModelFn,
    Objective,
    pytree,
    static,
)

DECISIONS = ("l1", "elastic_net")


class ElasticNetState(NamedTuple):
    """State of EAD.

    Attributes:
      x: the iterate, a candidate for the result.
      x0: the example.
      step: `[]` int32, steps taken.
      ahead: point extrapolated from the last two iterates, where gradients are taken.
      tradeoff: weight of the hinge and the state of its search.
    """

    x: Array
    x0: Array
    step: Array
    ahead: Array
    tradeoff: Tradeoff


def shrink(x0: Array, x: Array, beta: Array) -> Array:
    """Soft-thresholds the perturbation by beta: equation (4), without the box."""
    step = x - x0
    return x0 + jnp.sign(step) * jnp.maximum(jnp.abs(step) - beta, 0.0)


@pytree
class ElasticNet(PenaltyAttack):
    """EAD: an `AttackFn`. Make one with `elastic_net`.

    Attributes:
      threat: L1; its eps (possibly infinite) bounds the search.
      beta: `[]` float32, weight of L1 relative to squared L2.
      step_size: `[]` float32, initial step size.
      initial_const: `[]` float32, initial weight of the hinge.
      confidence: `[]` float32, kappa: smallest score that counts as success.
      steps: moves of all inner runs together.
      length: moves of one inner run.
      decision: which success to keep: the nearest by `l1` or by `elastic_net`.
      objective: what to ascend.
    """

    threat: ThreatModel
    beta: Array
    step_size: Array
    initial_const: Array
    confidence: Array
    steps: int = static()
    length: int = static()
    decision: str = static()
    objective: Objective = static()

    def first(self, key: Key, x0: Array, start: Array) -> ElasticNetState:
        """Returns the state at the start of the first inner run."""
        del key
        weight = tradeoff(x0, self.initial_const)
        return ElasticNetState(start, x0, zero_like(x0), start, weight)

    def update(self, search: ElasticNetState, seen: Evaluation) -> ElasticNetState:
        """Takes a step of FISTA, given the hinge's gradient at `ahead` and the success of `x`."""
        x0, ahead, step = search.x0, search.ahead, search.step + 1
        assert seen.grad is not None
        since = (search.step % self.length).astype(x0.dtype)
        step_size = self.step_size * jnp.sqrt(1.0 - since / self.length)
        slope = search.tradeoff.weight * seen.grad - 2.0 * (ahead - x0)
        x = shrink(x0, ahead + (step_size * slope).astype(x0.dtype), self.beta)
        x = self.threat.project(x0, x)
        ahead = jnp.clip(x + since / (since + 3.0) * (x - search.x), 0.0, 1.0)
        ended = self.ended(step)
        x, ahead = jnp.where(ended, x0, x), jnp.where(ended, x0, ahead)
        weight = binary_searched(search.tradeoff, seen.success, ended)
        return ElasticNetState(x, x0, step, ahead, weight)

    def step(self, model_fn: ModelFn, state: AttackState) -> AttackState:
        """Evaluates the iterate, then moves by the gradient at the extrapolated point."""
        search = state.search
        key = jax.random.fold_in(state.key, search.step)
        seen = self.value_oracle(model_fn, state.aim)(key, search.x)
        ahead = self.oracle(model_fn, state.aim)(key, search.ahead)
        assert ahead.grad is not None
        hinge = jnp.where(ahead.success, 0.0, ahead.grad)
        both = Evaluation(ahead.score, seen.success, hinge)
        return state._replace(
            search=self.update(search, both),
            best=self.better(state, search.x, seen),
            queries=state.queries + 2,
            gradients=state.gradients + 1,
        )

    def better(self, state: AttackState, x: Array, seen: Evaluation) -> Best:
        """Applies the decision rule; `Best.distance` is L1, so the elastic net is recomputed."""
        if self.decision == "l1":
            return super().better(state, x, seen)
        x0 = state.search.x0

        def elastic(point: Best) -> Best:
            square = jnp.sum((point.x - x0) ** 2)
            return point._replace(distance=self.beta * self.distance(x0, point.x) + square)

        def nearest(new: Best, old: Best) -> Array:
            return by_distance(elastic(new), elastic(old))

        return choose(nearest, self.record(x0, x, seen), state.best)


def elastic_net(
    threat: ThreatModel,
    *,
    steps: int = 1000,
    binary_search_steps: int = 9,
    beta: float | Array = 1e-2,
    step_size: float | Array = 1e-2,
    initial_const: float | Array = 1e-3,
    confidence: float | Array = 0.0,
    decision: str = "l1",
    objective: Objective = untargeted(margin),
) -> ElasticNet:
    """Returns EAD: minimises `c * max(-score, -kappa) + beta * |d|_1 + |d|_2^2` by FISTA.

    Each step descends the smooth part, then shrinks every pixel change towards 0 by beta, so that
    most pixels do not change at all. The constant c is found by a binary search over inner runs.

    Args:
      threat: L1. An infinite eps searches for the nearest adversarial example anywhere in the box;
        a finite one restricts search and success to the ball.
      steps: moves of one inner run, each costing two forward passes and one backward pass.
      binary_search_steps: number of inner runs: c grows tenfold from run to run until the first
        success, then bisects the interval.
      beta: `[]`, weight of L1; as in the paper, both in the objective and as shrinkage per step.
      step_size: `[]`, initial step size; decays with the square root of the remaining steps.
      initial_const: `[]`, initial c.
      confidence: `[]`, kappa: score required for success; 0 requires only success itself.
      decision: which success to keep: `l1`, the nearest in L1, or `elastic_net`, the one with the
        smallest `beta * |d|_1 + |d|_2^2`. `Best.distance` is L1 in both cases.
      objective: what to ascend; by default the margin away from the label. `targeted(margin)` makes
        the attack's `y` the target.

    Returns:
      An `AttackFn` for ONE example; `best` is at distance 0 if the example itself is a success.

    Raises:
      ValueError: for an unsupported norm, an unknown decision, counts below 1, or a negative or NaN
        number.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> attack = elastic_net(advfeat.l1(), steps=100)
    >>> result = attack(jax.random.key(0), lambda x: jnp.stack([2.0 * x[0] + x[1], 1.0]),
    ...                 jnp.array([0.5, 0.25]), 0)
    >>> result.best.x.round(2).tolist()
    [0.37, 0.25]
    """
    check_norm(threat.norm.name, allowed=("l1",), attack="elastic_net")
    check_positive(steps, name="steps")
    check_positive(binary_search_steps, name="binary_search_steps")
    if decision not in DECISIONS:
        raise ValueError(f"decision must be one of {', '.join(DECISIONS)}, got {decision!r}")
    numbers = {
        "beta": beta,
        "step_size": step_size,
        "initial_const": initial_const,
        "confidence": confidence,
    }
    for name, value in numbers.items():
        check_eps(value, name=name)
    return ElasticNet(
        threat=threat,
        **{name: jnp.asarray(value, jnp.float32) for name, value in numbers.items()},
        steps=steps * binary_search_steps,
        length=steps,
        decision=decision,
        objective=objective,
    )
