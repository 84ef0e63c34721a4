"""Turns the flags of saliency experiments into options of the methods."""

from __future__ import annotations

import jax

import advfeat
from advfeat import data
from advfeat.models.network import Network
from advfeat.objectives.features import class_score
from advfeat.saliency import Options

from .flags.maps import MapConfig
from .recipes import Recipe
from .two_networks import check_layer


def options_of(config: MapConfig, train: data.Split) -> Options:
    """Returns the methods' options; some training images serve as baselines."""
    some = data.subset(train, 50, seed=config.seed)
    return Options(
        # A lower loss means more of the class, so signs have the same meaning either way.
        objective=advfeat.targeted() if config.loss else class_score(),
        samples=config.samples,
        sigma=config.sigma,
        steps=config.path_steps,
        layer=config.layer,
        baselines=data.unit(some.image),
    )


def check_cam(config: MapConfig, network: Network) -> None:
    """Checks that Grad-CAM, if requested, will find its layer in the network.

    Raises:
      ValueError: for an unknown layer, or if it, or every layer, has no positions.
    """
    if "grad_cam" not in config.methods:
        return
    if config.layer is not None:
        check_layer(config.layer, network)
    try:
        network.spatial_layer(config.layer)
    except ValueError as error:
        if config.layer is None:
            raise
        why = "has no positions, which Grad-CAM needs"
        raise ValueError(f"flag --layer={config.layer}: {why}") from error


def check_recipe(config: MapConfig, recipe: Recipe) -> None:
    """Checks, before a network is trained, that Grad-CAM, if requested, will find its layer.

    Raises:
      ValueError: as for `check_cam`.
    """
    check_cam(config, Network(recipe.spec, recipe.variables(jax.random.key(0)), {}))
