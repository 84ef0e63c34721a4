"""The ascent loop: every attack and every visualisation ascends a score within a set of inputs.

A kernel is a pair of pure functions that never see the network; an oracle evaluates points.
`ascend` alternates between the two and keeps the best iterate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks.step_rules import StepRule, initial_state, moved
from advfeat.numerics import finite
from advfeat.threats.balls import ThreatModel
from advfeat.types import (
    Array,
    AttackResult,
    Best,
    Evaluation,
    Key,
    ModelFn,
    Objective,
    Oracle,
    with_key,
)

Prefer = Callable[[Best, Best], Array]
"""Candidate, incumbent -> `[]` bool, whether the candidate replaces the incumbent."""


Distance = Callable[[Array, Array], Array]
"""Example, point -> `[]`."""


class Ascent(NamedTuple):
    """An ascent kernel: the state and update rule of an attack.

    Attributes:
      init: `(key, x0, start) -> State`; every State has `x`, `x0`, `count`.
      update: `(State, Evaluation) -> State`: takes the evaluation at `state.x` and moves.
    """

    init: Callable[[Key, Array, Array], Any]
    update: Callable[[Any, Evaluation], Any]


class ProjectedState(NamedTuple):
    """State of projected gradient ascent.

    Attributes:
      x: the iterate.
      x0: the example.
      count: `[]` int32, steps taken; schedules and keys depend on it, not on a loop index.
      rule: the step rule's optax state.
    """

    x: Array
    x0: Array
    count: Array  # type: ignore[assignment]  # shadows tuple.count on purpose
    rule: Any


def projected_ascent(threat: ThreatModel, rule: StepRule, step_size: Array) -> Ascent:
    """Returns the kernel of projected ascent: a step by `rule`, then projection.

    Args:
      threat: the set of allowed inputs.
      rule: step rule that turns a gradient into a move.
      step_size: `[]`.
    """

    def init(key: Key, x0: Array, start: Array) -> ProjectedState:
        del key
        count = jnp.full_like(x0, 0, shape=(), dtype=jnp.int32)
        return ProjectedState(start, x0, count, initial_state(rule, threat, step_size, x0))

    def update(state: ProjectedState, evaluation: Evaluation) -> ProjectedState:
        move, rule_state = moved(rule(threat, step_size), evaluation.grad, state.rule, state.x)
        x = threat.project(state.x0, state.x + move)
        return ProjectedState(x, state.x0, state.count + 1, rule_state)

    return Ascent(init, update)


def white_box(objective: Objective, model_fn: ModelFn, y: Any) -> Oracle:
    """Returns the white-box oracle: one forward and one backward pass per evaluation.

    Infinite and NaN entries of the gradient are set to 0 here, on behalf of every attack.
    """

    def oracle(key: Key, x: Array) -> Evaluation:
        def score_fn(point: Array) -> tuple[Array, Array]:
            return objective(with_key(model_fn, key), point, y, key)

        (score, success), gradient = jax.value_and_grad(score_fn, has_aux=True)(x)
        return Evaluation(score, success, finite(gradient))

    return oracle


def scores_only(objective: Objective, model_fn: ModelFn, y: Any) -> Oracle:
    """Returns the black-box oracle: one forward pass, no gradient."""

    def oracle(key: Key, x: Array) -> Evaluation:
        score, success = objective(with_key(model_fn, key), x, y, key)
        return Evaluation(score, success, None)

    return oracle


def by_score(candidate: Best, incumbent: Best) -> Array:
    """Prefers the higher score, for visualisations."""
    return candidate.score > incumbent.score


def by_recency(candidate: Best, incumbent: Best) -> Array:
    """Prefers the later iterate: with noisy scores, the maximum is mostly luck."""
    del incumbent
    return jnp.ones_like(candidate.success)


def by_success(candidate: Best, incumbent: Best) -> Array:
    """Prefers success, then the higher score, for attacks within a threat model.

    Selecting by score alone overestimated robust accuracy by up to 1.1 points: the iterate of
    highest cross-entropy is not always misclassified.
    """
    same = candidate.success == incumbent.success
    return jnp.where(same, candidate.score > incumbent.score, candidate.success)


def by_distance(candidate: Best, incumbent: Best) -> Array:
    """Prefers success, then the smaller distance (without success, the higher score)."""
    nearer = candidate.distance < incumbent.distance
    better = jnp.where(candidate.success, nearer, candidate.score > incumbent.score)
    return jnp.where(candidate.success == incumbent.success, better, candidate.success)


def choose(prefer: Prefer, candidate: Best, incumbent: Best) -> Best:
    """Returns the preferred of two iterates. A candidate with a NaN score never wins."""
    take = prefer(candidate, incumbent) & ~jnp.isnan(candidate.score)
    return jax.tree.map(lambda new, old: jnp.where(take, new, old), candidate, incumbent)


def varying_with(x: Array, *others: Any) -> Array:
    """Makes `x` vary over every `shard_map` axis over which any of the others varies.

    A loop carry must have the same varying axes before and after: eps, the key or the label may be
    sharded over devices while the example is replicated.
    """
    for leaf in jax.tree.leaves(others):
        is_key = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
        data = jax.random.key_data(leaf) if is_key else leaf
        x = x + jnp.full_like(data, 0, shape=(), dtype=x.dtype)
    return x


def nothing_yet(x0: Array, start: Array) -> Best:
    """Returns the initial incumbent, which loses to any evaluated point."""
    return Best(
        x=start,
        score=jnp.full_like(x0, -jnp.inf, shape=(), dtype=jnp.float32),
        success=jnp.full_like(x0, False, shape=(), dtype=bool),
        distance=jnp.full_like(x0, jnp.inf, shape=(), dtype=jnp.float32),
    )


class Run(NamedTuple):
    """An ascent in progress on ONE example. Batched, every leaf has a leading axis.

    Attributes:
      state: state of the kernel; it has `x`, `x0`, `count`.
      best: the preferred iterate so far.
      key: key of the oracle, folded with the state's count.
      aim: aim of the objective: the label, a target, a pair of both …
      queries: `[]` int32, forward passes so far, those of gradients included.
      gradients: `[]` int32, backward passes so far.
    """

    state: Any
    best: Best
    key: Key
    aim: Any
    queries: Array
    gradients: Array

    def note(self, x: Array, seen: Evaluation, distance: Distance, prefer: Prefer) -> Best:
        """Returns the preferred of the incumbent and a point just evaluated."""
        far = distance(self.state.x0, x).astype(jnp.float32)
        candidate = Best(x, seen.score.astype(jnp.float32), seen.success, far)
        return choose(prefer, candidate, self.best)


def begin(kernel: Ascent, key: Key, x0: Array, start: Array, aim: Any = None) -> Run:
    """Returns a run before its first step."""
    none = jnp.full_like(x0, 0, shape=(), dtype=jnp.int32)
    return Run(kernel.init(key, x0, start), nothing_yet(x0, start), key, aim, none, none)


def step(
    kernel: Ascent,
    oracle: Oracle,
    run: Run,
    *,
    distance: Distance,
    prefer: Prefer = by_success,
    score: bool = True,
) -> Run:
    """Evaluates the iterate, updates the best one (if `score`), and moves once."""
    state = run.state
    seen = oracle(jax.random.fold_in(run.key, state.count), state.x)
    return run._replace(
        state=kernel.update(state, seen),
        best=run.note(state.x, seen, distance, prefer) if score else run.best,
        queries=run.queries + 1,
        gradients=run.gradients + int(seen.grad is not None),
    )


def end(
    value_oracle: Oracle,
    run: Run,
    *,
    distance: Distance,
    prefer: Prefer = by_success,
    score: bool = True,
) -> AttackResult:
    """Returns the result of a finished run; scoring the final iterate costs one forward pass."""
    state = run.state
    far = distance(state.x0, state.x).astype(jnp.float32)
    if not score:
        last = nothing_yet(state.x0, state.x)._replace(distance=far)
        return AttackResult(last, last, run.queries, run.gradients)
    seen = value_oracle(jax.random.fold_in(run.key, state.count), state.x)
    last = Best(state.x, seen.score.astype(jnp.float32), seen.success, far)
    best = run.note(state.x, seen, distance, prefer)
    return AttackResult(best, last, run.queries + 1, run.gradients)


def ascend(
    kernel: Ascent,
    oracle: Oracle,
    value_oracle: Oracle,
    key: Key,
    x0: Array,
    start: Array,
    *,
    steps: int,
    distance: Distance,
    prefer: Prefer = by_success,
    score_last: bool = True,
) -> AttackResult:
    """Runs a kernel for a fixed number of steps and keeps the preferred iterate.

    Args:
      kernel: the update rule.
      oracle: evaluates score and gradient, once per step.
      value_oracle: scores the final iterate, which no step evaluates.
      key: key for stochastic oracles, folded with the step count.
      x0: the example, `[H, W, C]`.
      start: initial iterate, like `x0`.
      steps: number of moves, static.
      distance: `(x0, x) -> []`, the distance recorded in `Best.distance`.
      prefer: rule that decides which of two iterates to keep.
      score_last: whether to spend one forward pass on the final iterate. If not, `best` is the
        final iterate, unscored, as adversarial training needs it.

    Returns:
      The preferred and the final iterate, with the number of passes spent.
    """

    def move(_: int, run: Run) -> Run:
        return step(kernel, oracle, run, distance=distance, prefer=prefer, score=score_last)

    run = jax.lax.fori_loop(0, steps, move, begin(kernel, key, x0, start))
    return end(value_oracle, run, distance=distance, prefer=prefer, score=score_last)
