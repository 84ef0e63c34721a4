"""Flags shared by the experiments that compare a standard and a robust network."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import Config as BaseConfig, flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairConfig(BaseConfig):
    """Flags for a data set and two networks."""

    dataset: str = flag(
        "samples:cifar10",
        "Data set: by default the hundred images that come with the package; cifar10, once it is "
        "prepared, is the whole set.",
    )
    standard: str = flag("zoo:cifar10_standard", "Standard network: DIR, DIR:NAME or zoo:NAME.")
    robust: str = flag("zoo:cifar10_l2_robust", "Robust network, in the same forms.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedConfig(PairConfig):
    """Flags for two networks, and for independent networks that judge their images."""

    judges: tuple[str, ...] | None = flag(
        None,
        "Independent networks that judge the generated images, or the word none. Default: for "
        "CIFAR-10 two of the zoo, of another architecture than the two networks; otherwise none.",
    )

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        for judge in self.judges or ():
            if judge in (self.standard, self.robust):
                raise ValueError(
                    f"flag --judges={judge}: is one of the two networks, not independent of them"
                )
