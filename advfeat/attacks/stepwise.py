"""Attacks that can be stopped after any step and gone on with later.

Whoever evaluates a thousand images wants to leave an image as soon as it is fooled and give its
place to the next one, so an attack is written as rounds (restarts, targets) of steps, not as a
loop. Called as a function it runs all of them: it is an `AttackFn`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from advfeat.attacks import ascent
from advfeat.attacks.ascent import Ascent, Prefer, Run
from advfeat.edges import on_one
from advfeat.types import Array, AttackResult, Key, ModelFn, Objective, Oracle, frozen


class Stepwise:
    """Base of the attacks that ascend step by step.

    A subclass is a frozen, registered dataclass whose numbers are leaves and whose structure is
    static. It defines `kernel` and `distance`, and overrides what differs from a white-box attack
    that begins at the example.

    Attributes:
      steps: moves of one round, static.
      rounds: how often the attack begins anew (restarts × targets), static. Each example keeps
        its preferred round.
      objective: what to ascend.
      prefer: which of two iterates to keep.
      score_last: whether the final iterate is scored too, at the price of one forward pass.
      start_queries: forward passes that `start` spends.
    """

    steps: int
    rounds: int = 1
    objective: Objective
    prefer: Prefer = staticmethod(ascent.by_success)
    score_last: bool = True
    start_queries: int = 0

    def kernel(self, x0: Array) -> Ascent:
        """What moves, given the example (for its shape)."""
        raise NotImplementedError

    def distance(self, x0: Array, x: Array) -> Array:
        """`[]`, what `Best.distance` is measured in."""
        raise NotImplementedError

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Where round `index` begins, and its aim."""
        del key, model_fn, index
        return x, y

    def oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """What evaluates a point at every step."""
        return ascent.white_box(self.objective, model_fn, aim)

    def value_oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """What scores the final iterate."""
        return ascent.scores_only(self.objective, model_fn, aim)

    def begin(self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array) -> Run:
        """Round `index` (from 0) of an attack on `x`; rounds do not depend on one another."""
        key_start, key_steps = jax.random.split(jax.random.fold_in(key, index))
        start, aim = self.start(key_start, model_fn, x, y, index)
        run = ascent.begin(self.kernel(x), key_steps, x, start, aim)
        return run._replace(queries=run.queries + self.start_queries)

    def step(self, model_fn: ModelFn, run: Run) -> Run:
        """Evaluates where the run stands, notes it, and moves once."""
        return ascent.step(
            self.kernel(run.state.x0),
            self.oracle(model_fn, run.aim),
            run,
            distance=self.distance,
            prefer=self.prefer,
            score=self.score_last,
        )

    def end(self, model_fn: ModelFn, run: Run) -> AttackResult:
        """What a round comes to after its last step."""
        return ascent.end(
            self.value_oracle(model_fn, run.aim),
            run,
            distance=self.distance,
            prefer=self.prefer,
            score=self.score_last,
        )

    def merge(self, new: AttackResult, before: AttackResult) -> AttackResult:
        """The result of all rounds up to the new one."""
        return AttackResult(
            ascent.choose(self.prefer, new.best, before.best),
            new.last,
            before.queries + new.queries,
            before.gradients + new.gradients,
        )

    def __call__(self, key: Key, model_fn: ModelFn, x: Array, y: Any) -> AttackResult:
        """Attacks ONE example: every step of every round.

        Args:
          key: a key.
          model_fn: the network.
          x: `[H, W, C]` in [0, 1]; half precision is raised to float32.
          y: `[]`, the label, or the target of a targeted objective.

        Returns:
          The preferred iterate over all rounds, and the last round's final iterate.

        Raises:
          ValueError: for bad shapes and types, and, unless traced, bad values; see `on_one`.
        """
        key, x, y = on_one(self, key, model_fn, x, y)
        x = ascent.varying_with(x, self, key, y)
        model_fn = frozen(model_fn, x)

        def one(index: Array) -> AttackResult:
            run = self.begin(key, model_fn, x, y, index)
            run = jax.lax.fori_loop(0, self.steps, lambda _, r: self.step(model_fn, r), run)
            return self.end(model_fn, run)

        first = one(jnp.full_like(x, 0, shape=(), dtype=jnp.int32))
        if self.rounds == 1:
            return first
        # A scan, not a vmap: memory does not grow with the rounds.
        again = jnp.arange(1, self.rounds, dtype=jnp.int32)
        return jax.lax.scan(lambda best, i: (self.merge(one(i), best), None), first, again)[0]
