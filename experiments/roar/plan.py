"""Prepares `experiments.roar`: loads the data and builds the recipe of the networks."""

from __future__ import annotations

import dataclasses

import numpy as np

from advfeat import data
from advfeat.saliency import EDGES, Options

from ..shared import sweeps
from ..shared.images import load_in_memory
from ..shared.map_flags import check_recipe, options_of
from ..shared.presets import preset_for
from ..shared.recipes import Recipe
from .flags import Config

RANDOM = "random"
CONTROLS = (RANDOM, EDGES)
_SHOWN = 4  # number of images in the figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      train: training images.
      test: test images, as a split.
      recipe: recipe of every network.
      options: of the methods.
      shares: shares of pixels to remove.
    """

    dataset: data.Dataset
    train: data.Split
    test: data.Split
    recipe: Recipe
    options: Options
    shares: tuple[float, ...]


def prepare(config: Config) -> Plan:
    """Loads what the flags name and fills in presets; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    train = sweeps.training_images(config, dataset, preset)
    recipe = sweeps.recipe(config, dataset, preset)
    check_recipe(config, recipe)
    return Plan(
        dataset=dataset,
        train=train,
        test=data.subset(dataset.test, config.eval_examples, seed=config.seed),
        recipe=recipe,
        options=options_of(config, train),
        shares=config.shares,
    )


def shown_rows(config: Config, plan: Plan) -> np.ndarray:
    """Returns the rows of the test images in the figure, drawn by the seed."""
    return data.draw_rows(plan.test.label, _SHOWN, seed=config.seed)
