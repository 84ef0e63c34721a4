"""Prepares `experiments.sample_complexity`: loads data, builds sizes, recipes and models."""

from __future__ import annotations

import dataclasses

from advfeat import data, stats
from advfeat.theory import simulation
from advfeat.threats.balls import threat_model

from ..shared import sweeps
from ..shared.flag_checks import check_eps
from ..shared.images import load_in_memory
from ..shared.presets import preset_for
from ..shared.recipes import Recipe
from ..shared.sweeps import Points
from .flags import Config

KINDS = ("standard", "adversarial")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      train: the training images from which the sets are drawn.
      test: the test images.
      sizes: of the training sets, ascending.
      eps: of training and measurement, as it was asked for.
      standard: recipe of the standard networks.
      gaussian: the Gaussian model.
      bernoulli: the Bernoulli model.
    """

    dataset: data.Dataset
    train: data.Split
    test: Points
    sizes: tuple[int, ...]
    eps: float
    standard: Recipe
    gaussian: simulation.Model
    bernoulli: simulation.Model


def prepare(config: Config) -> Plan:
    """Loads what the flags name and fills in presets; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    train = sweeps.training_images(config, dataset, preset)
    usual = preset.linf_eps if config.norm == "linf" else preset.robust_eps
    eps = usual if config.eps is None else config.eps
    check_eps(config.norm, dataset.input_shape, eps=eps)
    # Raises on unsupported attacks.
    sweeps.attacks(config, threat_model(config.norm, eps), dataset.num_classes)
    return Plan(
        dataset=dataset,
        train=train,
        test=Points.of(dataset.test, config.eval_examples, config.seed),
        sizes=_sizes(config, len(train), dataset.num_classes),
        eps=float(eps),
        standard=sweeps.recipe(config, dataset, preset),
        gaussian=_gaussian(config),
        # No flag holds how many examples the models are given.
        bernoulli=simulation.bernoulli_model(dim=40, counts=(1, 2), draws=stats.FEW)
        if config.dry_run
        else simulation.bernoulli_model(),
    )


def _gaussian(config: Config) -> simulation.Model:
    noise = config.noise or 0.64 * config.dim**0.25
    model = simulation.gaussian_model(
        dim=config.dim, noise=noise, eps=config.model_eps, draws=config.draws
    )
    return dataclasses.replace(model, counts=(1, 8)) if config.dry_run else model


def _sizes(config: Config, total: int, classes: int) -> tuple[int, ...]:
    """Returns the requested sizes, or up to five halvings with two images of each class left."""
    if config.sizes is None:
        halved = [total // 2**k for k in range(6)]
        sizes = tuple(sorted(size for size in halved if size >= 2 * classes))
        if len(sizes) < 2:
            raise ValueError(f"{total} training images are too few to halve: give --sizes")
        return sizes
    if config.sizes[0] < classes:
        raise ValueError(
            f"flag --sizes={config.sizes[0]}: must be at least {classes}, one for each class"
        )
    if config.sizes[-1] > total:
        raise ValueError(
            f"flag --sizes={config.sizes[-1]}: there are {total} training images (see "
            "--train_examples)"
        )
    return config.sizes
