"""Flags of `experiments.roar`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag

from ..shared.flags.maps import MapConfig
from ..shared.flags.sweeps import TrainingConfig

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(MapConfig, TrainingConfig):
    """Flags of `experiments.roar`."""

    SMALLEST = {"shares": (0.9,)}

    shares: tuple[float, ...] = flag(SHARES, "Shares of the pixels removed.", kind="fraction")

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        if sorted(set(self.shares)) != list(self.shares) or self.shares[0] == 0:
            shown = ",".join(f"{share:g}" for share in self.shares)
            raise ValueError(f"flag --shares={shown}: must ascend, from above 0")
