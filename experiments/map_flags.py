"""The flags of every experiment that makes saliency maps."""

from __future__ import annotations

import dataclasses

import jax

from advfeat import data
from advfeat.checkpoints import Network
from experiments import lime_maps
from experiments.config import Config as BaseConfig
from experiments.config import flag
from experiments.recipes import Recipe
from experiments.saliency_maps import EXTRA, METHODS, Options, cam_layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapConfig(BaseConfig):
    """Which methods, and what they are given."""

    methods: tuple[str, ...] = flag(METHODS, "Which methods.", choices=METHODS + EXTRA)
    loss: bool = flag(False, "Differentiate the negated loss at the label, not the score.")
    samples: int = flag(25, "Noisy copies (SmoothGrad and its kind).", kind="count")
    sigma: float = flag(0.15, "Standard deviation of their noise.", kind="nonnegative")
    steps: int = flag(20, "Gradients on the way of integrated gradients.", kind="count")
    layer: str | None = flag(None, "Layer of Grad-CAM. Default: the last with positions.")

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        if len(set(self.methods)) != len(self.methods):
            raise ValueError(f"flag --methods={','.join(self.methods)}: names one twice")
        if self.samples < 2 and "vargrad" in self.methods:
            raise ValueError(f"flag --samples={self.samples}: vargrad needs at least 2")
        if "lime" in self.methods:
            lime_maps.check_installed()


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
