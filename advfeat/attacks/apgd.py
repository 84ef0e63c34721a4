"""Auto-PGD: projected gradient ascent with momentum and adaptive step sizes.

Croce and Hein (2020), https://arxiv.org/abs/2003.01690, algorithm 1, for L-infinity and L2; for L1
Croce and Hein (2021), "Mind the box", https://arxiv.org/abs/2103.01208, algorithm 1 with its
radius reduction. Every projection onto the intersection of ball and box is exact.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.attacks import ascent
from advfeat.attacks.apgd_kernels import auto_ascent, phases, reach, sparse_ascent
from advfeat.attacks.ascent import Ascent, Run
from advfeat.attacks.stepwise import Stepwise
from advfeat.checks import check_norm, check_positive, is_concrete
from advfeat.objectives.classification import AwayTowards, TargetedLoss, likely_target, untargeted
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
    return ascent.by_success(candidate, incumbent) & ~untouched


def averaged(oracle: Oracle, draws: int) -> Oracle:
    """Averages an oracle over random draws; success means success in more than half of them.

    Draws are evaluated sequentially, so memory does not grow with their number.
    """
    if draws == 1:
        return oracle

    def mean(key: Key, x: Array) -> Evaluation:
        seen = jax.lax.map(lambda k: oracle(k, x), jax.random.split(key, draws))
        score, grad = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), (seen.score, seen.grad))
        return Evaluation(score, 2 * jnp.sum(seen.success) > draws, grad)

    return mean


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)  # jax.jit(attack) hashes it; arrays do not
class AutoPGD(Stepwise):
    """Auto-PGD: an `AttackFn`. Make one with `apgd`.

    Every restart evaluates the example itself first, at the cost of `eot` forward passes.

    Attributes:
      threat: the set of allowed inputs.
      rho: `[]` float32; see `apgd`.
      steps: moves per restart.
      rounds: restarts × targets.
      objective: what to ascend.
      eot: evaluations per step.
    """

    threat: ThreatModel
    rho: Array
    steps: int = dataclasses.field(metadata={"static": True})
    rounds: int = dataclasses.field(metadata={"static": True})
    objective: Objective = dataclasses.field(metadata={"static": True})
    eot: int = dataclasses.field(metadata={"static": True})

    prefer = staticmethod(_unless_wrong_before)

    @property
    def _radii(self) -> np.ndarray:
        """Returns the radius schedule `[steps + 1]` by step count, in units of eps."""
        sparse = self.threat.norm.name == "l1"
        return phases(self.steps)[0] if sparse else np.ones(self.steps + 1, np.float32)

    def kernel(self, x0: Array) -> Ascent:
        """Returns the kernel for the threat model's norm."""
        if self.threat.norm.name == "l1":
            return sparse_ascent(self.threat, steps=self.steps)
        return auto_ascent(self.threat, steps=self.steps, rho=self.rho)

    def distance(self, x0: Array, x: Array) -> Array:
        """Returns the distance in the threat model's norm."""
        return self.threat.distance(x0, x)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Starts on the sphere of radius eps, projected into the box, like the authors' code."""
        del model_fn, index
        radius = reach(self.threat, x, float(self._radii[0]))
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

    def begin(self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array) -> Run:
        """Starts round `index` and evaluates the example itself."""
        run = super().begin(key, model_fn, x, y, index)
        run = run._replace(best=ascent.nothing_yet(x, x))
        # A count that no step uses.
        seen = self.value_oracle(model_fn, run.aim)(jax.random.fold_in(run.key, self.steps + 1), x)
        best = run.note(x, seen, self.distance, self.prefer)
        return run._replace(best=best, queries=run.queries + self.eot)

    def step(self, model_fn: ModelFn, run: Run) -> Run:
        """Like `Stepwise.step`, but L1 iterates outside eps are never recorded as best."""
        new = super().step(model_fn, run)
        allowed = jnp.asarray(self._radii)[run.state.count] == 1
        best = jax.tree.map(partial(jnp.where, allowed), new.best, run.best)
        more = self.eot - 1
        return new._replace(best=best, queries=new.queries + more, gradients=new.gradients + more)

    def end(self, model_fn: ModelFn, run: Run) -> AttackResult:
        """Like `Stepwise.end`, but an L1 search cut short is projected onto the threat model."""
        if self.threat.norm.name == "l1":
            x = self.threat.project(run.state.x0, run.state.x)
            run = run._replace(state=run.state._replace(x=x))
        result = super().end(model_fn, run)
        return result._replace(queries=result.queries + self.eot - 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TargetedAutoPGD(AutoPGD):
    """Targeted Auto-PGD over several classes: an `AttackFn`. Make one with `apgd_targeted`.

    Attributes:
      targets: number of target classes, static.
    """

    targets: int = dataclasses.field(metadata={"static": True})

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
        rounds=restarts,
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
        rounds=targets * restarts,
        objective=AwayTowards(_chosen(loss, TARGETED_LOSSES)),
        eot=eot,
        targets=targets,
    )
