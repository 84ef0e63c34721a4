"""Choices of flags: what the library's registries hold."""

from __future__ import annotations

from advfeat.runs.choices import Registered

NORMS = ("l2", "linf", "l1")

ATTACKS = Registered("advfeat.attacks:ATTACKS")

SUITES = Registered("advfeat.evaluation.suites:SUITES")

SUITES_AND_ATTACKS = Registered("advfeat.evaluation.suites:SUITES", "advfeat.attacks:ATTACKS")

MODELS = Registered("advfeat.models.registry:NETWORKS")

OBJECTIVES = Registered("advfeat.training.losses:OBJECTIVES")

METHODS = Registered("advfeat.saliency.methods:METHODS")

SCHEDULES = Registered("advfeat.training.optimisers:SCHEDULES")

TRANSFORMS = Registered("advfeat.images.augmentation:TRANSFORMS")

RESIZED_CROP = "resized_crop"
"""The augmentation that a stream draws while it decodes: a random crop, resized and mirrored."""

AUGMENTATIONS = Registered("advfeat.images.augmentation:TRANSFORMS", more=(RESIZED_CROP,))

DISPLAYS = Registered("advfeat.figures.maps:DISPLAYS")

DEFENCES = Registered("advfeat.evaluation.broken_defences:DEFENCES")

FEW = 10
"""The least number of points with an interval."""


def check_attacks(chosen: tuple[str, ...], norm: str | None = None) -> None:
    """Checks the value of a flag --attack.

    Args:
      chosen: a suite, or attacks.
      norm: of the threat model; None is not checked.

    Raises:
      ValueError: for a suite among others, or an attack undefined for the norm.
    """
    given = f"flag --attack={','.join(chosen)}"
    suites = [name for name in chosen if name in SUITES]
    if suites and len(chosen) > 1:
        raise ValueError(f"{given}: the suite {suites[0]} stands alone")
    for name in chosen:
        norms = ATTACKS.fact(name, "norms", None)
        if norm is not None and norms is not None and norm not in norms:
            raise ValueError(
                f"{given}: {name} is defined for --norm={' or '.join(norms)}, not for {norm}"
            )
