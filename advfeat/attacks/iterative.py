"""The kernel of every attack and every visualisation: `init`, `step`, `finish`.

A survivors' evaluation drops an image as soon as it is fooled and gives its slot to the next one.
Attacks are therefore written as steps that can be paused, not as a closed loop: every round (a
restart, a target) is `init`, then `steps` times `step`, then `finish`. Calling an attack runs every
step of every round: it is an `AttackFn`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from advfeat.attacks import oracles
from advfeat.attacks.keeping import Keep, by_success, choose, none_yet
from advfeat.edges import on_one
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
    frozen,
)


class AttackState(NamedTuple):
    """One round of an attack in progress on ONE example. Batched, every leaf has a leading axis.

    Attributes:
      search: state of the attack's update rule; it has `x` (the iterate), `x0` (the example) and
        `step` (`[]` int32, steps taken: schedules and keys depend on it, not on a loop index).
      best: the iterate to keep, of those so far.
      key: key of the oracle, folded with the step.
      aim: aim of the objective: the label, a target, a pair of both …
      queries: `[]` int32, forward passes so far, those of gradients included.
      gradients: `[]` int32, backward passes so far.
    """

    search: Any
    best: Best
    key: Key
    aim: Any
    queries: Array
    gradients: Array


class IterativeAttack:
    """Base class of iterative attacks.

    A subclass is a `types.pytree` with numbers as leaves and everything else static. It defines its
    update rule, `first` and `update`, which never sees the network. The defaults of the other
    methods describe a white-box attack that starts at the example.

    Attributes:
      threat: the set of allowed inputs.
      steps: moves per round, static.
      restarts: independent starts, static.
      targets: target classes, each with its own rounds, static; 0 or 1 for a single round.
      objective: what to ascend.
      keep: which iterate and which round to keep; None keeps the last iterate and scores none,
        which saves the forward pass on it.
      start_queries: forward passes spent by `start`.
    """

    threat: ThreatModel
    steps: int
    restarts: int = 1
    targets: int = 1
    objective: Objective
    keep: Keep | None = staticmethod(by_success)
    start_queries: int = 0

    @property
    def rounds(self) -> int:
        """Number of rounds: every target gets its first start before any gets its second."""
        return self.restarts * max(self.targets, 1)

    # --- The update rule. -------------------------------------------------------------------------

    def first(self, key: Key, x0: Array, start: Array) -> Any:
        """Returns the search's state at `start`, at step 0."""
        raise NotImplementedError

    def update(self, search: Any, seen: Evaluation) -> Any:
        """Takes the evaluation at `search.x` and moves."""
        raise NotImplementedError

    # --- What the search starts from and sees. ----------------------------------------------------

    def distance(self, x0: Array, x: Array) -> Array:
        """Returns the distance `[]` that `Best.distance` records."""
        return self.threat.distance(x0, x)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Returns the starting point of round `index` and its aim."""
        del key, model_fn, index
        return x, y

    def oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Returns the oracle that evaluates the iterate at every step."""
        return oracles.white_box(self.objective, model_fn, aim)

    def value_oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Returns the oracle that scores the final iterate."""
        return oracles.scores_only(self.objective, model_fn, aim)

    # --- The kernel. ------------------------------------------------------------------------------

    def init(self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array) -> AttackState:
        """Starts round `index` (from 0) of an attack on `x`; rounds are independent."""
        key_start, key_steps = jax.random.split(jax.random.fold_in(key, index))
        start, aim = self.start(key_start, model_fn, x, y, index)
        none = zero_like(x)
        search = self.first(key_steps, x, start)
        queries = none + self.start_queries
        return AttackState(search, none_yet(x, start), key_steps, aim, queries, none)

    def step(self, model_fn: ModelFn, state: AttackState) -> AttackState:
        """Evaluates the current iterate, updates the best one, and moves once."""
        search = state.search
        key = jax.random.fold_in(state.key, search.step)
        seen = self.oracle(model_fn, state.aim)(key, search.x)
        return state._replace(
            search=self.update(search, seen),
            best=self.better(state, search.x, seen),
            queries=state.queries + 1,
            gradients=state.gradients + int(seen.grad is not None),
        )

    def finish(self, model_fn: ModelFn, state: AttackState) -> AttackResult:
        """Returns the result of a round after its last step."""
        search = state.search
        if self.keep is None:
            far = self.distance(search.x0, search.x).astype(jnp.float32)
            last = none_yet(search.x0, search.x)._replace(distance=far)
            return AttackResult(last, last, state.queries, state.gradients)
        key = jax.random.fold_in(state.key, search.step)
        seen = self.value_oracle(model_fn, state.aim)(key, search.x)
        return AttackResult(
            self.better(state, search.x, seen),
            self.record(search.x0, search.x, seen),
            state.queries + 1,
            state.gradients,
        )

    def merge(self, new: AttackResult, before: AttackResult) -> AttackResult:
        """Merges the result of a new round into that of the rounds before it."""
        return AttackResult(
            new.best if self.keep is None else choose(self.keep, new.best, before.best),
            new.last,
            before.queries + new.queries,
            before.gradients + new.gradients,
        )

    def record(self, x0: Array, x: Array, seen: Evaluation) -> Best:
        """Returns an evaluated point as a `Best`."""
        far = self.distance(x0, x).astype(jnp.float32)
        return Best(x, seen.score.astype(jnp.float32), seen.success, far)

    def better(self, state: AttackState, x: Array, seen: Evaluation) -> Best:
        """Returns the best iterate so far, given a point just evaluated."""
        if self.keep is None:
            return state.best
        return choose(self.keep, self.record(state.search.x0, x, seen), state.best)

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> AttackResult:
        """Attacks ONE example: every step of every round.

        Args:
          key: the random key.
          model_fn: the network.
          x: `[H, W, C]` in [0, 1]; half precision is promoted to float32.
          y: `[]`, the label, or the target of a targeted objective.

        Returns:
          The preferred iterate over all rounds, and the last round's final iterate.

        Raises:
          ValueError: for invalid shapes, types or (unless traced) values; see `on_one`.
        """
        key, x, y = on_one(key, self, model_fn, x, y)
        x = varying_with(x, self, key, y)
        model_fn = frozen(model_fn, x)

        def one(index: Array) -> AttackResult:
            state = self.init(key, model_fn, x, y, index)
            state = jax.lax.fori_loop(0, self.steps, lambda _, s: self.step(model_fn, s), state)
            return self.finish(model_fn, state)

        first = one(zero_like(x))
        if self.rounds == 1:
            return first
        # A scan rather than a vmap, so that memory does not grow with the rounds.
        again = jnp.arange(1, self.rounds, dtype=jnp.int32)
        return jax.lax.scan(lambda best, i: (self.merge(one(i), best), None), first, again)[0]


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


def zero_like(x: Array) -> Array:
    """Returns a count `[]` of 0 with the varying axes of `x`."""
    return jnp.full_like(x, 0, shape=(), dtype=jnp.int32)
