"""advfeat: attack a network, train a robust one, and see what it has learned, in JAX.

The flat face of the functional layers. They do no I/O and know no flax; `advfeat.models`,
`advfeat.data` and the other outer layers are imported by name.
"""

from importlib import import_module
from typing import Any

from advfeat.attacks import (
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


def __getattr__(name: str) -> Any:
    """The robust objective, on the face too, though its layer brings flax: only when asked for."""
    if name == "adversarial":
        return import_module("advfeat.training").adversarial
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
