"""Prepares `experiments.defences`: loads the data, builds the suite and the recipes."""

from __future__ import annotations

import dataclasses

import numpy as np

import advfeat
from advfeat import data
from advfeat.evaluation import broken_defences
from advfeat.evaluation.suites import Suite
from advfeat.training import TrainConfig

from ..shared.attacks import suite_for
from ..shared.flag_checks import check_eps
from ..shared.images import load_in_memory
from ..shared.networks import spec_for
from ..shared.presets import preset_for
from ..shared.recipes import Recipe
from .flags import Config

PLAIN, ROBUST = "no defence", "adversarial training"
LINF_EPS = 0.2
SHOWN = {name: name.replace("_", " ") for name in broken_defences.DEFENCES}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      standard: recipe of the undefended networks.
      robust: recipe of the adversarially trained network.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      threat: threat model of the attacks.
      eps: its eps as given.
      defences: names of the defences.
      attack: the suite.
    """

    dataset: data.Dataset
    standard: Recipe
    robust: Recipe
    images: np.ndarray
    labels: np.ndarray
    threat: advfeat.ThreatModel
    eps: float
    defences: tuple[str, ...]
    attack: Suite


def prepare(config: Config) -> Plan:
    """Loads what the flags name; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    test = data.subset(dataset.test, config.eval_examples, seed=config.seed)
    preset = preset_for(dataset)
    usual = LINF_EPS if config.norm == "linf" else preset.robust_eps
    eps = usual if config.eps is None else config.eps
    check_eps(config.norm, dataset.input_shape, eps=eps)
    threat = advfeat.threat_model(config.norm, eps)
    suite = suite_for(config, config.attack, threat, num_classes=dataset.num_classes)
    standard = Recipe(
        spec=spec_for(dataset, config.model, width=config.width),
        config=TrainConfig(
            epochs=config.epochs, batch_size=preset.batch_size, learning_rate=preset.learning_rate
        ),
    )
    robust = dataclasses.replace(
        standard,
        config=dataclasses.replace(standard.config, epochs=2 * config.epochs),
        norm=config.norm,
        eps=config.eps,
    )
    return Plan(
        dataset=dataset,
        standard=standard,
        robust=robust,
        images=data.unit(test.image),
        labels=test.label,
        threat=threat,
        eps=eps,
        defences=config.defences,
        attack=suite,
    )
