"""Prepares `experiments.ground_truth`: draws planted images and builds recipes."""

from __future__ import annotations

import dataclasses

import numpy as np

from advfeat import data
from advfeat.data import planted_images
from advfeat.features import planted
from advfeat.features.planted import Drawing, Planted
from advfeat.saliency import Options
from advfeat.training import TrainConfig

from ..shared.map_flags import check_recipe, options_of
from ..shared.networks import spec_for
from ..shared.recipes import Recipe
from .flags import Config

NETWORKS = {
    "shape": "planted:shape",
    "texture": "planted:texture",
    "mark": "planted:mark",
    "standard": "planted:shape+texture",
    "robust": "planted:shape+texture",
    "robust with marks": "planted",
}
"""Name of a network -> its training data set."""
ROBUST = ("robust", "robust with marks")
SHOWN = 4  # images in a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      sets: data set by name.
      recipes: recipe by network.
      options: of the methods.
      world: the generative model of `planted`; all data sets share its textures and marks.
      drawings: by data set, the scored images with their masks.
      labels: `[N]`, their labels.
      shown: rows of the images in figures.
    """

    sets: dict[str, data.Dataset]
    recipes: dict[str, Recipe]
    options: Options
    world: Planted
    drawings: dict[str, Drawing]
    labels: np.ndarray
    shown: np.ndarray

    @property
    def target(self) -> np.ndarray:
        """`[N]`, the target classes of the counterfactuals."""
        return (self.labels + 1) % len(planted.SHAPES)

    @property
    def trained_on(self) -> dict[str, str]:
        """Name of a network -> its data set."""
        return NETWORKS

    def drawing(self, name: str) -> Drawing:
        """Returns the scored images of a network, drawn like its training images."""
        return self.drawings[NETWORKS[name]]

    def images(self, name: str) -> np.ndarray:
        """Returns the pixels of these images."""
        return np.asarray(self.drawing(name).image)


def prepare(config: Config) -> Plan:
    """Draws the images and builds the recipes; writes nothing."""
    sets = {name: data.load(name) for name in dict.fromkeys(NETWORKS.values())}
    spec = spec_for(sets["planted"], config.model, width=config.width)
    train_config = TrainConfig(
        epochs=config.epochs,
        batch_size=64,
        learning_rate=0.02,
        eps_warmup=0.0,
    )
    standard = Recipe(spec=spec, config=train_config)
    # At the others' learning rate, adversarial training collapsed to constant networks.
    robust = dataclasses.replace(
        standard,
        norm="linf",
        eps=config.eps,
        attack_steps=3,
        config=dataclasses.replace(
            train_config,
            epochs=config.robust_epochs,
            learning_rate=0.005,
            eps_warmup=0.4,
        ),
    )
    check_recipe(config, standard)
    test = data.subset(sets["planted"].test, config.eval_examples, seed=config.seed)
    drawings = {name: planted_images.drawn(planted_images.world(name), test.id) for name in sets}
    return Plan(
        sets=sets,
        recipes={name: robust if name in ROBUST else standard for name in NETWORKS},
        options=options_of(config, sets["planted"].train),
        world=planted_images.world("planted"),
        drawings=drawings,
        labels=test.label,
        shown=data.draw_rows(test.label, SHOWN, seed=config.seed),
    )
