"""Flags of `experiments.saliency`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag

from ..shared.flags.choices import DISPLAYS
from ..shared.flags.maps import MapConfig
from ..shared.flags.pairs import PairConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PairConfig, MapConfig):
    """Flags of `experiments.saliency`."""

    SMALLEST = {"eval_examples": 8, "sanity_images": 2}

    others: tuple[str, ...] | None = flag(
        None,
        "Further networks to compare, or the word none. Default: for CIFAR-10 two of "
        "the zoo, of another architecture; otherwise none.",
    )
    display: str = flag("three_sigma", "Display of the maps.", choices=DISPLAYS)
    shown: int = flag(6, "Images in the pictures.", kind="count")
    eval_examples: int = flag(25, "Number of images measured.", kind="count")
    sanity_images: int = flag(10, "Number of images for the sanity checks.", kind="count")

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        if "gradient" not in self.methods:
            raise ValueError("flag --methods: must hold gradient, which the others are compared to")
