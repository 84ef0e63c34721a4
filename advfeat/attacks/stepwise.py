"""Attacks that can be paused and resumed between steps.

An evaluation drops an image as soon as it is fooled and gives its slot to the next one. Attacks are
therefore written as rounds (restarts, targets) of steps, not as a closed loop. Calling one runs
every step of every round: it is an `AttackFn`.
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
    """Base class of iterative attacks.

    A subclass is a frozen, registered dataclass with numbers as leaves and everything else static.
    It defines `kernel` and `distance`. The defaults of the other methods describe a white-box
    attack that starts at the example.

    Attributes:
      steps: moves per round, static.
      rounds: restarts × targets, static. Each example keeps its preferred round.
      objective: what to ascend.
      prefer: rule that decides which of two iterates to keep.
      score_last: whether the final iterate is scored too, at the cost of one forward pass.
      start_queries: forward passes spent by `start`.
    """

    steps: int
    rounds: int = 1
    objective: Objective
    prefer: Prefer = staticmethod(ascent.by_success)
    score_last: bool = True
    start_queries: int = 0

    def kernel(self, x0: Array) -> Ascent:
        """Returns the update rule; the example provides the shape."""
        raise NotImplementedError

    def distance(self, x0: Array, x: Array) -> Array:
        """Returns the distance `[]` that `Best.distance` records."""
        raise NotImplementedError

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Returns the starting point of round `index` and its aim."""
        del key, model_fn, index
        return x, y

    def oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Returns the oracle that evaluates the iterate at every step."""
        return ascent.white_box(self.objective, model_fn, aim)

    def value_oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Returns the oracle that scores the final iterate."""
        return ascent.scores_only(self.objective, model_fn, aim)

    def begin(self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array) -> Run:
        """Starts round `index` (from 0) of an attack on `x`; rounds are independent."""
        key_start, key_steps = jax.random.split(jax.random.fold_in(key, index))
        start, aim = self.start(key_start, model_fn, x, y, index)
        run = ascent.begin(self.kernel(x), key_steps, x, start, aim)
        return run._replace(queries=run.queries + self.start_queries)

    def step(self, model_fn: ModelFn, run: Run) -> Run:
        """Evaluates the current iterate, updates the best one, and moves once."""
        return ascent.step(
            self.kernel(run.state.x0),
            self.oracle(model_fn, run.aim),
            run,
            distance=self.distance,
            prefer=self.prefer,
            score=self.score_last,
        )

    def end(self, model_fn: ModelFn, run: Run) -> AttackResult:
        """Returns the result of a round after its last step."""
        return ascent.end(
            self.value_oracle(model_fn, run.aim),
            run,
            distance=self.distance,
            prefer=self.prefer,
            score=self.score_last,
        )

    def merge(self, new: AttackResult, before: AttackResult) -> AttackResult:
        """Merges the result of a new round into that of the rounds before it."""
        return AttackResult(
            ascent.choose(self.prefer, new.best, before.best),
            new.last,
            before.queries + new.queries,
            before.gradients + new.gradients,
        )

    def __call__(self, key: Key, model_fn: ModelFn, x: Array, y: Any) -> AttackResult:
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
        # A scan rather than a vmap, so that memory does not grow with the rounds.
        again = jnp.arange(1, self.rounds, dtype=jnp.int32)
        return jax.lax.scan(lambda best, i: (self.merge(one(i), best), None), first, again)[0]
