"""Flags of `experiments.sample_complexity`."""

from __future__ import annotations

import dataclasses
import math

from advfeat.runs.config import flag

from ..shared.flag_checks import check_linf_eps
from ..shared.flags.choices import FEW, NORMS
from ..shared.flags.sweeps import SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(SweepConfig):
    """Flags of `experiments.sample_complexity`."""

    SMALLEST = {"sizes": None, "dim": 100, "draws": 20}

    norm: str = flag("l2", "Norm of the threat model.", choices=NORMS)
    eps: float | None = flag(
        None, "Eps of training and measurement. Default: the preset's.", kind="eps"
    )
    sizes: tuple[int, ...] | None = flag(
        None,
        "Sizes of the training set, ascending. Default: all training images, halved up to five "
        "times.",
        kind="count",
    )
    share: float = flag(
        0.9, "Share of the final accuracy whose training-set size is sought.", kind="fraction"
    )
    dim: int = flag(10_000, "Dimension of the Gaussian model.", kind="count")
    noise: float | None = flag(
        None,
        "Its standard deviation. Default: 0.64 dim^(1/4), for which one example gives an "
        "error of about 1 %.",
        kind="positive",
    )
    model_eps: float = flag(0.6, "L∞ eps of its adversary.", kind="eps")
    draws: int = flag(200, "Number of draws of the model.", kind="count")

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        check_linf_eps(self.norm, eps=self.eps)
        if self.eps is not None and not 0 < self.eps < math.inf:
            raise ValueError(f"flag --eps={self.eps:g}: must be above 0 and finite")
        if self.norm == "l1" and self.eps is None:
            raise ValueError("flag --norm=l1: give --eps with it")
        if not 0 < self.share < 1:
            raise ValueError(f"flag --share={self.share}: must lie between 0 and 1")
        if self.dim < 2:
            raise ValueError(f"flag --dim={self.dim}: must be at least 2")
        if self.draws < FEW:
            raise ValueError(f"flag --draws={self.draws}: must be at least {FEW}, for an interval")
        if math.isinf(self.model_eps):
            raise ValueError("flag --model_eps=inf: must be finite")
        sizes = self.sizes
        if sizes is not None and (len(sizes) < 2 or list(sizes) != sorted(set(sizes))):
            words = ",".join(map(str, sizes))
            raise ValueError(f"flag --sizes={words}: must be at least 2 sizes, ascending")
