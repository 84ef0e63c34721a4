"""The ascent kernel: every attack and every picture is ascent on a score inside a set of inputs.

A kernel is two pure functions with no network inside; an oracle evaluates points; `ascend` drives
one with the other and keeps the best iterate.
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
"""Candidate, incumbent -> `[]` bool, whether the candidate is to be kept."""


Distance = Callable[[Array, Array], Array]
"""Example, point -> `[]`."""


class Ascent(NamedTuple):
    """A kernel.

    Attributes:
      init: `(key, x0, start) -> State`; every State has `x`, `x0`, `count`.
      update: `(State, Evaluation) -> State`: notes what was seen at `state.x`, then moves.
    """

    init: Callable[[Key, Array, Array], Any]
    update: Callable[[Any, Evaluation], Any]


class ProjectedState(NamedTuple):
    """State of projected gradient ascent.

    Attributes:
      x: the iterate.
      x0: the example.
      count: `[]` int32, steps taken; schedules and keys read it, never a loop index.
      rule: the step rule's optax state.
    """

    x: Array
    x0: Array
    count: Array  # type: ignore[assignment]  # hides tuple.count, which nobody wants here
    rule: Any


def projected_ascent(threat: ThreatModel, rule: StepRule, step_size: Array) -> Ascent:
    """Gradient step by `rule`, then projection onto the threat model.

    Args:
      threat: the set of allowed inputs.
      rule: how a gradient becomes a move.
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
    """The oracle that knows the weights: one forward and one backward pass.

    Entries of the gradient that are infinite or NaN are dropped here, for all that ascend.
    """

    def oracle(key: Key, x: Array) -> Evaluation:
        def score_fn(point: Array) -> tuple[Array, Array]:
            return objective(with_key(model_fn, key), point, y, key)

        (score, success), gradient = jax.value_and_grad(score_fn, has_aux=True)(x)
        return Evaluation(score, success, finite(gradient))

    return oracle


def scores_only(objective: Objective, model_fn: ModelFn, y: Any) -> Oracle:
    """The oracle of a black box: one forward pass, no gradient."""

    def oracle(key: Key, x: Array) -> Evaluation:
        score, success = objective(with_key(model_fn, key), x, y, key)
        return Evaluation(score, success, None)

    return oracle


def by_score(candidate: Best, incumbent: Best) -> Array:
    """Prefer the higher score: pictures."""
    return candidate.score > incumbent.score


def by_recency(candidate: Best, incumbent: Best) -> Array:
    """Prefer the later iterate: where scores are noisy, the best-looking one is luck."""
    del incumbent
    return jnp.ones_like(candidate.success)


def by_success(candidate: Best, incumbent: Best) -> Array:
    """Prefer success, then the higher score: attacks within a threat model.

    By score alone up to 1.1 points of robust accuracy were lost: the highest cross-entropy is not
    always the wrong prediction.
    """
    same = candidate.success == incumbent.success
    return jnp.where(same, candidate.score > incumbent.score, candidate.success)


def by_distance(candidate: Best, incumbent: Best) -> Array:
    """Prefer success, then the smaller distance (or, failing that, the score): minimum norm."""
    nearer = candidate.distance < incumbent.distance
    better = jnp.where(candidate.success, nearer, candidate.score > incumbent.score)
    return jnp.where(candidate.success == incumbent.success, better, candidate.success)


def choose(prefer: Prefer, candidate: Best, incumbent: Best) -> Best:
    """The preferred one of two, leaf by leaf. A NaN score never wins."""
    take = prefer(candidate, incumbent) & ~jnp.isnan(candidate.score)
    return jax.tree.map(lambda new, old: jnp.where(take, new, old), candidate, incumbent)


def varying_with(x: Array, *others: Any) -> Array:
    """`x`, which inside a `shard_map` then varies over every axis that the others vary over.

    A loop whose carry begins as the same on every device must not end as different ones: eps, the
    key or the label may be split over devices where the example is not.
    """
    for leaf in jax.tree.leaves(others):
        is_key = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
        data = jax.random.key_data(leaf) if is_key else leaf
        x = x + jnp.full_like(data, 0, shape=(), dtype=x.dtype)
    return x


def nothing_yet(x0: Array, start: Array) -> Best:
    """The incumbent before anything was seen: any evaluated point is preferred to it."""
    return Best(
        x=start,
        score=jnp.full_like(x0, -jnp.inf, shape=(), dtype=jnp.float32),
        success=jnp.full_like(x0, False, shape=(), dtype=bool),
        distance=jnp.full_like(x0, jnp.inf, shape=(), dtype=jnp.float32),
    )


class Run(NamedTuple):
    """An ascent in progress on ONE example. Batched, every leaf has a leading axis.

    Attributes:
      state: the kernel's; it has `x`, `x0`, `count`.
      best: the preferred iterate so far.
      key: of the oracle, folded with the state's count.
      aim: what the oracle is made for: the label, a target, a pair of both …
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
        """The preferred one of the incumbent and a point that was just evaluated."""
        far = distance(self.state.x0, x).astype(jnp.float32)
        candidate = Best(x, seen.score.astype(jnp.float32), seen.success, far)
        return choose(prefer, candidate, self.best)


def begin(kernel: Ascent, key: Key, x0: Array, start: Array, aim: Any = None) -> Run:
    """An ascent before its first step."""
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
    """Evaluates where the run stands, notes it (unless told not to score), and moves once."""
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
    """What a run comes to after its last step; scoring that one costs one forward pass."""
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
      kernel: what moves.
      oracle: what evaluates a point and its gradient, once per step.
      value_oracle: what scores the final iterate, which no step evaluates.
      key: for stochastic oracles; folded with the step's count.
      x0: the example, `[H, W, C]`.
      start: where to begin, like `x0`.
      steps: how many moves; static.
      distance: `(x0, x) -> []`, what `Best.distance` is measured in.
      prefer: which of two iterates to keep.
      score_last: whether to spend one forward pass on the final iterate. Without it the final
        iterate is the result's `best`, unscored: training by adversarial examples wants that.

    Returns:
      The preferred and the final iterate, with the passes spent.
    """

    def move(_: int, run: Run) -> Run:
        return step(kernel, oracle, run, distance=distance, prefer=prefer, score=score_last)

    run = jax.lax.fori_loop(0, steps, move, begin(kernel, key, x0, start))
    return end(value_oracle, run, distance=distance, prefer=prefer, score=score_last)
