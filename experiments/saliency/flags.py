"""The flags of `experiments.saliency`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag

from ..shared.flags.choices import DISPLAYS
from ..shared.flags.maps import MapConfig
from ..shared.flags.pairs import PairConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PairConfig, MapConfig):
    """The flags of this experiment."""

    others: tuple[str, ...] | None = flag(
        None,
        "Further networks whose maps stand beside, or the word none. Default: for CIFAR-10 two of "
        "the zoo, of another architecture; else none.",
    )
    display: str = flag("three_sigma", "How maps are shown.", choices=DISPLAYS)
    shown: int = flag(6, "Images in the pictures.", kind="count")
    measured: int = flag(25, "Images of the numbers.", kind="count")
    sanity_images: int = flag(10, "Images of the sanity checks.", kind="count")

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        if "gradient" not in self.methods:
            raise ValueError("flag --methods: must hold gradient, which the others are compared to")
