"""Flags of `experiments.representations`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag

from ..shared.flag_checks import check_least
from ..shared.flags.pairs import JudgedConfig

EXTREMES = 3  # number of most and of least activating images of a unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(JudgedConfig):
    """Flags of `experiments.representations`."""

    SMALLEST = {"shown": 3, "inverted": 4, "eval_examples": 4, "searched": 50, "steps": 4}

    layer: str = flag("representation", "The layer to examine.")
    units: tuple[int, ...] | None = flag(
        None, "Units to picture. Default: three of each network that vary much.", kind="natural"
    )
    shown: int = flag(4, "Images in the pictures.", kind="count")
    inverted: int = flag(24, "Number of images inverted for the numbers.", kind="count")
    eval_examples: int = flag(100, "Number of images for the other numbers.", kind="count")
    searched: int = flag(2000, "Test images searched for those that activate a unit.", kind="count")
    steps: int = flag(300, "Steps of an inversion; other pictures take half as many.", kind="count")
    step_size: float = flag(
        0.1,
        "L2 length of a step. Units take twice it; inversions start at twice it and "
        "interpolations at it, and decay to zero.",
        kind="positive",
    )
    eps: float = flag(0.5, "L2 eps of the attack on each layer.", kind="eps")

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        # A second image is always needed: as start, as end, or for comparison.
        check_least(self, shown=2, inverted=2, eval_examples=2, searched=EXTREMES)
