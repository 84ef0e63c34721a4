"""Auto-PGD: projected gradient ascent with momentum and adaptive step sizes.

Croce and Hein (2020), https://arxiv.org/abs/2003.01690, algorithm 1, for L-infinity and L2; for L1
Croce and Hein (2021), "Mind the box", https://arxiv.org/abs/2103.01208, algorithm 1 with its
radius reduction. Every projection onto the intersection of ball and box is exact.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.attacks.apgd_kernels import AutoAscent, SparseAscent, finite_radius, phases
from advfeat.attacks.iterative import AttackState, IterativeAttack
from advfeat.attacks.keeping import by_success, none_yet
from advfeat.attacks.oracles import averaged
from advfeat.checks import check_norm, check_positive, is_concrete
from advfeat.objectives.classification import (
    TargetedLoss,
    UntargetedViaTarget,
    likely_target,
    untargeted,
)
from advfeat.objectives.losses import (
    cross_entropy,
    cross_entropy_targeted,
    dlr,
    dlr_targeted,
    margin,
    margin_targeted,
)
from advfeat.threats.balls import ThreatModel
from advfeat.threats.norms import NORMS
from advfeat.types import (
    Array,
    AttackResult,
    Best,
    Evaluation,
    Key,
    LogitLoss,
    ModelFn,
    Objective,
    Oracle,
    pytree,
    static,
    with_key,
)

LOSSES: dict[str, LogitLoss] = {"ce": cross_entropy, "dlr": dlr, "margin": margin}
TARGETED_LOSSES: dict[str, TargetedLoss] = {
    "ce": cross_entropy_targeted,
    "dlr": dlr_targeted,
    "margin": margin_targeted,
}


def _unless_wrong_before(candidate: Best, incumbent: Best) -> Array:
    """Prefers by success, but returns an already misclassified example unchanged."""
    untouched = incumbent.success & (incumbent.distance == 0)
    return by_success(candidate, incumbent) & ~untouched


@pytree
class AutoPGD(IterativeAttack):
    """Auto-PGD: an `AttackFn`. Make one with `apgd`.

    Every restart evaluates the example itself first, at the cost of `eot` forward passes.

    Attributes:
      threat: the set of allowed inputs.
      rho: `[]` float32; see `apgd`.
      steps: moves per restart.
      restarts: independent starts per target.
      objective: what to ascend.
      eot: evaluations per step.
    """

    threat: ThreatModel
    rho: Array
    steps: int = static()
    restarts: int = static()
    objective: Objective = static()
    eot: int = static()

    keep = staticmethod(_unless_wrong_before)

    @property
    def _radii(self) -> np.ndarray:
        """Returns the radius schedule `[steps + 1]` by step count, in units of eps."""
        sparse = self.threat.norm.name == "l1"
        return phases(self.steps)[0] if sparse else np.ones(self.steps + 1, np.float32)

    @property
    def _rule(self) -> AutoAscent | SparseAscent:
        if self.threat.norm.name == "l1":
            return SparseAscent(self.threat, self.steps)
        return AutoAscent(self.threat, self.steps, self.rho)

    def first(self, key: Key, x0: Array, start: Array) -> Any:
        """Returns the state of the norm's update rule at the start."""
        del key
        return self._rule.first(x0, start)

    def update(self, search: Any, seen: Evaluation) -> Any:
        """Moves by the norm's update rule."""
        return self._rule.update(search, seen)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Starts on the sphere of radius eps, projected into the box, like the authors' code."""
        del model_fn, index
        radius = finite_radius(self.threat, x, float(self._radii[0]))
        if self.threat.norm.name == "linf":
            noise = jax.random.uniform(key, x.shape, x.dtype, -1.0, 1.0)
            noise = noise * (radius / jnp.maximum(jnp.max(jnp.abs(noise)), 1e-12)).astype(x.dtype)
        else:
            noise = jax.random.normal(key, x.shape, x.dtype)
            if self.threat.norm.name == "l2":
                noise = radius.astype(x.dtype) * self.threat.direction(x, noise)
        return self.threat.norm.project(radius, x, x + noise), y

    def oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Averages `eot` white-box evaluations."""
        return averaged(super().oracle(model_fn, aim), self.eot)

    def value_oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Averages `eot` evaluations without gradients."""
        return averaged(super().value_oracle(model_fn, aim), self.eot)

    def init(self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array) -> AttackState:
        """Starts round `index` and evaluates the example itself."""
        state = super().init(key, model_fn, x, y, index)._replace(best=none_yet(x, x))
        # A step number that no step uses.
        key_x = jax.random.fold_in(state.key, self.steps + 1)
        seen = self.value_oracle(model_fn, state.aim)(key_x, x)
        return state._replace(best=self.better(state, x, seen), queries=state.queries + self.eot)

    def step(self, model_fn: ModelFn, state: AttackState) -> AttackState:
        """Like `IterativeAttack.step`, but L1 iterates outside eps are never kept as best."""
        new = super().step(model_fn, state)
        allowed = jnp.asarray(self._radii)[state.search.step] == 1
        best = jax.tree.map(partial(jnp.where, allowed), new.best, state.best)
        more = self.eot - 1
        return new._replace(best=best, queries=new.queries + more, gradients=new.gradients + more)

    def finish(self, model_fn: ModelFn, state: AttackState) -> AttackResult:
        """Like `IterativeAttack.finish`, but projects an L1 search that was cut short."""
        if self.threat.norm.name == "l1":
            x = self.threat.project(state.search.x0, state.search.x)
            state = state._replace(search=state.search._replace(x=x))
        result = super().finish(model_fn, state)
        return result._replace(queries=result.queries + self.eot - 1)


