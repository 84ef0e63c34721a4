"""Relatives of projected gradient descent that differ from it in the step rule."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import optax

from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.attacks.step_rules import momentum
from advfeat.checks import check_norm
from advfeat.objectives.classification import untargeted
from advfeat.objectives.losses import margin
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Objective

ADAM_STEP = 3.0  # over eps: about the usual learning rate of 0.1 at L-infinity 8/255
ADAM_LATER = 0.1  # by how much it is scaled in the second half


def pgd_momentum(
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | Array | None = None,
    decay: float = 1.0,
    objective: Objective | None = None,
) -> GradientAttack:
    """MI-FGSM: momentum on normalised gradients, which transfers better to other networks.

    Dong et al. (2018), https://arxiv.org/abs/1710.06081, algorithm 1: from the example itself, with
    steps that add up to eps. The paper returns the last iterate, here `last`; `best` is preferred
    by success, then by score.

    Args:
      threat: the set of allowed inputs; L-infinity in the paper, whose section 3.3 has L2 too.
      steps: moves.
      step_size: `[]`, in the threat model's norm; by default `eps / steps`.
      decay: how much of the past is kept.
      objective: what to ascend; by default cross-entropy away from the label.

    Returns:
      An `AttackFn` for ONE example.

    Raises:
      ValueError: for counts below 1, a step size that is negative or NaN, a decay outside [0, 1].

    >>> import jax, advfeat
    >>> result = pgd_momentum(advfeat.linf(0.25))(
    ...     jax.random.key(0), lambda x: jnp.stack([x[0], x[1]]), jnp.array([0.6, 0.5]), 0)
    >>> result.last.x.round(4).tolist()
    [0.35, 0.75]
    """
    return pgd(
        threat,
        steps=steps,
        step_size=threat.eps / steps if step_size is None else step_size,
        random_start=False,
        objective=objective,
        rule=momentum(decay),
    )


@dataclasses.dataclass(frozen=True)
class AnnealedAdam:
    """Adam with a learning rate that falls to a tenth halfway.

    Attributes:
      steps: of the whole attack.
    """

    steps: int

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """Adam's step, scaled so that its first one, which moves all values alike, has that size.

        Adam's own learning rate is the move of one value: in L2 the same rate would be a much
        longer step, the longer the larger the image.
        """

        def scaled(update: Array, x: Array) -> Array:
            together = threat.distance(jnp.zeros_like(x), jnp.ones_like(x))
            return update * (step_size / together).astype(update.dtype)

        half = -(-self.steps // 2)
        return optax.chain(
            optax.scale_by_adam(),
            optax.scale_by_schedule(optax.piecewise_constant_schedule(1.0, {half: ADAM_LATER})),
            optax.stateless(scaled),
        )


def pgd_adam(
    threat: ThreatModel,
    *,
    steps: int = 40,
    step_size: float | Array | None = None,
    restarts: int = 1,
    random_start: bool = True,
    objective: Objective | None = None,
) -> GradientAttack:
    """PGD whose steps are Adam's, on the margin.

    Uesato et al. (2018), https://arxiv.org/abs/1802.05666, with the 40 steps and the learning rates
    of 0.1, then 0.01, with which Gowal et al. (2020), https://arxiv.org/abs/2010.03593, evaluate.
    Those rates are for L-infinity at 8/255; here they go with eps, and in L2 they mean the length
    of a step. There is none for L1, whose worst perturbations are sparse: Adam moves all values
    alike, and finds half of the worst case of a linear model.

    Args:
      threat: the set of allowed inputs, in L-infinity or L2.
      steps: moves per restart.
      step_size: `[]`, the size of the first steps in the threat model's norm (with L-infinity
        Adam's learning rate); by default `3 * eps`. From halfway on it is a tenth.
      restarts: independent random starts; each example keeps its worst.
      random_start: start uniformly in the ball, or at the example itself.
      objective: what to ascend; by default the margin away from the label, whose gradient does not
        vanish where the network is sure of itself.

    Returns:
      An `AttackFn` for ONE example.

    Raises:
      ValueError: for counts below 1, a step size that is negative or NaN, restarts without a
        random start, or another norm.

    >>> import jax, advfeat
    >>> result = pgd_adam(advfeat.linf(0.25))(
    ...     jax.random.key(0), lambda x: jnp.stack([x[0], x[1]]), jnp.array([0.6, 0.5]), 0)
    >>> result.best.x.round(4).tolist()
    [0.35, 0.75]
    """
    check_norm(threat.norm.name, allowed=("linf", "l2"), attack="pgd_adam")
    return pgd(
        threat,
        steps=steps,
        step_size=ADAM_STEP * threat.eps if step_size is None else step_size,
        restarts=restarts,
        random_start=random_start,
        objective=untargeted(margin) if objective is None else objective,
        rule=AnnealedAdam(steps),
    )
