"""Flags of `experiments.mislabeled`."""

from __future__ import annotations

import dataclasses
import math

from advfeat.runs.config import Config as BaseConfig, flag

from ..shared.flag_checks import check_linf_eps
from ..shared.flags.choices import MODELS, NORMS, TRANSFORMS
from ..shared.flags.sweeps import PRESET

VARIANTS = ("rand", "other", "det")
CONTROLS = ("unperturbed", "noise", "feature_free", "robust_source")
FILTERS = ("none", "chroma420", "natural")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Flags of `experiments.mislabeled`."""

    SMALLEST = {
        "seeds": 1,
        "train_examples": 200,
        "attack_steps": 2,
        "eps_grid": (0.0,),
        "eval_steps": 1,
        "eval_examples": 50,
        "epochs": 1,
        "robust_steps": 1,
        "robust_epochs": 1,
        "fresh_epochs": 1,
    }

    variants: tuple[str, ...] = flag(
        VARIANTS, "Which sets: D_rand, D_other (D_rand without t = y), D_det.", choices=VARIANTS
    )
    controls: tuple[str, ...] | None = flag(
        CONTROLS, "Which controls; none for no control.", choices=CONTROLS
    )
    seeds: int = flag(3, "Fresh networks per set.", kind="count")
    evaluate_on: str = flag(
        "test",
        "Evaluation images of fresh networks. held_out: training images kept apart, to choose "
        "eps, steps and schedules without using the test set.",
        choices=("test", "held_out"),
    )
    held_out: float | None = flag(
        None, "Share of the training images held out for model selection. " + PRESET
    )
    train_examples: int | None = flag(
        None, "Maximum number of training images; 0: all. " + PRESET, kind="natural"
    )
    norm: str = flag("l2", "Norm of the perturbations.", choices=NORMS)
    eps: float | None = flag(None, "Size of the perturbations. " + PRESET, kind="eps")
    attack_steps: int | None = flag(None, "PGD steps to construct a set. " + PRESET, kind="count")
    step_size: float | None = flag(None, "Step size of that PGD. " + PRESET, kind="positive")
    attack_transform: str | None = flag(
        None,
        "Random transform applied at every step of the attack. " + PRESET,
        choices=TRANSFORMS,
    )
    gradient_filter: str | None = flag(
        None,
        "Keeps perturbations where images vary: in what a JPEG copy can store (chroma420), or "
        "weighted by the training images' own spectrum (natural). " + PRESET,
        choices=FILTERS,
    )
    eps_grid: tuple[float, ...] | None = flag(
        None, "Eps values at which accuracy under attack is measured. " + PRESET, kind="eps_list"
    )
    eval_steps: int = flag(20, "PGD steps of that measurement.", kind="count")
    eval_examples: int = flag(
        1000, "Number of images for that measurement, drawn by the seed; 0: all.", kind="natural"
    )
    sources: int | None = flag(
        None,
        "Number of standard networks in the ensemble that constructs the sets. " + PRESET,
        kind="count",
    )
    source_eps: float = flag(
        0.0, "Train the source adversarially at this eps; 0: standard training.", kind="eps"
    )
    source_checkpoint: str | None = flag(
        None, "Take the source network from this run (DIR or DIR:NAME) instead of training it."
    )
    robust_checkpoint: str | None = flag(None, "Take the robust network from this run.")
    model: str | None = flag(None, "Architecture of all networks. " + PRESET, choices=MODELS)
    width: int | None = flag(None, "Width of the architecture. " + PRESET, kind="count")
    fresh_model: str | None = flag(
        None, "Architecture of fresh networks. Default: --model.", choices=MODELS
    )
    fresh_width: int | None = flag(None, "Width of fresh networks. Default: --width.", kind="count")
    bfloat16: bool = flag(False, "Compute in bfloat16 (weights and attack stay float32).")
    batch_size: int | None = flag(None, "Examples per training step. " + PRESET, kind="count")
    attack_batch_size: int = flag(250, "Examples attacked at a time.", kind="count")
    epochs: int | None = flag(None, "Epochs of the standard network. " + PRESET, kind="count")
    learning_rate: float | None = flag(None, "Its learning rate. " + PRESET, kind="positive")
    augment: str | None = flag(None, "Its augmentation. " + PRESET, choices=TRANSFORMS)
    weight_decay: float | None = flag(
        None, "Its weight decay (the robust network's: 5e-4). " + PRESET, kind="nonnegative"
    )
    robust_eps: float | None = flag(None, "Eps of adversarial training. " + PRESET, kind="eps")
    robust_steps: int | None = flag(
        None, "PGD steps of adversarial training. " + PRESET, kind="count"
    )
    robust_width: int | None = flag(None, "Width of the robust network. " + PRESET, kind="count")
    robust_epochs: int | None = flag(None, "Epochs of the robust network. " + PRESET, kind="count")
    robust_learning_rate: float | None = flag(None, "Its learning rate. " + PRESET, kind="positive")
    robust_augment: str | None = flag(None, "Its augmentation. " + PRESET, choices=TRANSFORMS)
    fresh_epochs: int | None = flag(None, "Epochs of the fresh networks. " + PRESET, kind="count")
    fresh_learning_rate: float | None = flag(None, "Their rate. " + PRESET, kind="positive")
    fresh_weight_decay: float | None = flag(
        None, "Their weight decay. " + PRESET, kind="nonnegative"
    )
    fresh_schedule: str = flag("onecycle", "Their schedule.", choices=("onecycle", "constant"))
    fresh_augment: str | None = flag(None, "Their augmentation. " + PRESET, choices=TRANSFORMS)

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise ValueError(f"flag --held_out={self.held_out}: must lie between 0 and 1")
        if self.eps == 0:
            raise ValueError("flag --eps=0: must be above 0")
        for name in ("eps", "source_eps", "robust_eps"):
            if math.isinf(getattr(self, name) or 0.0):
                raise ValueError(f"flag --{name}=inf: must be finite")
        if self.norm != "l2" and (self.eps is None or self.robust_eps is None):
            raise ValueError(f"flag --norm={self.norm}: give --eps and --robust_eps with it")
        if self.source_checkpoint is not None and ((self.sources or 1) > 1 or self.source_eps > 0):
            raise ValueError(
                "flag --source_checkpoint: cannot be combined with --sources, --source_eps"
            )
        check_linf_eps(
            self.norm,
            eps=self.eps,
            robust_eps=self.robust_eps,
            source_eps=self.source_eps,
            eps_grid=self.eps_grid,
        )
