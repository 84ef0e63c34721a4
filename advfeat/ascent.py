"""The ascent kernel: every attack and every picture is ascent on a score inside a set of inputs.

A kernel is two pure functions with no network inside; an oracle evaluates points; `ascend` drives
one with the other and keeps the best iterate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advfeat.steps import StepRule, initial_state
from advfeat.threat import ThreatModel
from advfeat.types import (
    Array,
    AttackResult,
    Best,
    Evaluation,
    Key,
    ModelFn,
    Objective,
    Oracle,
)

Prefer = Callable[[Best, Best], Array]
"""Candidate, incumbent -> `[]` bool, whether the candidate is to be kept."""


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
        move, rule_state = rule(threat, step_size).update(evaluation.grad, state.rule, state.x)
        x = threat.project(state.x0, state.x + move)
        return ProjectedState(x, state.x0, state.count + 1, rule_state)

    return Ascent(init, update)


def white_box(objective: Objective, model_fn: ModelFn, y: Any) -> Oracle:
    """The oracle that knows the weights: one forward and one backward pass."""

    def oracle(key: Key, x: Array) -> Evaluation:
        def score_fn(point: Array) -> tuple[Array, Array]:
            return objective(model_fn, point, y, key)

        (score, success), gradient = jax.value_and_grad(score_fn, has_aux=True)(x)
        return Evaluation(score, success, gradient)

    return oracle


def scores_only(objective: Objective, model_fn: ModelFn, y: Any) -> Oracle:
    """The oracle of a black box: one forward pass, no gradient."""

    def oracle(key: Key, x: Array) -> Evaluation:
        score, success = objective(model_fn, x, y, key)
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


def ascend(
    kernel: Ascent,
    oracle: Oracle,
    value_oracle: Oracle,
    key: Key,
    x0: Array,
    start: Array,
    *,
    steps: int,
    distance: Callable[[Array, Array], Array],
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

    def note(x: Array, seen: Evaluation, best: Best) -> Best:
        score = seen.score.astype(jnp.float32)
        candidate = Best(x, score, seen.success, distance(x0, x).astype(jnp.float32))
        return choose(prefer, candidate, best)

    def step(_: int, carry: tuple[Any, Best]) -> tuple[Any, Best]:
        state, best = carry
        seen = oracle(jax.random.fold_in(key, state.count), state.x)
        if score_last:
            best = note(state.x, seen, best)
        return kernel.update(state, seen), best

    carry = (kernel.init(key, x0, start), nothing_yet(x0, start))
    state, best = jax.lax.fori_loop(0, steps, step, carry)
    far = distance(x0, state.x).astype(jnp.float32)
    if score_last:
        seen = value_oracle(jax.random.fold_in(key, state.count), state.x)
        last = Best(state.x, seen.score.astype(jnp.float32), seen.success, far)
        best = note(state.x, seen, best)
    else:
        last = nothing_yet(x0, start)._replace(x=state.x, distance=far)
        best = last
    count = jnp.full_like(x0, steps, shape=(), dtype=jnp.int32)
    return AttackResult(best, last, count + int(score_last), count)
