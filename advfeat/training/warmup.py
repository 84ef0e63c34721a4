"""An eps warm-up: scales the attacks of an objective or a procedure, wherever they are."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from advfeat.threats.balls import ThreatModel
from advfeat.training.losses.base import TrainingObjective
from advfeat.types import Array, Number

T = TypeVar("T")


def scaled(tree: T, share: Number) -> T:
    """Scales eps and step size of every part of a pytree that has a threat model.

    Args:
      tree: an objective, a procedure or an attack; what has no threat model is returned as it is.
      share: at least 0; at 0 an infinite eps becomes 0 as well.

    >>> import advfeat
    >>> scaled(advfeat.pgd(advfeat.linf(8 / 255), steps=7), 0.5).threat.eps * 255
    Array(4., dtype=float32)
    """
    return jax.tree.map(  # type: ignore[no-any-return]
        lambda part: _scaled(part, share) if _has_threat(part) else part, tree, is_leaf=_has_threat
    )


def check_scalable(loss_fn: Any) -> None:
    """Checks that a warm-up can scale what an objective attacks with.

    Raises:
      ValueError: for a loss of unknown kind, or an attack, without a threat model.
    """
    attacks = not isinstance(loss_fn, TrainingObjective) or hasattr(loss_fn, "attack")
    if attacks and not any(map(_has_threat, jax.tree.leaves(loss_fn, is_leaf=_has_threat))):
        attack = getattr(loss_fn, "attack", loss_fn)
        raise ValueError(
            f"an eps warm-up needs an attack with a threat model, got {type(attack).__name__}"
        )


def _has_threat(part: Any) -> bool:
    return isinstance(getattr(part, "threat", None), ThreatModel)


def _scaled(part: Any, share: Number) -> Any:
    eps = _times(part.threat.eps, share)
    changes: dict[str, Any] = {"threat": dataclasses.replace(part.threat, eps=eps)}
    if getattr(part, "step_size", None) is not None:
        changes["step_size"] = _times(part.step_size, share)
    return dataclasses.replace(part, **changes)


def _times(size: Array, share: Number) -> Array:
    share = jnp.asarray(share, jnp.float32)
    return jnp.where(share > 0, size * share, 0.0)  # infinity times 0 would be NaN
