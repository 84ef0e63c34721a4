"""Projected gradient descent in any norm with any step rule.

Madry et al. (2018), https://arxiv.org/abs/1706.06083.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from advfeat.attacks.iterative import IterativeAttack, zero_like
from advfeat.attacks.keeping import Keep, by_success
from advfeat.attacks.step_rules import StepRule, initial_state, moved, steepest
from advfeat.checks import check_eps, check_positive
from advfeat.objectives.classification import untargeted
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Evaluation, Key, ModelFn, Objective, pytree, static


class PGDState(NamedTuple):
    """State of projected gradient ascent.

    Attributes:
      x: the iterate.
      x0: the example.
      step: `[]` int32, steps taken.
      rule: the step rule's optax state.
    """

    x: Array
    x0: Array
    step: Array
    rule: Any


@pytree
class GradientAttack(IterativeAttack):
    """Gradient ascent inside a threat model: an `AttackFn`. Make one with `pgd` or `fgsm`.

    eps and the step size are leaves: new values do not recompile, and `vmap` can batch over them.

    Attributes:
      threat: the set of allowed inputs.
      step_size: `[]` float32, in the threat model's norm.
      steps: moves per restart.
      restarts: independent starts; each example keeps its preferred one.
      random_start: start uniformly in the ball instead of at the example.
      objective: what to ascend.
      rule: step rule that turns a gradient into a move.
      keep: which iterate to keep; see `IterativeAttack`.
    """

    threat: ThreatModel
    step_size: Array
    steps: int = static()
    restarts: int = static()
    random_start: bool = static()
    objective: Objective = static()
    rule: StepRule = static()
    keep: Keep | None = static()

    def first(self, key: Key, x0: Array, start: Array) -> PGDState:
        """Returns the state at the start, with that of the step rule."""
        del key
        rule = initial_state(self.rule, self.threat, self._length(x0), x0)
        return PGDState(start, x0, zero_like(x0), rule)

    def update(self, search: PGDState, seen: Evaluation) -> PGDState:
        """Takes a step by the rule, then projects."""
        rule = self.rule(self.threat, self._length(search.x0))
        move, memory = moved(rule, seen.grad, search.rule, search.x)
        x = self.threat.project(search.x0, search.x + move)
        return PGDState(x, search.x0, search.step + 1, memory)

    def _length(self, x0: Array) -> Array:
        """Returns the step size `[]`; if it is infinite, the box diameter sets it."""
        widest = 2.5 * self.threat.norm.diameter(x0.size) / self.steps
        return jnp.where(jnp.isinf(self.step_size), widest, self.step_size)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Draws a start from the ball, or starts at the example."""
        del model_fn, index
        return (self.threat.sample(key, x) if self.random_start else x), y


def pgd(
    threat: ThreatModel,
    *,
    steps: int = 40,
    step_size: float | Array | None = None,
    restarts: int = 1,
    random_start: bool = True,
    objective: Objective = untargeted(),
    rule: StepRule = steepest,
    keep: Keep | None = by_success,
) -> GradientAttack:
    """Returns PGD, the inner maximisation of equation 2.1.

    Args:
      threat: the set of allowed inputs.
      steps: moves per restart.
      step_size: `[]`, in the threat model's norm; by default `2.5 * eps / steps`, so that the
        boundary can be reached from any start (Madry et al.). The diameter of the box replaces an
        infinite eps.
      restarts: independent random starts; each example keeps its worst case.
      random_start: start uniformly in the ball instead of at the example.
      objective: what to ascend; by default cross-entropy away from the label.
      rule: step rule: `step_rules.steepest`, `step_rules.momentum()`,
        `step_rules.from_optax(optax.adam)` …
      keep: which iterate to keep: `keeping.by_success` (then the highest score), `by_score`,
        `by_distance` …; None keeps the last one and scores none, as adversarial training needs it,
        which saves one forward pass.

    Returns:
      An `AttackFn` for ONE example; `attack_batch` is the batched, compiled form.

    Raises:
      ValueError: for counts below 1, a negative or NaN step size, restarts without a random
        start or without scores, or an infinite eps without a step size.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> weights = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> attack = pgd(advfeat.linf(0.1), steps=5)
    >>> result = attack(jax.random.key(0), lambda x: weights @ x, jnp.array([0.6, 0.5]), 0)
    >>> result.best.x.tolist(), bool(result.best.success)
    ([0.5, 0.6], True)
    """
    check_positive(steps, name="steps")
    check_positive(restarts, name="restarts")
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts must be 1 without a random start, got {restarts}")
    if restarts > 1 and keep is None:
        # Unscored runs cannot be compared, so there is no worst case to keep.
        raise ValueError(f"restarts must be 1 with keep=None, got {restarts}")
    if step_size is None:
        step_size = 2.5 * threat.eps / steps
    check_eps(step_size, name="step_size")
    return GradientAttack(
        threat=threat,
        step_size=jnp.asarray(step_size, jnp.float32),
        steps=steps,
        restarts=restarts,
        random_start=random_start,
        objective=objective,
        rule=rule,
        keep=keep,
    )
