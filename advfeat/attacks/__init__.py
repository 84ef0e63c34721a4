"""The catalogue of attacks: one file each, and one line here.

Every entry is a factory `threat model -> AttackFn`, options keyword-only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advfeat.attacks.batch import attack_batch, attack_dataset
from advfeat.attacks.fgsm import fgsm
from advfeat.attacks.noise import gaussian_noise, salt_and_pepper_noise, uniform_noise
from advfeat.attacks.pgd import GradientAttack, pgd

ATTACKS: dict[str, Callable[..., Any]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "uniform_noise": uniform_noise,
    "gaussian_noise": gaussian_noise,
    "salt_and_pepper_noise": salt_and_pepper_noise,
}

__all__ = [
    "ATTACKS",
    "GradientAttack",
    "attack_batch",
    "attack_dataset",
    "fgsm",
    "gaussian_noise",
    "pgd",
    "salt_and_pepper_noise",
    "uniform_noise",
]
