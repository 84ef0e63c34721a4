"""The flags of every experiment that makes saliency maps."""

from __future__ import annotations

import jax

from advfeat import data
from advfeat.models.network import Network

from .flags.maps import MapConfig
from .recipes import Recipe
from .saliency_maps import Options, cam_layer


def options_of(config: MapConfig, train: data.Split) -> Options:
    """What the methods are given; some training images are the baselines."""
    some = data.subset(train, 50, seed=config.seed)
    return Options(
        samples=2 if config.dry_run else config.samples,
        sigma=config.sigma,
        steps=2 if config.dry_run else config.steps,
        layer=config.layer,
        loss=config.loss,
        baselines=data.unit(some.image),
    )


def check_recipe(config: MapConfig, recipe: Recipe) -> None:
    """Finds out before a network is trained whether Grad-CAM, if asked for, will have its layer.

    Raises:
      ValueError: as `cam_layer`.
    """
    if "grad_cam" in config.methods:
        cam_layer(Network(recipe.spec, recipe.variables(jax.random.key(0)), {}), config.layer)
