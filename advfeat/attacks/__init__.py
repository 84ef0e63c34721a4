"""The catalogue of attacks: one file each, and one entry here.

Every entry of `ATTACKS` is a factory `threat model -> AttackFn` with keyword-only options, or an
`Entry`, which makes one and says more about it. An attack of your own is one more entry, also from
outside of this package: `advfeat.ATTACKS["mine"] = mine`.
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
from advfeat.attacks.entries import (
    Entry,
    Fitted,
    fit_apgd_targets,
    fit_dlr,
    fit_restarts,
    fit_targets,
)
from advfeat.attacks.fab import fab, fab_targeted
from advfeat.attacks.fgsm import fgsm
from advfeat.attacks.fmn import fmn
from advfeat.attacks.noise import gaussian_noise, salt_and_pepper_noise, uniform_noise
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.attacks.pgd_variants import pgd_adam, pgd_momentum
from advfeat.attacks.square import square
from advfeat.attacks.survivors import attack_survivors
from advfeat.threats import norms

ATTACKS: dict[str, Callable[..., Any]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "pgd_momentum": pgd_momentum,
    "pgd_adam": Entry(pgd_adam, norms=("linf", "l2")),
    "apgd_ce": Entry(partial(apgd, loss="ce"), fit=fit_restarts),
    "apgd_dlr": Entry(partial(apgd, loss="dlr"), fit=fit_dlr),
    "apgd_targeted": Entry(apgd_targeted, fit=fit_apgd_targets),
    "carlini_wagner": Entry(carlini_wagner, norms=("l2",)),
    "ddn": Entry(ddn, norms=("l2",)),
    "deepfool": deepfool,
    "elastic_net": Entry(elastic_net, norms=("l1",)),
    "fab": fab,
    "fab_targeted": Entry(fab_targeted, fit=fit_targets),
    "fmn": fmn,
    "square": square,
    "uniform_noise": uniform_noise,
    "gaussian_noise": gaussian_noise,
    "salt_and_pepper_noise": salt_and_pepper_noise,
}
"""The attacks by name, as `evaluate(suite=[...])` takes them."""


def norms_of(name: str) -> tuple[str, ...]:
    """Returns the norms for which an attack of `ATTACKS` is defined.

    >>> norms_of("ddn"), norms_of("pgd")
    (('l2',), ('linf', 'l2', 'l1'))
    """
    return getattr(ATTACKS[name], "norms", None) or tuple(norms.NORMS)


__all__ = [
    "ATTACKS",
    "Entry",
    "Fitted",
    "GradientAttack",
    "apgd",
    "apgd_targeted",
    "attack_batch",
    "attack_dataset",
    "attack_survivors",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "elastic_net",
    "fab",
    "fab_targeted",
    "fgsm",
    "fmn",
    "gaussian_noise",
    "norms_of",
    "pgd",
    "pgd_adam",
    "pgd_momentum",
    "salt_and_pepper_noise",
    "square",
    "uniform_noise",
]
