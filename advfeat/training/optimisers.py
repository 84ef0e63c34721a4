"""Learning-rate schedules and the optimiser, built from optax."""

from __future__ import annotations

import optax

SCHEDULES = ("constant", "cosine", "onecycle", "multistep")
"""The names that `schedule` takes."""


def schedule(name: str, *, learning_rate: float, steps: int) -> optax.Schedule:
    """Returns a learning-rate schedule over `steps` steps.

    Args:
      name: `constant`; `cosine` (to 0); `onecycle` (linear up over the first 20 % and down to 0);
        `multistep` (a tenth at one half and at three quarters, as Madry et al. train CIFAR-10).
      learning_rate: the maximum.
      steps: length of the whole training.

    Raises:
      ValueError: for an unknown name.

    >>> float(schedule("multistep", learning_rate=0.1, steps=100)(60))
    0.01
    """
    if name == "constant":
        return optax.constant_schedule(learning_rate)
    if name == "cosine":
        return optax.cosine_decay_schedule(learning_rate, steps)
    if name == "onecycle":
        rise = max(1, round(0.2 * steps))
        parts = [
            optax.linear_schedule(0.0, learning_rate, rise),
            optax.linear_schedule(learning_rate, 0.0, max(1, steps - rise)),
        ]
        return optax.join_schedules(parts, [rise])
    if name == "multistep":
        drops = {max(1, steps // 2): 0.1, max(2, 3 * steps // 4): 0.1}
        return optax.piecewise_constant_schedule(learning_rate, drops)
    raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")


def sgd(
    learning_rate: optax.Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    nesterov: bool = True,
) -> optax.GradientTransformation:
    """Returns SGD with momentum and coupled L2 weight decay, as in the papers."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
    )
