"""The flags of experiments that show a standard network beside a robust one."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import Config as BaseConfig, flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairConfig(BaseConfig):
    """A data set and two networks."""

    dataset: str = flag(
        "samples:cifar10",
        "What the images are of: by default the hundred that come with the package; cifar10, once "
        "it is prepared, is the whole set.",
    )
    standard: str = flag("zoo:cifar10_standard", "Standard network: DIR, DIR:NAME or zoo:NAME.")
    robust: str = flag("zoo:cifar10_l2_robust", "Robust network, likewise.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedConfig(PairConfig):
    """Two networks, and others that had no part in what those make."""

    judges: tuple[str, ...] | None = flag(
        None,
        "Independent networks that read what was made, or the word none. Default: for CIFAR-10 two "
        "of the zoo, of another architecture than the networks looked at; else none.",
    )

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        for judge in self.judges or ():
            if judge in (self.standard, self.robust):
                raise ValueError(
                    f"flag --judges={judge}: is one of the two networks, not independent of them"
                )
