"""Flags of `experiments.transfer_learning`."""

from __future__ import annotations

import dataclasses
import math

from advfeat.runs.config import flag

from ..shared.flags.sweeps import SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(SweepConfig):
    """Flags of `experiments.transfer_learning`."""

    SMALLEST = {"target_epochs": 1}

    target: str = flag("digits", "Data set to transfer to.")
    target_classes: tuple[str, ...] | None = flag(
        None, "Keep only these classes of the target. Default: all, or the second half."
    )
    target_examples: int = flag(100, "Training images of the target.", kind="count")
    target_epochs: int = flag(30, "Passes over them in fine-tuning.", kind="count")
    train_l2: tuple[float, ...] | None = flag(
        None,
        "L2 eps of the sources; 0 is added. Default: 0.1 to 1 times the preset's.",
        kind="eps_list",
    )

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        if self.seeds < 2:
            raise ValueError(
                f"flag --seeds={self.seeds}: must be at least 2, since each seed's eps is chosen "
                "by the others"
            )
        given = self.train_l2 or (1.0,)
        if not (0 < max(given) < math.inf and len(set(given)) == len(given)):
            shown = ",".join(f"{eps:g}" for eps in given)
            raise ValueError(f"flag --train_l2={shown}: must be different and finite, one above 0")
        if self.target == self.dataset and (self.classes is None) != (self.target_classes is None):
            raise ValueError(
                "flag --target: the source's data set; give both --classes and "
                "--target_classes, or neither"
            )
