"""The L2 attack of Carlini and Wagner: minimises distance plus a hinge on the margin.

Carlini and Wagner (2017), "Towards Evaluating the Robustness of Neural Networks",
https://arxiv.org/abs/1608.04644, sections V and VI.A.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advfeat.attacks.iterative import zero_like
from advfeat.attacks.step_rules import StepRule, from_optax, initial_state, moved
from advfeat.attacks.tradeoff import (
    PenaltyAttack,
    Tradeoff,
    binary_searched,
    dual_ascended,
    tradeoff,
)
from advfeat.checks import check_eps, check_norm, check_positive
from advfeat.objectives.classification import untargeted
from advfeat.objectives.losses import margin
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Evaluation, Key, Objective, pytree, static

SEARCHES = ("binary", "fixed", "alternating")
SHRINK = 0.999999  # the authors' value; keeps arctanh finite for black and white pixels


class CarliniWagnerState(NamedTuple):
    """State of the attack.

    Attributes:
      x: the iterate.
      x0: the example.
      step: `[]` int32, steps taken.
      w: optimisation variable; the iterate `(tanh(w) + 1) / 2` cannot leave the box.
      rule: state of Adam.
      tradeoff: weight of the hinge and the state of its search.
    """

    x: Array
    x0: Array
    step: Array
    w: Array
    rule: Any
    tradeoff: Tradeoff


def from_box(x: Array) -> Array:
    """Maps an image in the box to the space of `w`."""
    return jnp.arctanh(SHRINK * (2.0 * x - 1.0))


@pytree
class CarliniWagner(PenaltyAttack):
    """The attack of Carlini and Wagner: an `AttackFn`. Make one with `carlini_wagner`.

    Attributes:
      threat: L2; its eps (possibly infinite) bounds the search.
      step_size: `[]` float32, step size of Adam in the space of `w`.
      initial_const: `[]` float32, (initial) weight of the hinge.
      confidence: `[]` float32, kappa: smallest score that counts as success.
      rate: `[]` float32, relative change per step of an alternating weight.
      steps: moves of all inner runs together.
      length: moves of one inner run.
      search: `binary`, `fixed` or `alternating`.
      objective: what to ascend.
      rule: the optimiser.
    """

    threat: ThreatModel
    step_size: Array
    initial_const: Array
    confidence: Array
    rate: Array
    steps: int = static()
    length: int = static()
    search: str = static()
    objective: Objective = static()
    rule: StepRule = static()

    def first(self, key: Key, x0: Array, start: Array) -> CarliniWagnerState:
        """Returns the state at the start of the first inner run."""
        del key
        return self._begin(x0, start, zero_like(x0), tradeoff(x0, self.initial_const))

    def _begin(self, x0: Array, start: Array, step: Array, weight: Tradeoff) -> CarliniWagnerState:
        rule = initial_state(self.rule, self.threat, self.step_size, x0)
        return CarliniWagnerState(start, x0, step, from_box(start), rule, weight)

    def update(self, search: CarliniWagnerState, seen: Evaluation) -> CarliniWagnerState:
        """Moves `w` by Adam; each inner run of the binary search restarts at `x0`."""
        x0, step = search.x0, search.step + 1
        rule, slope = self.rule(self.threat, self.step_size), self._slope(search, seen)
        move, memory = moved(rule, slope, search.rule, search.w)
        w = search.w + move
        x = self.threat.project(x0, 0.5 * (jnp.tanh(w) + 1.0))
        if self.search == "alternating":
            weight = dual_ascended(search.tradeoff, seen.success, self.rate)
            return CarliniWagnerState(x, x0, step, w, memory, weight)
        if self.search == "fixed":
            return CarliniWagnerState(x, x0, step, w, memory, search.tradeoff)
        ended = self.ended(step)
        weight = binary_searched(search.tradeoff, seen.success, ended)
        onwards = CarliniWagnerState(x, x0, step, w, memory, weight)
        again = self._begin(x0, x0, step, weight)
        return jax.tree.map(lambda new, old: jnp.where(ended, new, old), again, onwards)

    def _slope(self, search: CarliniWagnerState, seen: Evaluation) -> Array:
        """Computes the gradient in w of `lambda * min(score, kappa) - |x - x0|^2`.

        The hinge is inactive where the score exceeds kappa, i.e. at a success.
        """
        assert seen.grad is not None
        hinge = jnp.where(seen.success, 0.0, search.tradeoff.weight)
        slope = hinge.astype(seen.grad.dtype) * seen.grad - 2.0 * (search.x - search.x0)
        tanh = jnp.tanh(search.w)
        return slope * 0.5 * (1.0 - tanh * tanh)


def carlini_wagner(
    threat: ThreatModel,
    *,
    steps: int = 1000,
    search: str = "binary",
    binary_search_steps: int = 9,
    step_size: float | Array = 1e-2,
    initial_const: float | Array = 1e-3,
    confidence: float | Array = 0.0,
    rate: float | Array = 0.02,
    objective: Objective = untargeted(margin),
    rule: StepRule = from_optax(optax.adam),
) -> CarliniWagner:
    """Returns the C&W attack (L2, minimum norm): `|delta|^2 + lambda * max(-score, -kappa)`.

    Args:
      threat: L2. An infinite eps searches for the nearest adversarial example anywhere in the box;
        a finite one restricts search and success to the ball.
      steps: moves of one inner run. The authors use 10,000 and stop most runs far earlier.
      search: how to choose lambda. `fixed`: keep `initial_const`. `binary`: over
        `binary_search_steps` runs of `steps` each, multiply by ten until the first success, then
        bisect the interval. `alternating`: within one run, raise it after each failure and lower
        it after each success.
      binary_search_steps: number of inner runs of a binary search.
      step_size: `[]`, step size of the optimiser.
      initial_const: `[]`, (initial) lambda.
      confidence: `[]`, kappa: score required for success; 0 requires only success itself.
      rate: `[]`, relative change per step of an alternating lambda.
      objective: what to ascend; by default the margin away from the label. `targeted(margin)` makes
        the attack's `y` the target.
      rule: optimiser in tanh space.

    Returns:
      An `AttackFn` for ONE example. `best` is the nearest success, at distance 0 if the example
      itself is a success.

    Raises:
      ValueError: for an unsupported norm, an unknown search, counts below 1, or a negative or NaN
        number.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> attack = carlini_wagner(advfeat.l2(), steps=100)
    >>> result = attack(jax.random.key(0), lambda x: x, jnp.array([0.7, 0.5]), 0)
    >>> result.best.x.round(2).tolist(), round(float(result.best.distance), 2)
    ([0.6, 0.6], 0.14)
    """
    check_norm(threat.norm.name, allowed=("l2",), attack="carlini_wagner")
    check_positive(steps, name="steps")
    check_positive(binary_search_steps, name="binary_search_steps")
    if search not in SEARCHES:
        raise ValueError(f"search must be one of {', '.join(SEARCHES)}, got {search!r}")
    numbers = {
        "step_size": step_size,
        "initial_const": initial_const,
        "confidence": confidence,
        "rate": rate,
    }
    for name, value in numbers.items():
        check_eps(value, name=name)
    return CarliniWagner(
        threat=threat,
        **{name: jnp.asarray(value, jnp.float32) for name, value in numbers.items()},
        steps=steps * binary_search_steps if search == "binary" else steps,
        length=steps,
        search=search,
        objective=objective,
        rule=rule,
    )
