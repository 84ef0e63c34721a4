"""Default training hyper-parameters for each kind of data set.

They were tuned on held-out training images; docs/results/mislabeled.md lists what was tried.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from advfeat.data import DiskDataset

from .flags.choices import RESIZED_CROP
from .images import AnyDataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """Defaults for one kind of data set; flags of the same names override them.

    Attributes:
      model: architecture of all networks.
      width: width of all networks.
      epochs: of the standard network.
      batch_size: of every training.
      learning_rate: of the standard network.
      augment: augmentation of the standard network.
      weight_decay: of the standard network; the robust one has 5e-4.
      robust_width: width of the robust network.
      robust_epochs: of adversarial training.
      robust_learning_rate: of adversarial training.
      robust_augment: augmentation of adversarial training.
      robust_eps: L2 eps of adversarial training.
      robust_steps: PGD steps of adversarial training.
      robust_warmup: the share of adversarial training over which eps rises from 0.
      fresh_width: width of the networks trained on constructed sets; 0 means `width`.
      fresh_epochs: of the networks trained on constructed sets.
      fresh_learning_rate: of the networks trained on constructed sets.
      fresh_weight_decay: of the networks trained on constructed sets.
      fresh_augment: of the networks trained on constructed sets (none for the paper's D_det).
      eps: L2 size of the perturbations in constructed sets.
      attack_steps: PGD steps to construct them.
      relative_step: their step size relative to eps; 1/5 in the paper.
      sources: number of standard networks in the ensemble that constructs them.
      attack_transform: a random transform applied at every step of the attack.
      gradient_filter: filter of the attack's gradients.
      eps_grid: eps at which accuracy under attack is measured.
      train_examples: maximum number of training images; 0 uses all.
      held_out: the share of them held out for model selection.
      linf_eps: L-infinity eps of adversarial training.
      train_weight_decay: of `experiments.train`.
      stem: of a residual network; None means the architecture's own, for small images.
    """

    model: str
    width: int
    epochs: int
    batch_size: int
    learning_rate: float
    augment: str
    weight_decay: float
    robust_width: int
    robust_epochs: int
    robust_learning_rate: float
    robust_augment: str
    robust_eps: float
    fresh_epochs: int
    fresh_learning_rate: float
    fresh_weight_decay: float
    fresh_augment: str
    eps: float
    attack_steps: int
    eps_grid: tuple[float, ...]
    train_examples: int = 0
    held_out: float = 0.2
    robust_steps: int = 7
    robust_warmup: float = 0.0
    fresh_width: int = 0
    relative_step: float = 0.2
    sources: int = 1
    attack_transform: str = "none"
    gradient_filter: str = "none"
    linf_eps: float = 8 / 255
    train_weight_decay: float = 5e-4
    stem: str | None = None


DIGITS = Preset(
    model="cnn",
    width=16,
    epochs=60,
    batch_size=64,
    learning_rate=0.05,
    augment="none",
    weight_decay=0.0,
    robust_width=32,
    robust_epochs=80,
    robust_learning_rate=0.05,
    robust_augment="none",
    robust_eps=1.0,
    fresh_width=32,
    fresh_epochs=20,
    fresh_learning_rate=0.1,
    fresh_weight_decay=0.0,
    fresh_augment="none",
    eps=1.18,
    attack_steps=100,
    eps_grid=(0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    linf_eps=0.15,
)

MNIST = Preset(
    model="cnn",
    width=16,
    epochs=8,
    batch_size=128,
    learning_rate=0.05,
    augment="none",
    weight_decay=0.0,
    robust_width=16,
    robust_epochs=8,
    robust_learning_rate=0.05,
    robust_augment="none",
    robust_eps=1.0,
    fresh_epochs=8,
    fresh_learning_rate=0.05,
    fresh_weight_decay=0.0,
    fresh_augment="none",
    eps=2.5,
    attack_steps=50,
    eps_grid=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    train_examples=10000,
    robust_warmup=0.4,
    linf_eps=0.1,
)

CIFAR = Preset(
    model="resnet9",
    width=32,
    epochs=9,
    batch_size=128,
    learning_rate=0.05,
    augment="none",
    weight_decay=5e-4,
    held_out=0.1,
    robust_steps=2,
    robust_width=32,
    robust_epochs=13,
    robust_learning_rate=0.05,
    robust_augment="flip_shift4",
    robust_eps=0.25,
    fresh_epochs=7,
    fresh_learning_rate=0.05,
    fresh_weight_decay=5e-4,
    fresh_augment="flip",
    eps=1.0,
    attack_steps=6,
    relative_step=0.3,
    attack_transform="flip_shift4",
    gradient_filter="natural",
    eps_grid=(0.0, 0.25, 0.5, 1.0),
)


# As in MadryLab's `robustness` (but for its colour jitter and its schedule); nothing is tuned.
IMAGENET = dataclasses.replace(
    CIFAR,
    model="resnet50",
    width=64,
    robust_width=64,
    stem="imagenet",
    epochs=200,
    robust_epochs=200,
    batch_size=256,
    learning_rate=0.1,
    robust_learning_rate=0.1,
    train_weight_decay=1e-4,
    augment=RESIZED_CROP,
    robust_augment=RESIZED_CROP,
    robust_eps=3.0,
    robust_steps=7,
    linf_eps=4 / 255,
    eps_grid=(0.0, 0.5, 1.5, 3.0),
)

RESTRICTED_IMAGENET = dataclasses.replace(IMAGENET, epochs=150, robust_epochs=150)

_LARGE = 128  # pixels


def preset_for(dataset: AnyDataset) -> Preset:
    """Returns the preset for a data set's kind of images: tiny, small grey, or anything larger.

    Streams of large images have presets of their own.
    """
    height, _, channels = dataset.input_shape
    if isinstance(dataset, DiskDataset) and height >= _LARGE:
        return RESTRICTED_IMAGENET if dataset.name == "restricted_imagenet" else IMAGENET
    if height <= 16:
        return DIGITS
    return MNIST if height <= 28 and channels == 1 else CIFAR


def chosen(config: Any, preset: Preset, name: str) -> Any:
    """Returns the flag's value if given, otherwise the preset's."""
    value = getattr(config, name, None)
    return getattr(preset, name) if value is None else value
