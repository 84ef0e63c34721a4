"""Variants of projected gradient descent with other step rules."""

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

ADAM_STEP = 3.0  # over eps; close to the usual learning rate of 0.1 at L-infinity 8/255
ADAM_LATER = 0.1  # factor of the step size in the second half


def pgd_momentum(
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | Array | None = None,
    decay: float = 1.0,
    objective: Objective = untargeted(),
) -> GradientAttack:
    """Returns MI-FGSM: momentum on normalised gradients, which improves transferability.

    Dong et al. (2018), https://arxiv.org/abs/1710.06081, algorithm 1: starts at the example, with
    steps that add up to eps. The paper returns the last iterate, which is `last` here; `best` is
    chosen by success, then by score.

    Args:
      threat: the set of allowed inputs; L-infinity in the paper, L2 in its section 3.3.
      steps: number of moves.
      step_size: `[]`, in the threat model's norm; by default `eps / steps`.
      decay: momentum decay factor.
      objective: what to ascend; by default cross-entropy away from the label.

    Returns:
      An `AttackFn` for ONE example.

    Raises:
      ValueError: for counts below 1, a negative or NaN step size, or a decay outside [0, 1].

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
    """Adam with a learning rate that drops to a tenth halfway through.

    Attributes:
      steps: number of steps of the whole attack.
    """

    steps: int

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """Scales Adam so that its first step, which moves all pixels equally, has that size.

        Adam's own learning rate is the move of a single pixel. In L2 the same rate would be a much
        longer step, and the larger the image, the longer the step.
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
    objective: Objective = untargeted(margin),
) -> GradientAttack:
    """Returns PGD with Adam steps on the margin.

    Uesato et al. (2018), https://arxiv.org/abs/1802.05666, with the settings that Gowal et al.
    (2020), https://arxiv.org/abs/2010.03593, use for evaluation: 40 steps and learning rates of
    0.1, then 0.01. Those rates are for L-infinity at 8/255; here they scale with eps, and in L2
    they are the length of a step. L1 is not supported: its worst-case perturbations are sparse,
    whereas Adam moves all pixels equally and finds only half of the worst case of a linear model.

    Args:
      threat: the set of allowed inputs, in L-infinity or L2.
      steps: moves per restart.
      step_size: `[]`, size of the first steps in the threat model's norm (in L-infinity, Adam's
        learning rate); by default `3 * eps`. It drops to a tenth halfway through.
      restarts: independent random starts; each example keeps its worst case.
      random_start: start uniformly in the ball instead of at the example.
      objective: what to ascend; by default the margin away from the label, whose gradient does not
        vanish for confident networks.

    Returns:
      An `AttackFn` for ONE example.

    Raises:
      ValueError: for counts below 1, a negative or NaN step size, restarts without a random
        start, or an unsupported norm.

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
        objective=objective,
        rule=AnnealedAdam(steps),
    )
