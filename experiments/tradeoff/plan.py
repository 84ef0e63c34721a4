"""Prepares `experiments.tradeoff`: loads the data, and builds the grids of eps and the recipes."""

from __future__ import annotations

import dataclasses

from advfeat import data
from advfeat.threats.balls import threat_model

from ..shared import sweeps
from ..shared.flag_checks import check_eps
from ..shared.images import load_in_memory
from ..shared.presets import Preset, preset_for
from ..shared.recipes import Recipe
from ..shared.sweeps import Points
from .flags import Config

NORMS = ("l2", "linf", "l1")
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25)
"""Default training eps, as shares of the measurement's eps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      train: training images.
      test: the test images.
      standard: recipe at eps 0.
      eps: norm -> training eps, ascending from 0.
      measured_at: norm -> eps of the measurement.
    """

    dataset: data.Dataset
    train: data.Split
    test: Points
    standard: Recipe
    eps: dict[str, tuple[float, ...]]
    measured_at: dict[str, float]


def prepare(config: Config) -> Plan:
    """Loads what the flags name and fills in presets; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    train = sweeps.training_images(config, dataset, preset)
    measured_at = {norm: _eval_eps(config, preset, norm) for norm in config.norms}
    for norm, eps in measured_at.items():
        given = {f"eval_{norm}": eps, f"train_{norm}": getattr(config, f"train_{norm}")}
        check_eps(norm, dataset.input_shape, **given)
        # Raises on unsupported attacks.
        sweeps.attacks(config, threat_model(norm, eps), dataset.num_classes)
    return Plan(
        dataset=dataset,
        train=train,
        test=Points.of(dataset.test, config.eval_examples, config.seed),
        standard=sweeps.recipe(config, dataset, preset),
        eps={
            norm: sweeps.train_eps(config, getattr(config, f"train_{norm}"), SHARES, eps)
            for norm, eps in measured_at.items()
        },
        measured_at=measured_at,
    )


def _eval_eps(config: Config, preset: Preset, norm: str) -> float:
    usual = {"l2": preset.robust_eps, "linf": preset.linf_eps}
    given = getattr(config, f"eval_{norm}")
    return usual[norm] if given is None else float(given)
