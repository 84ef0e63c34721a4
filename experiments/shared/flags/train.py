"""Flags of `experiments.train`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from advfeat.runs.config import flag

from ..limits import check_linf_eps
from .choices import MODELS, NORMS, OBJECTIVES, SCHEDULES, TRANSFORMS
from .streams import RESIZED_CROP, StreamConfig
from .sweeps import PRESET

ROBUST = tuple(name for name in OBJECTIVES if name != "standard")

MEANT_FOR: dict[str, tuple[str, ...]] = {
    "alpha": ("mixed",),
    "beta": ("trades", "mart"),
    "grad_align": ("fast",),
    "replays": ("free",),
    "attack_steps": ("adversarial", "mixed", "trades", "mart"),
    "attack_step_size": ROBUST,
    "eps_warmup": ROBUST,
    "label_smoothing": tuple(name for name in OBJECTIVES if name != "mart"),
    "awp": tuple(name for name in OBJECTIVES if name != "free"),
    "select": ROBUST,
    "patience": ROBUST,
    "max_drop": ROBUST,
}
"""Flag of `experiments.train` -> the objectives for which it has a meaning."""


def check_meaning(objective: str, given: Mapping[str, Any]) -> None:
    """Rejects flags that the objective would ignore.

    Args:
      objective: one of `OBJECTIVES`.
      given: flag to value, None if not given.

    Raises:
      ValueError: naming the first such flag.

    >>> check_meaning("trades", {"replays": 4})
    Traceback (most recent call last):
    ...
    ValueError: flag --replays=4: has no meaning for --objective=trades, only for free
    """
    for name, value in given.items():
        allowed = MEANT_FOR[name]
        if value is not None and objective not in allowed:
            raise ValueError(
                f"flag --{name}={value}: has no meaning for --objective={objective}, "
                f"only for {', '.join(allowed)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StreamConfig):
    """Flags of `experiments.train`."""

    objective: str = flag("standard", "Training objective.", choices=OBJECTIVES)
    norm: str = flag("l2", "Norm of the threat model.", choices=NORMS)
    eps: float | None = flag(
        None, "Eps of the threat model. Default: preset's robust_eps.", kind="eps"
    )
    attack_steps: int | None = flag(
        None, "PGD steps of the training. Default: 7; mixed: 1, which is FGSM.", kind="count"
    )
    attack_step_size: float | None = flag(
        None,
        "Step size of PGD. Default: 1.4 eps / steps; FGSM, free: eps; fast: 1.25 eps.",
        kind="positive",
    )
    alpha: float | None = flag(None, "mixed: weight of the clean loss [0.5].", kind="fraction")
    beta: float | None = flag(
        None, "trades, mart: weight of the divergence [6].", kind="nonnegative"
    )
    replays: int | None = flag(
        None,
        "free: updates per minibatch [8]; passes over the data are epochs / replays.",
        kind="count",
    )
    grad_align: float | None = flag(
        None, "fast: weight of the gradient alignment [0].", kind="nonnegative"
    )
    awp: float | None = flag(
        None, "Adversarial weight perturbation, as a share of each layer's norm.", kind="positive"
    )
    ema: float | None = flag(
        None, "Decay of the exponential weight average, which is kept.", kind="fraction"
    )
    swa: float | None = flag(
        None, "Share of the training after which the kept weights are averaged.", kind="fraction"
    )
    label_smoothing: float | None = flag(
        None, "Share of the label spread evenly over all classes.", kind="fraction"
    )
    accumulate: int = flag(1, "Number of parts in which a batch is processed.", kind="count")
    eps_warmup: float | None = flag(
        None, "Share of the training over which eps rises from 0. " + PRESET, kind="fraction"
    )
    select: str | None = flag(
        None,
        "Keep the last epoch's weights, or the best on held-out images under PGD [last].",
        choices=("last", "best"),
    )
    patience: int | None = flag(
        None, "With --select=best: end after this many epochs without a new best.", kind="count"
    )
    max_drop: float | None = flag(
        None,
        "End and return to the best epoch when held-out accuracy under PGD falls by "
        "more; 1: never [0.2 for mixed, fast, free].",
        kind="fraction",
    )
    checkpoint: str | None = flag(
        None, "Start from the weights of a run, DIR or DIR:NAME; its architecture is kept."
    )
    model: str | None = flag(None, "Architecture. " + PRESET, choices=MODELS)
    width: int | None = flag(None, "Width of the architecture. " + PRESET, kind="count")
    bfloat16: bool = flag(False, "Compute in bfloat16 (weights and attack stay float32).")
    epochs: int | None = flag(None, "Passes over the training set. " + PRESET, kind="count")
    batch_size: int | None = flag(None, "Examples per step. " + PRESET, kind="count")
    learning_rate: float | None = flag(None, "Maximum learning rate. " + PRESET, kind="positive")
    schedule: str = flag("onecycle", "Schedule of the learning rate.", choices=SCHEDULES)
    momentum: float = flag(0.9, "Nesterov momentum of SGD.", kind="fraction")
    weight_decay: float | None = flag(
        None, "L2 regularisation of all weights [5e-4; ImageNet: 1e-4].", kind="nonnegative"
    )
    augment: str | None = flag(
        None,
        "Augmentation; resized_crop is a stream's random crop, resized and mirrored. " + PRESET,
        choices=(*TRANSFORMS, RESIZED_CROP),
    )
    image_size: int | None = flag(
        None,
        "With --stream: height and width to which images are cropped and resized. Default: their "
        "own if they have one, else 224.",
        kind="count",
    )
    train_examples: int = flag(0, "Maximum number of training images; 0: all.", kind="natural")
    held_out: float = flag(
        0.1,
        "Share of the training images held out for monitoring; of a stream about 500 at most, and "
        "one of each class.",
    )
    eps_grid: tuple[float, ...] | None = flag(
        None, "Eps values at which accuracy under PGD is measured. " + PRESET, kind="eps_list"
    )
    eval_steps: int = flag(20, "PGD steps of that measurement.", kind="count")
    eval_examples: int = flag(1000, "Test images of that measurement; 0: all.", kind="natural")
    attack_batch_size: int = flag(250, "Examples attacked at a time.", kind="count")

    distributed: bool = flag(
        False, "Let JAX search for the other processes (a TPU slice, Kubernetes): docs/launch.md."
    )

    def identity(self) -> dict[str, Any]:
        """Excludes `distributed`: where a training runs does not affect its result."""
        return {k: v for k, v in super().identity().items() if k != "distributed"}

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        if not self.stream:
            if self.image_size is not None:
                raise ValueError(f"flag --image_size={self.image_size}: needs --stream")
            if self.augment == RESIZED_CROP:
                raise ValueError(f"flag --augment={self.augment}: needs --stream")
        if not 0 < self.held_out < 1:
            raise ValueError(f"flag --held_out={self.held_out}: must lie between 0 and 1")
        if math.isinf(self.eps or 0.0) and self.objective != "standard":
            raise ValueError("flag --eps=inf: must be finite for adversarial training")
        standard = self.objective == "standard"
        if self.norm != "l2" and self.eps is None and not (standard and self.eps_grid):
            other = " or --eps_grid" if standard else ""
            raise ValueError(f"flag --norm={self.norm}: give --eps{other} with it")
        for name in ("momentum", "ema", "swa", "label_smoothing"):
            if not (getattr(self, name) or 0.0) < 1:
                raise ValueError(f"flag --{name}={getattr(self, name)}: must be below 1")
        check_meaning(self.objective, {name: getattr(self, name) for name in MEANT_FOR})
        if self.ema is not None and self.swa is not None:
            raise ValueError(f"flag --swa={self.swa}: the weights are averaged once, by --ema")
        if self.patience is not None and self.select != "best":
            raise ValueError(f"flag --patience={self.patience}: needs --select=best")
        if self.checkpoint is not None:
            for name in ("model", "width"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"flag --{name}={getattr(self, name)}: --checkpoint brings its own"
                    )
        check_linf_eps(self.norm, eps=self.eps, eps_grid=self.eps_grid)
