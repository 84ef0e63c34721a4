"""Projected gradient descent in any norm with any step rule.

Madry et al. (2018), https://arxiv.org/abs/1706.06083.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from advfeat.attacks import ascent
from advfeat.attacks.step_rules import StepRule, steepest
from advfeat.attacks.stepwise import Stepwise
from advfeat.checks import check_eps, check_positive
from advfeat.objectives.classification import untargeted
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Key, ModelFn, Objective


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)  # jax.jit(attack) hashes it; arrays do not
class GradientAttack(Stepwise):
    """Gradient ascent inside a threat model: an `AttackFn`. Make one with `pgd` or `fgsm`.

    eps and the step size are leaves: new values do not recompile, and `vmap` can batch over them.

    Attributes:
      threat: the set of allowed inputs.
      step_size: `[]` float32, in the threat model's norm.
      steps: moves per restart.
      rounds: number of restarts; each example keeps its preferred run.
      random_start: start uniformly in the ball instead of at the example.
      objective: what to ascend.
      rule: step rule that turns a gradient into a move.
      prefer: rule that decides which iterate to keep.
      score_last: see `Stepwise`.
    """

    threat: ThreatModel
    step_size: Array
    steps: int = dataclasses.field(metadata={"static": True})
    rounds: int = dataclasses.field(metadata={"static": True})
    random_start: bool = dataclasses.field(metadata={"static": True})
    objective: Objective = dataclasses.field(metadata={"static": True})
    rule: StepRule = dataclasses.field(metadata={"static": True})
    prefer: ascent.Prefer = dataclasses.field(metadata={"static": True})
    score_last: bool = dataclasses.field(metadata={"static": True})

    def kernel(self, x0: Array) -> ascent.Ascent:
        """Returns projected ascent; if eps is infinite, the box diameter sets the step size."""
        widest = 2.5 * self.threat.norm.diameter(x0.size) / self.steps
        step_size = jnp.where(jnp.isinf(self.step_size), widest, self.step_size)
        return ascent.projected_ascent(self.threat, self.rule, step_size)

    def distance(self, x0: Array, x: Array) -> Array:
        """Returns the distance in the threat model's norm."""
        return self.threat.distance(x0, x)

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
    objective: Objective | None = None,
    rule: StepRule = steepest,
    prefer: ascent.Prefer = ascent.by_success,
    score_last: bool = True,
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
      prefer: rule that decides which iterate to keep.
      score_last: whether to score iterates; the final one costs one forward pass.

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
    if restarts > 1 and not score_last:
        # Unscored runs cannot be compared, so there is no worst case to keep.
        raise ValueError(f"restarts must be 1 with score_last=False, got {restarts}")
    if step_size is None:
        step_size = 2.5 * threat.eps / steps
    check_eps(step_size, name="step_size")
    return GradientAttack(
        threat=threat,
        step_size=jnp.asarray(step_size, jnp.float32),
        steps=steps,
        rounds=restarts,
        random_start=random_start,
        objective=untargeted() if objective is None else objective,
        rule=rule,
        prefer=prefer,
        score_last=score_last,
    )