@pytree
class TargetedAutoPGD(AutoPGD):
    """Targeted Auto-PGD over several classes: an `AttackFn`. Make one with `apgd_targeted`.

    Attributes:
      targets: number of target classes, static.
    """

    targets: int = static()

    start_queries = 1
    takes_label = True

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Starts as untargeted APGD does; the aim is the pair (label, target of the round)."""
        key_start, key_model = jax.random.split(key)
        start, _ = super().start(key_start, model_fn, x, y, index)
        logits = with_key(model_fn, key_model)(x)
        if self.targets > logits.shape[-1] - 1:
            raise ValueError(
                f"targets must be at most {logits.shape[-1] - 1} for {logits.shape[-1]} classes, "
                f"got {self.targets}"
            )
        return start, (y, likely_target(logits, y, index % self.targets))


def _chosen(loss: Any, losses: dict[str, Any]) -> Any:
    """Looks up a loss given by name; passes functions through."""
    if not isinstance(loss, str):
        return loss
    if loss not in losses:
        raise ValueError(f"loss must be one of {', '.join(losses)} or a function, got {loss!r}")
    return losses[loss]


def _checked_rho(rho: float | Array) -> Array:
    if is_concrete(rho) and not 0.0 <= float(rho) <= 1.0:
        raise ValueError(f"rho must lie in [0, 1], got {rho!r}")
    return jnp.asarray(rho, jnp.float32)


def apgd(
    threat: ThreatModel,
    *,
    steps: int = 100,
    loss: str | LogitLoss = "ce",
    restarts: int = 1,
    rho: float | Array = 0.75,
    eot: int = 1,
) -> AutoPGD:
    """Returns untargeted Auto-PGD, which needs no step size.

    Croce and Hein (2020), https://arxiv.org/abs/2003.01690: the step size starts at 2 eps. At
    checkpoints it is halved, separately for each example, if too few steps raised the score, and
    the search resumes from its best point. For L1, https://arxiv.org/abs/2103.01208: sparse steps
    with an adaptive number of pixels, in balls of 3, 2 and 1 eps for 30, 30 and 40 % of the steps;
    iterates outside eps never count as adversarial.

    Args:
      threat: the set of allowed inputs; L-infinity, L2 or L1.
      steps: moves per restart.
      loss: what to ascend: `ce` (cross-entropy), `dlr`, `margin`, or logits `[K]`, label `[]` ->
        `[]`. `dlr` needs three classes and is invariant to the scale of the logits.
      restarts: independent random starts; each example keeps its worst case.
      rho: `[]` in [0, 1], share of steps that must raise the score for the step size to stay;
        unused for L1.
      eot: evaluations per step with independent randomness, whose gradients are averaged (for
        randomised networks). Success then means success in more than half of them.

    Returns:
      An `AttackFn` for ONE example. It spends `eot * (steps + 2)` forward and `eot * steps`
      backward passes per restart, which include the example itself and the final iterate.

    Raises:
      ValueError: for counts below 1, an unknown loss or norm, or a rho outside [0, 1]; while
        tracing, for a loss that needs more classes than the network has.

    Example:

    >>> import advfeat
    >>> weights = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> attack = apgd(advfeat.linf(0.1), steps=5)
    >>> result = attack(jax.random.key(0), lambda x: weights @ x, jnp.array([0.6, 0.5]), 0)
    >>> result.best.x.tolist(), bool(result.best.success)
    ([0.5, 0.6], True)
    """
    check_positive(steps, name="steps")
    check_positive(restarts, name="restarts")
    check_positive(eot, name="eot")
    check_norm(threat.norm.name, allowed=tuple(NORMS), attack="apgd")
    return AutoPGD(
        threat=threat,
        rho=_checked_rho(rho),
        steps=steps,
        restarts=restarts,
        objective=untargeted(_chosen(loss, LOSSES)),
        eot=eot,
    )


def apgd_targeted(
    threat: ThreatModel,
    *,
    steps: int = 100,
    targets: int = 9,
    loss: str | TargetedLoss = "dlr",
    restarts: int = 1,
    rho: float | Array = 0.75,
    eot: int = 1,
) -> TargetedAutoPGD:
    """Returns targeted Auto-PGD, which tries the most likely classes other than the label in turn.

    The targeted attack of AutoAttack, Croce and Hein (2020), https://arxiv.org/abs/2003.01690,
    section 5. It takes the label, and any other prediction is a success: the targets only
    diversify the search directions.

    Args:
      threat: as for `apgd`.
      steps: moves per target and restart.
      targets: number of classes to try; at most K - 1.
      loss: what to ascend: `dlr` (needs four classes), `margin`, `ce`, or logits `[K]`, label `[]`,
        target `[]` -> `[]`.
      restarts: independent random starts per target.
      rho: as for `apgd`.
      eot: as for `apgd`.

    Returns:
      An `AttackFn` for ONE example. It spends `1 + eot * (steps + 2)` forward and `eot * steps`
      backward passes per target and restart.

    Raises:
      ValueError: as `apgd`; while tracing, for more than K - 1 targets.

    Example:

    >>> import advfeat
    >>> attack = apgd_targeted(advfeat.linf(0.1), steps=5, targets=3)
    >>> x = jnp.array([0.6, 0.5, 0.1, 0.2])
    >>> result = attack(jax.random.key(0), lambda x: x, x, 0)
    >>> bool(result.best.success), int(result.gradients)
    (True, 15)
    """
    check_positive(steps, name="steps")
    check_positive(targets, name="targets")
    check_positive(restarts, name="restarts")
    check_positive(eot, name="eot")
    check_norm(threat.norm.name, allowed=tuple(NORMS), attack="apgd_targeted")
    return TargetedAutoPGD(
        threat=threat,
        rho=_checked_rho(rho),
        steps=steps,
        restarts=restarts,
        objective=UntargetedViaTarget(_chosen(loss, TARGETED_LOSSES)),
        eot=eot,
        targets=targets,
    )
