"""The fast gradient sign method and its one-step analogues in other norms.

Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572, section 4.
"""

from __future__ import annotations

from advfeat.attacks.keeping import Keep, by_success
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.objectives.classification import untargeted
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Objective


def fgsm(
    threat: ThreatModel,
    *,
    step_size: float | Array | None = None,
    random_start: bool = False,
    objective: Objective = untargeted(),
    keep: Keep | None = by_success,
) -> GradientAttack:
    """Returns FGSM: one step of length eps along the steepest direction of the norm.

    Args:
      threat: the set of allowed inputs; L-infinity gives the sign method of the paper.
      step_size: `[]`, by default eps; Wong et al. (2020) use 1.25 eps with a random start.
      random_start: start uniformly in the ball instead of at the example.
      objective: what to ascend; by default cross-entropy away from the label.
      keep: as `pgd`; None leaves the result unscored, which saves one forward pass.

    Returns:
      An `AttackFn` for ONE example. As in PGD, the start counts as an iterate: an already
      misclassified example counts as fooled even if the step makes it correct.

    Raises:
      ValueError: for a negative or NaN step size.

    >>> import jax, jax.numpy as jnp, advfeat
    >>> result = fgsm(advfeat.linf(0.25))(
    ...     jax.random.key(0), lambda x: jnp.stack([x[0], x[1]]), jnp.array([0.6, 0.5]), 0)
    >>> result.best.x.tolist()
    [0.35, 0.75]
    """
    return pgd(
        threat,
        steps=1,
        step_size=threat.eps if step_size is None else step_size,
        random_start=random_start,
        objective=objective,
        keep=keep,
    )
