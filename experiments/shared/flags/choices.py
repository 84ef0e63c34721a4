"""Names of what the library offers, as choices for flags.

They are written out because importing the library takes seconds; tests check that they are
complete.
"""

from __future__ import annotations

NORMS = ("l2", "linf", "l1")

ATTACKS = (
    "fgsm",
    "pgd",
    "pgd_momentum",
    "pgd_adam",
    "apgd_ce",
    "apgd_dlr",
    "apgd_targeted",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "elastic_net",
    "fab",
    "fab_targeted",
    "fmn",
    "square",
    "uniform_noise",
    "gaussian_noise",
    "salt_and_pepper_noise",
)

NORMS_OF = {
    "pgd_adam": ("linf", "l2"),
    "carlini_wagner": ("l2",),
    "ddn": ("l2",),
    "elastic_net": ("l1",),
}
"""Attacks that are not defined for all norms."""

SUITES = ("autoattack", "standard", "plus", "rand", "quick")

MODELS = (
    "linear",
    "mlp",
    "cnn",
    "resnet9",
    "resnet20",
    "resnet56",
    "resnet18",
    "resnet34",
    "resnet50",
    "wrn_16_4",
    "wrn_28_10",
)

OBJECTIVES = ("standard", "adversarial", "mixed", "trades", "mart", "fast", "free")

SCHEDULES = ("constant", "cosine", "onecycle", "multistep")

TRANSFORMS = ("none", "flip", "shift1", "shift2", "flip_shift4")

DISPLAYS = ("three_sigma", "heat", "signed")

DEFENCES = (
    "scaled_logits",
    "probabilities",
    "clipped_log",
    "hard_labels",
    "stopped_gradient",
    "quantised",
    "thermometer",
    "jpeg",
    "shattered",
    "noisy_gradient",
    "switching",
    "k_winners",
    "lookup",
    "plausible_lookup",
    "masked_off_grid",
    "gamma_corrected",
    "random_view",
    "dropout_left_on",
)

FEW = 10
"""The least number of points with an interval."""
