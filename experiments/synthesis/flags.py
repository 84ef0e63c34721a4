"""Flags of `experiments.synthesis`."""

from __future__ import annotations

import dataclasses
import math

from advfeat.runs.config import flag

from ..shared.flag_checks import check_least
from ..shared.flags.pairs import JudgedConfig

TASKS = ("generation", "translation", "inpainting", "superresolution", "sketch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(JudgedConfig):
    """Flags of `experiments.synthesis`."""

    SMALLEST = {"eval_examples": 20, "steps": 3}

    tasks: tuple[str, ...] = flag(TASKS, "Which tasks.", choices=TASKS)
    eval_examples: int = flag(120, "Number of images per task.", kind="count")
    shown: int = flag(10, "Images in the pictures.", kind="count")
    steps: int = flag(60, "Steps of every ascent.", kind="count")
    strength: float = flag(1.0, "Factor on every task's eps.", kind="positive")
    eps_grid: tuple[float, ...] = flag(
        (0.5, 2.0, 5.0), "L2 eps of the attacks side by side.", kind="eps_list"
    )

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        check_least(self, eval_examples=3)
        if not all(0 < eps < math.inf for eps in self.eps_grid):
            shown = ",".join(f"{eps:g}" for eps in self.eps_grid)
            raise ValueError(f"flag --eps_grid={shown}: must be above 0 and finite")
