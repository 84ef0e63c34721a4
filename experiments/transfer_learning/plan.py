"""Prepares `experiments.transfer_learning`: loads source and target."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from advfeat import data
from advfeat.models.network import Network
from advfeat.runs.config import UsageError

from ..shared import sweeps
from ..shared.flag_checks import check_eps
from ..shared.images import load_in_memory
from ..shared.presets import preset_for
from ..shared.recipes import Recipe, fine_tuned
from ..shared.sweeps import Points
from .flags import Config

WAYS = ("frozen", "fine-tuned")
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Default eps of the sources, relative to the preset's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      source: the source data set.
      target: the target data set, with images of the source's shape.
      train: training images of the source.
      shots: training images of the target, one set per seed.
      choice: training images of the target outside these sets, to select eps.
      test: test images of the target.
      standard: recipe of a source at eps 0.
      tuned: recipe of fine-tuning and of training from scratch.
      eps: of the sources, ascending from 0.
    """

    source: data.Dataset
    target: data.Dataset
    train: data.Split
    shots: list[data.Split]
    choice: Points
    test: Points
    standard: Recipe
    tuned: Recipe
    eps: tuple[float, ...]


def prepare(config: Config) -> Plan:
    """Loads what the flags name and fills in presets; writes nothing."""
    source_classes, target_classes = _classes(config)
    source = load_in_memory(config.dataset, classes=source_classes, data_dir=config.data_dir)
    most = max(4 * config.seeds * config.target_examples, config.eval_examples, 1000)
    target = load_in_memory(config.target, classes=target_classes, data_dir=config.data_dir)
    if target.input_shape[2] != source.input_shape[2]:
        raise ValueError(
            f"flag --target={target.name}: has {target.input_shape[2]} channels, the source "
            f"{source.input_shape[2]}"
        )
    target = data.resized(
        target,
        source.input_shape[:2],
        most=most if config.eval_examples else 0,
        seed=config.seed,
    )
    preset = preset_for(source)
    if config.target_examples < 2 * target.num_classes:
        raise ValueError(
            f"flag --target_examples={config.target_examples}: must be at least "
            f"{2 * target.num_classes}, two for each class"
        )
    check_eps("l2", source.input_shape, train_l2=config.train_l2)
    standard = sweeps.recipe(config, source, preset)
    blank = Network(standard.spec, None, {})
    spec, _ = fine_tuned(blank, target, config.dataset)
    tuned = dataclasses.replace(
        standard,
        spec=spec,
        config=dataclasses.replace(
            standard.config,
            epochs=config.target_epochs,
            batch_size=min(32, config.target_examples),
            learning_rate=standard.config.learning_rate / 2,
        ),
    )
    shots = [
        data.subset(target.train, config.target_examples, seed=sweeps.seed_of(config, seed))
        for seed in range(config.seeds)
    ]
    return Plan(
        source=source,
        target=target,
        train=sweeps.training_images(config, source, preset),
        shots=shots,
        choice=_held_out(config, target, shots),
        test=Points.of(target.test, config.eval_examples, config.seed),
        standard=standard,
        tuned=tuned,
        eps=sweeps.train_eps(config, config.train_l2, SHARES, preset.robust_eps),
    )


def _held_out(config: Config, target: data.Dataset, shots: list[data.Split]) -> Points:
    """Returns training images of the target that no network is trained on, to select eps."""
    rest = ~np.isin(target.train.id, np.concatenate([part.id for part in shots]))
    if rest.sum() < target.num_classes:
        raise ValueError(
            f"flag --target_examples={config.target_examples}: leaves {rest.sum()} of the target's "
            f"{len(target.train)} training images to choose the eps by; it takes "
            f"{target.num_classes}"
        )
    most = config.eval_examples
    return Points.of(target.train.take(rest), most, config.seed)


def _classes(config: Config) -> tuple[Any, Any]:
    """Returns the classes of source and target: as given, or two halves of one data set's."""
    if config.target != config.dataset or config.classes is not None:
        return config.classes, config.target_classes
    names = load_in_memory(config.dataset, data_dir=config.data_dir).class_names
    half = len(names) // 2
    if half < 2:
        raise UsageError(f"flag --dataset={config.dataset}: has too few classes for two halves")
    return tuple(names[:half]), tuple(names[half:])
