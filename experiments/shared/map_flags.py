"""Turns the flags of saliency experiments into options of the methods."""

from __future__ import annotations

import jax

from advfeat import data
from advfeat.models.network import Network

from .flags.maps import MapConfig
from .recipes import Recipe
from .saliency_maps import Options, cam_layer


def options_of(config: MapConfig, train: data.Split) -> Options:
    """Returns the methods' options; some training images serve as baselines."""
    some = data.subset(train, 50, seed=config.seed)
    return Options(
        samples=config.samples,
        sigma=config.sigma,
        steps=config.steps,
        layer=config.layer,
        loss=config.loss,
        baselines=data.unit(some.image),
    )


def check_recipe(config: MapConfig, recipe: Recipe) -> None:
    """Checks, before a network is trained, that Grad-CAM, if requested, will find its layer.

    Raises:
      ValueError: as for `cam_layer`.
    """
    if "grad_cam" in config.methods:
        cam_layer(Network(recipe.spec, recipe.variables(jax.random.key(0)), {}), config.layer)
