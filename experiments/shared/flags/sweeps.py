"""Flags shared by the experiments that train many small networks."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import Config as BaseConfig, flag

from .choices import MODELS, SUITES_AND_ATTACKS, TRANSFORMS, check_attacks

PRESET = "Default: the data set's preset."


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(BaseConfig):
    """Flags of an experiment that trains small networks."""

    seeds: int = flag(3, "Networks per setting.", kind="count")
    train_examples: int | None = flag(
        None, "Maximum number of training images; 0: all. " + PRESET, kind="natural"
    )
    eval_examples: int = flag(
        1000, "Number of images measured, drawn by the seed; 0: all.", kind="natural"
    )
    model: str | None = flag(None, "Architecture. " + PRESET, choices=MODELS)
    width: int | None = flag(None, "Width of the architecture. " + PRESET, kind="count")
    bfloat16: bool = flag(False, "Compute in bfloat16 (weights and attack stay float32).")
    epochs: int | None = flag(
        None, "Passes over all training images. Default: the preset's, at most 20.", kind="count"
    )
    batch_size: int | None = flag(None, "Examples per training step. " + PRESET, kind="count")
    learning_rate: float | None = flag(None, "Maximum learning rate. " + PRESET, kind="positive")
    weight_decay: float = flag(5e-4, "L2 regularisation of all weights.", kind="nonnegative")
    augment: str | None = flag(None, "Augmentation. " + PRESET, choices=TRANSFORMS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig(TrainingConfig):
    """Flags of an experiment that trains adversarially and measures robust accuracy."""

    attack: tuple[str, ...] = flag(
        ("pgd",),
        "How robust accuracy is measured: a suite, or attacks one after the other; pgd has "
        "--eval_steps and --restarts.",
        choices=SUITES_AND_ATTACKS,
    )
    eval_steps: int = flag(20, "PGD steps of the measurement.", kind="count")
    restarts: int = flag(2, "Its restarts.", kind="count")
    attack_batch_size: int = flag(250, "Images attacked at a time.", kind="count")
    attack_steps: int = flag(5, "PGD steps of adversarial training.", kind="count")
    eps_warmup: float = flag(
        0.4,
        "The share of adversarial training over which eps rises from 0: without it a network "
        "may collapse at a large eps.",
        kind="fraction",
    )

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        check_attacks(self.attack)
