"""Flags of `experiments.tradeoff`."""

from __future__ import annotations

import dataclasses
import math

from advfeat.runs.config import flag
from advfeat.runs.kinds import format_eps

from ..shared.flag_checks import check_linf_eps
from ..shared.flags.choices import NORMS
from ..shared.flags.sweeps import SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(SweepConfig):
    """Flags of `experiments.tradeoff`."""

    norms: tuple[str, ...] = flag(("l2", "linf"), "Norms of the threat models.", choices=NORMS)
    eval_l2: float | None = flag(
        None, "L2 eps of the measurement. Default: the preset's robust_eps.", kind="eps"
    )
    eval_linf: float | None = flag(
        None, "L∞ eps of the measurement. Default: the preset's linf_eps.", kind="eps"
    )
    eval_l1: float | None = flag(None, "L1 eps of the measurement.", kind="eps")
    train_l2: tuple[float, ...] | None = flag(
        None,
        "L2 eps of training; 0 is added. Default: 0.25 to 1.25 times the measurement's eps.",
        kind="eps_list",
    )
    train_linf: tuple[float, ...] | None = flag(
        None, "L∞ eps of training, with the same default.", kind="eps_list"
    )
    train_l1: tuple[float, ...] | None = flag(
        None, "L1 eps of training, with the same default.", kind="eps_list"
    )

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        if "l1" in self.norms and self.eval_l1 is None:
            raise ValueError("flag --norms: give --eval_l1 with l1")
        check_linf_eps("linf", eval_linf=self.eval_linf, train_linf=self.train_linf)
        for norm in NORMS:
            value, many = getattr(self, f"eval_{norm}"), getattr(self, f"train_{norm}")
            if value is not None and not 0 < value < math.inf:
                shown = format_eps(value)
                raise ValueError(f"flag --eval_{norm}={shown}: must be above 0 and finite")
            if many is not None and not (0 < max(many) < math.inf and len(set(many)) == len(many)):
                shown = ",".join(map(format_eps, many))
                raise ValueError(
                    f"flag --train_{norm}={shown}: must be different and finite, one above 0"
                )
            if norm not in self.norms and (value is not None or many is not None):
                name = f"eval_{norm}" if value is not None else f"train_{norm}"
                raise ValueError(f"flag --{name}: {norm} is not among --norms")
