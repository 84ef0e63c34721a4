"""Flags of `experiments.sanity`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag

from ..shared.flag_checks import check_least
from ..shared.flags.maps import MapConfig
from ..shared.flags.sweeps import TrainingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(MapConfig, TrainingConfig):
    """Flags of `experiments.sanity`."""

    SMALLEST = {"eval_examples": 4, "shown": 3}

    epochs: int | None = flag(
        60,
        "Passes over all training images: enough to memorise permuted labels.",
        kind="count",
    )
    width: int | None = flag(32, "Width of the networks.", kind="count")
    weight_decay: float = flag(0.0, "L2 regularisation of all weights.", kind="nonnegative")
    eval_examples: int = flag(50, "Number of images whose maps are compared.", kind="count")
    shown: int = flag(3, "Images in the picture.", kind="count")

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        check_least(self, eval_examples=2)  # a map is compared with another image's
