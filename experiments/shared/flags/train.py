"""Flags of `experiments.train`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from advfeat.runs.config import flag

from ..flag_checks import check_linf_eps
from .choices import AUGMENTATIONS, MODELS, NORMS, OBJECTIVES, RESIZED_CROP, SCHEDULES
from .streams import StreamConfig
from .sweeps import PRESET

_USUAL = {
    "numbers": {},
    "attack_steps": 7,
    "one_step": False,
    "takes_loss": True,
    "procedure": None,
}
"""What `training.Entry` says of an objective unless told otherwise."""


def fact(objective: str, name: str) -> Any:
    """Returns what the registry's entry of an objective says, an attribute of `training.Entry`."""
    return OBJECTIVES.fact(objective, name, _USUAL[name])


def _robust(objective: str) -> bool:
    return fact(objective, "attack_steps") != 0


OWN = ("alpha", "beta", "grad_align", "replays")
"""Flags for the own options of our objectives."""
MEANINGS: dict[str, Callable[[str], bool]] = {
    **{
        name: lambda objective, name=name: name in fact(objective, "numbers")  # type: ignore[misc]
        for name in OWN
    },
    "attack_steps": lambda objective: bool(fact(objective, "attack_steps")),
    "attack_step_size": _robust,
    "eps_warmup": _robust,
    "label_smoothing": lambda objective: fact(objective, "takes_loss"),
    "awp": lambda objective: fact(objective, "procedure") is None,
    "select": _robust,
    "patience": _robust,
    "max_drop": _robust,
}
"""Flag of `experiments.train` -> whether it has a meaning for an objective."""


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
        if value is not None and not MEANINGS[name](objective):
            allowed = [other for other in OBJECTIVES if MEANINGS[name](other)]
            raise ValueError(
                f"flag --{name}={value}: has no meaning for --objective={objective}, "
                f"only for {', '.join(allowed)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StreamConfig):
    """Flags of `experiments.train`."""

    SMALLEST = {
        "epochs": 1,
        "train_examples": 200,
        "attack_steps": 1,
        "replays": 2,
        "eps_grid": (0.0,),
        "eval_steps": 1,
        "eval_examples": 50,
    }

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
    numbers: tuple[str, ...] | None = flag(
        None, "Options of an objective of your own that have no flag, as in gamma=0.5,delta=2."
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
    start: str | None = flag(
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
        choices=AUGMENTATIONS,
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

    def smallest(self) -> Config:
        """Also leaves alone what has no meaning for the objective."""
        ignored = (name for name, means in MEANINGS.items() if not means(self.objective))
        return dataclasses.replace(
            super().smallest(), **{name: getattr(self, name) for name in ignored}
        )

    def identity(self) -> dict[str, Any]:
        """Excludes `distributed`: where a training runs does not affect its result."""
        return {k: v for k, v in super().identity().items() if k != "distributed"}

    def own_numbers(self) -> dict[str, float]:
        """Returns the objective's own options that were given.

        Raises:
          ValueError: for one that the objective does not have, or that is not a number.
        """
        given = {name: getattr(self, name) for name in OWN}
        found = {name: value for name, value in given.items() if value is not None}
        known = [name for name in fact(self.objective, "numbers") if name not in OWN]
        for text in self.numbers or ():
            name, _, value = text.partition("=")
            if name not in known:
                there = f"its options are {', '.join(known)}" if known else "it has no such options"
                raise ValueError(f"flag --numbers={text}: --objective={self.objective}: {there}")
            try:
                found[name] = float(value)
            except ValueError:
                raise ValueError(f"flag --numbers={text}: must be {name}=NUMBER") from None
        return found

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
        check_meaning(self.objective, {name: getattr(self, name) for name in MEANINGS})
        self.own_numbers()
        if self.ema is not None and self.swa is not None:
            raise ValueError(f"flag --swa={self.swa}: the weights are averaged once, by --ema")
        if self.patience is not None and self.select != "best":
            raise ValueError(f"flag --patience={self.patience}: needs --select=best")
        if self.start is not None:
            for name in ("model", "width"):
                if getattr(self, name) is not None:
                    raise ValueError(f"flag --{name}={getattr(self, name)}: --start brings its own")
        check_linf_eps(self.norm, eps=self.eps, eps_grid=self.eps_grid)
