"""Training procedures: how a step uses an objective; one file and one registry line each.

`ema` and `swa` wrap any of the others.
"""

from __future__ import annotations

from collections.abc import Callable

from advfeat.training.procedures.averaging import ema, swa
from advfeat.training.procedures.base import Procedure
from advfeat.training.procedures.free import free
from advfeat.training.procedures.plain import plain
from advfeat.training.procedures.weight_perturbation import awp

PROCEDURES: dict[str, Callable[..., Procedure]] = {
    "plain": plain,
    "free": free,
    "awp": awp,
    "ema": ema,
    "swa": swa,
}
"""The procedures by name."""

__all__ = ["PROCEDURES", "Procedure", "awp", "ema", "free", "plain", "swa"]
