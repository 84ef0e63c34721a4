"""Flags of `experiments.benchmark`."""

from __future__ import annotations

import dataclasses
import math
import os

from advfeat.runs.config import Config as BaseConfig, UsageError, flag

SAMPLES = "samples"
"""The images that come with the package: no data set is needed to measure speed."""
FAMILIES = (
    "pgd",
    "apgd",
    "quick",
    "standard",
    "train",
    "d_det",
    "smoothgrad",
    "startup",
    "growth",
)
AXES = ("images", "steps", "restarts", "classes", "devices")
NETWORKS = ("cnn", "resnet9", "resnet18")
PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Flags of `experiments.benchmark`."""

    SMALLEST = {
        "works": ("pgd", "train", "d_det", "smoothgrad", "startup", "growth"),
        "networks": ("cnn",),
        "norms": ("linf",),
        "batches": (2,),
        "attack_steps": (2,),
        "examples": 2,
        "growth": ("images", "devices"),
        "devices": (2,),
        "rounds": 2,
        "budget": 1.0,
    }

    dataset: str = flag(
        SAMPLES, "samples (images that come with the package), or any data set of the library."
    )
    full: bool = flag(False, "Measure everything, instead of a choice that takes minutes.")
    peers: bool = flag(False, "Also measure the peers that are installed.")
    autoattack: str | None = flag(None, "A clone of fra31/auto-attack, one more peer.")
    works: tuple[str, ...] | None = flag(
        None, "Measure only these kinds of work.", choices=FAMILIES
    )
    networks: tuple[str, ...] | None = flag(None, "Measure these networks.", choices=NETWORKS)
    checkpoint: str | None = flag(
        None, "Measure this network instead: a run, RUN:NAME or zoo:NAME; needs its --dataset."
    )
    norms: tuple[str, ...] | None = flag(None, "Norms of the attacks.", choices=("linf", "l2"))
    eps_linf: float = flag(8 / 255, "Radius of the L-infinity ball.", kind="eps")
    eps_l2: float = flag(0.5, "Radius of the L2 ball.", kind="eps")
    batches: tuple[int, ...] | None = flag(None, "Images per batch of PGD.", kind="count")
    attack_steps: tuple[int, ...] | None = flag(None, "Steps of PGD.", kind="count")
    examples: int | None = flag(
        None, "Images of the suites, the training, D_det and SmoothGrad.", kind="count"
    )
    growth: tuple[str, ...] | None = flag(
        None, "Along what the growth of time is measured.", choices=AXES
    )
    devices: tuple[int, ...] = flag(
        (1, 2, 4, 8), "Numbers of simulated CPU devices in the growth.", kind="count"
    )
    rounds: int = flag(7, "Rounds; in each, every contender takes its turn.", kind="count")
    budget: float = flag(
        60.0,
        "Seconds after which a work is repeated no more, once it has 3 rounds.",
        kind="positive",
    )
    longest: float = flag(
        300.0, "Leave out works of which one call would take more seconds.", kind="positive"
    )
    precision: str = flag("float32", "Precision of all contenders.", choices=PRECISIONS)

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        for name in ("eps_linf", "eps_l2"):
            eps = getattr(self, name)
            if not 0 < eps < math.inf:
                raise UsageError(f"flag --{name}={eps:g}: must be a finite number > 0")
        if self.classes is not None and self.dataset == SAMPLES:
            raise UsageError("flag --classes: the sample images are taken as they are")
        if self.checkpoint is not None and self.networks is not None:
            raise UsageError("flag --networks: must not be given with --checkpoint")
        if self.autoattack is not None:
            if not self.peers:
                raise UsageError("flag --autoattack: needs --peers")
            if not os.path.isfile(os.path.join(self.autoattack, "autoattack", "autoattack.py")):
                raise UsageError(
                    f"flag --autoattack={self.autoattack}: must be a clone of fra31/auto-attack"
                )
