"""The flags of `experiments.representations`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag

from ..shared.flags.pairs import JudgedConfig
from ..shared.limits import check_least

EXTREMES = 3  # most and least activating images of a unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(JudgedConfig):
    """The flags of this experiment."""

    layer: str = flag("representation", "The layer that is looked into.")
    units: tuple[int, ...] | None = flag(
        None, "Units to picture. Default: three that vary much, of each network.", kind="natural"
    )
    shown: int = flag(4, "Images in the pictures.", kind="count")
    inverted: int = flag(24, "Images that are inverted for the numbers.", kind="count")
    measured: int = flag(100, "Images of the other numbers.", kind="count")
    searched: int = flag(2000, "Test images searched for those that activate a unit.",
                         kind="count")  # fmt: skip
    steps: int = flag(300, "Steps of an inversion; other pictures take half of them.", kind="count")
    step_size: float = flag(
        0.1, "Their L2 length. Units take twice it; inversions begin at twice it and "
        "interpolations at it, and come to rest.",
        kind="positive",
    )  # fmt: skip
    eps: float = flag(0.5, "L2 eps of the attack on each layer.", kind="eps")

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        # Another image is always needed: to begin at, to go to, to compare with.
        check_least(self, shown=2, inverted=2, measured=2, searched=EXTREMES)
