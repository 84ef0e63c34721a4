"""Flags of `experiments.counterfactual`."""

from __future__ import annotations

import dataclasses
import math

from advfeat.runs.config import flag

from ..shared.flags.pairs import PairConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PairConfig):
    """Flags of `experiments.counterfactual`."""

    SMALLEST = {"searched": 60, "eval_examples": 6, "steps": 3}

    layer: str = flag("representation", "The layer whose units are the features.")
    features: int = flag(2, "Number of features enhanced.", kind="count")
    searched: int = flag(2000, "Test images searched for wrong predictions.", kind="count")
    eval_examples: int = flag(100, "Maximum number of wrong predictions per network.", kind="count")
    shown: int = flag(6, "Images in the pictures.", kind="count")
    eps: float = flag(4.0, "Maximum L2 change of an image.", kind="eps")
    steps: int = flag(100, "Steps of the ascent.", kind="count")
    step_size: float = flag(0.05, "L2 length of a step.", kind="positive")

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        if not 0 < self.eps < math.inf:
            raise ValueError(f"flag --eps={self.eps:g}: must be above 0 and finite")
