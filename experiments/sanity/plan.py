"""Prepares `experiments.sanity`: loads the data and builds the recipe of the networks."""

from __future__ import annotations

import dataclasses

import numpy as np

from advfeat import data
from advfeat.saliency import Options

from ..shared import sweeps
from ..shared.images import load_in_memory
from ..shared.map_flags import check_recipe, options_of
from ..shared.presets import preset_for
from ..shared.recipes import Recipe
from .flags import Config

KINDS = ("true", "again", "permuted")
"""Trained on true labels, on true labels from other initial weights, on permuted labels."""
MEASURES = ("rank_correlation", "ssim")
PAIRS = ("again", "permuted", "unrelated")
"""Comparisons for a map of a network of true labels; "unrelated" is the next image's map."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      train: training images.
      images: `[N, H, W, C]` in [0, 1], test images.
      labels: `[N]`.
      recipe: recipe of every network.
      options: of the methods.
    """

    dataset: data.Dataset
    train: data.Split
    images: np.ndarray
    labels: np.ndarray
    recipe: Recipe
    options: Options


def prepare(config: Config) -> Plan:
    """Loads what the flags name and fills in presets; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    train = sweeps.training_images(config, dataset, preset)
    recipe = sweeps.recipe(config, dataset, preset)
    check_recipe(config, recipe)
    count = max(config.eval_examples, config.shown)
    test = data.subset(dataset.test, count, seed=config.seed)
    return Plan(
        dataset=dataset,
        train=train,
        images=data.unit(test.image),
        labels=test.label,
        recipe=recipe,
        options=options_of(config, train),
    )
