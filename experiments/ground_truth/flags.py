"""Flags of `experiments.ground_truth`."""

from __future__ import annotations

import dataclasses
import math

from advfeat.runs.config import flag

from ..shared.flag_checks import check_linf_eps
from ..shared.flags.choices import MODELS
from ..shared.flags.maps import MapConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(MapConfig):
    """Flags of `experiments.ground_truth`."""

    SMALLEST = {"epochs": 1, "robust_epochs": 1, "eval_examples": 8}

    dataset: str = flag("planted", "Only planted images have a ground truth.", choices=("planted",))
    model: str = flag("cnn", "Architecture.", choices=MODELS)
    width: int = flag(16, "Its width.", kind="count")
    epochs: int = flag(6, "Standard networks: passes over the 4,000 training images.", kind="count")
    robust_epochs: int = flag(10, "Robust networks: passes over them.", kind="count")
    eps: float = flag(8 / 255, "L∞ eps of the robust network's training.", kind="eps")
    eval_examples: int = flag(24, "Number of images scored.", kind="count")
    sigma: float = flag(0.05, "Standard deviation of SmoothGrad's noise.", kind="nonnegative")

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        check_linf_eps("linf", eps=self.eps)
        if math.isinf(self.eps):
            raise ValueError("flag --eps=inf: must be finite")
