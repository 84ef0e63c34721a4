"""The catalogue of attacks: one file each, and one entry here.

Every entry is a factory `threat model -> AttackFn` with keyword-only options.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from advfeat.attacks.apgd import apgd, apgd_targeted
from advfeat.attacks.batch import attack_batch, attack_dataset
from advfeat.attacks.carlini_wagner import carlini_wagner
from advfeat.attacks.ddn import ddn
from advfeat.attacks.deepfool import deepfool
from advfeat.attacks.elastic_net import elastic_net
from advfeat.attacks.fab import fab, fab_targeted
from advfeat.attacks.fgsm import fgsm
from advfeat.attacks.fmn import fmn
from advfeat.attacks.noise import gaussian_noise, salt_and_pepper_noise, uniform_noise
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.attacks.pgd_variants import pgd_adam, pgd_momentum
from advfeat.attacks.square import square
from advfeat.threats import norms

ATTACKS: dict[str, Callable[..., Any]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "pgd_momentum": pgd_momentum,
    "pgd_adam": pgd_adam,
    "apgd_ce": partial(apgd, loss="ce"),
    "apgd_dlr": partial(apgd, loss="dlr"),
    "apgd_targeted": apgd_targeted,
    "carlini_wagner": carlini_wagner,
    "ddn": ddn,
    "deepfool": deepfool,
    "elastic_net": elastic_net,
    "fab": fab,
    "fab_targeted": fab_targeted,
    "fmn": fmn,
    "square": square,
    "uniform_noise": uniform_noise,
    "gaussian_noise": gaussian_noise,
    "salt_and_pepper_noise": salt_and_pepper_noise,
}
"""The attacks by name, as `evaluate(suite=[...])` takes them."""

NORMS_OF: dict[str, tuple[str, ...]] = {
    **{name: tuple(norms.NORMS) for name in ATTACKS},
    "carlini_wagner": ("l2",),
    "ddn": ("l2",),
    "elastic_net": ("l1",),
    "pgd_adam": ("linf", "l2"),
}
"""Norms that each attack supports, by name; all of them unless overridden here."""

__all__ = [
    "ATTACKS",
    "NORMS_OF",
    "GradientAttack",
    "apgd",
    "apgd_targeted",
    "attack_batch",
    "attack_dataset",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "elastic_net",
    "fab",
    "fab_targeted",
    "fgsm",
    "fmn",
    "gaussian_noise",
    "pgd",
    "pgd_adam",
    "pgd_momentum",
    "salt_and_pepper_noise",
    "square",
    "uniform_noise",
]
