"""Flags of `experiments.defences`."""

from __future__ import annotations

import dataclasses
import math

from advfeat.runs.config import Config as BaseConfig, flag

from ..shared.flag_checks import check_linf_eps
from ..shared.flags.choices import DEFENCES, MODELS, NORMS, SUITES_AND_ATTACKS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Flags of `experiments.defences`."""

    SMALLEST = {"defences": DEFENCES.written()[:3], "eval_examples": 20, "epochs": 1}

    defences: tuple[str, ...] = flag(DEFENCES.written(), "Which ones.", choices=DEFENCES)
    norm: str = flag("l2", "Norm of the threat model.", choices=NORMS)
    eps: float | None = flag(
        None, "Eps of the threat model. Default: the preset's; 0.2 for linf.", kind="eps"
    )
    attack: tuple[str, ...] = flag(
        ("standard",), "A suite, or attacks in their order.", choices=SUITES_AND_ATTACKS
    )
    eval_examples: int = flag(100, "Test images, drawn by the seed; 0: all.", kind="natural")
    model: str = flag("mlp", "Architecture of the networks.", choices=MODELS)
    width: int = flag(64, "Their width.", kind="count")
    epochs: int = flag(10, "Epochs of training; twice as many if adversarial.", kind="count")
    attack_batch_size: int = flag(
        250, "Images attacked at a time, which bounds the memory.", kind="count"
    )

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        check_linf_eps(self.norm, eps=self.eps)
        if self.norm == "l1" and self.eps is None:
            raise ValueError("flag --norm=l1: give --eps with it")
        if self.eps is not None and math.isinf(self.eps):
            raise ValueError("flag --eps=inf: must be finite")
