"""advfeat: attack a network, train a robust one, and see what it has learned, in JAX.

The flat face of the functional layers, which do no I/O and know no flax. Every other part
(`advfeat.models`, `advfeat.data`, `advfeat.zoo` …) is there too, and imported on its first use.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from advfeat.attacks import (
    ATTACKS,
    apgd,
    apgd_targeted,
    attack_batch,
    attack_dataset,
    carlini_wagner,
    ddn,
    deepfool,
    elastic_net,
    fab,
    fab_targeted,
    fgsm,
    fmn,
    gaussian_noise,
    pgd,
    pgd_adam,
    pgd_momentum,
    salt_and_pepper_noise,
    square,
    uniform_noise,
)
from advfeat.evaluation import (
    accuracy,
    evaluate_epsilons,
    loss_by_step,
    numpy_predict,
    predict,
)
from advfeat.losses import cross_entropy, dlr, label_smoothing, margin, smoothed_cross_entropy
from advfeat.objectives import targeted, untargeted
from advfeat.steps import from_optax, momentum, steepest
from advfeat.suite import evaluate
from advfeat.threat import ThreatModel, l1, l2, linf, threat_model
from advfeat.types import AttackFn, AttackResult, Best, ModelFn, Objective, as_model_fn, randomised
from advfeat.verdicts import SuiteResult

__version__ = "0.1.0"

__all__ = [
    "ATTACKS",
    "AttackFn",
    "AttackResult",
    "Best",
    "ModelFn",
    "Objective",
    "SuiteResult",
    "ThreatModel",
    "accuracy",
    "adversarial",
    "apgd",
    "apgd_targeted",
    "as_model_fn",
    "attack_batch",
    "attack_dataset",
    "carlini_wagner",
    "cross_entropy",
    "ddn",
    "deepfool",
    "dlr",
    "elastic_net",
    "evaluate",
    "evaluate_epsilons",
    "fab",
    "fab_targeted",
    "fgsm",
    "fmn",
    "from_optax",
    "gaussian_noise",
    "l1",
    "l2",
    "label_smoothing",
    "linf",
    "loss_by_step",
    "margin",
    "momentum",
    "numpy_predict",
    "pgd",
    "pgd_adam",
    "pgd_momentum",
    "predict",
    "randomised",
    "salt_and_pepper_noise",
    "smoothed_cross_entropy",
    "square",
    "steepest",
    "targeted",
    "threat_model",
    "uniform_noise",
    "untargeted",
]


_PARTS = frozenset(part.name for part in iter_modules(__path__) if part.name[0] != "_")


def __getattr__(name: str) -> Any:
    """The parts of the library, and the robust objective, whose layer brings flax."""
    if name == "adversarial":
        return import_module("advfeat.training").adversarial
    if name in _PARTS:
        return import_module(f"advfeat.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name[:2] == "__"), *__all__, *_PARTS})
