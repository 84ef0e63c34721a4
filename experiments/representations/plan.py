"""Prepares `experiments.representations`: loads data and networks, and selects units and images."""

from __future__ import annotations

import dataclasses

import numpy as np

from advfeat import data
from advfeat.features import representations
from advfeat.models.network import Network
from advfeat.threats.balls import ThreatModel, l2

from ..shared.flag_checks import check_eps
from ..shared.images import load_in_memory
from ..shared.two_networks import check_layer, load_judges, load_pair
from .flags import Config

PIXELS = "pixels"  # the control: distances between the images themselves
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      networks: "standard" and "robust".
      judges: independent networks by name.
      units: of each network.
      images: `[N, H, W, C]` in [0, 1], test images.
      labels: `[N]`.
      shown: rows of the images in figures.
      measured: rows of the images that the numbers are based on.
      inverted: rows of the images inverted for the numbers.
      searched: `[M, H, W, C]` in [0, 1], another draw from the test set.
      surveyed: some of them, for means over images.
      steps: of an inversion.
      threat: threat model of the attack on layers.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    judges: dict[str, Network]
    units: dict[str, tuple[int, ...]]
    images: np.ndarray
    labels: np.ndarray
    shown: np.ndarray
    measured: np.ndarray
    inverted: np.ndarray
    searched: np.ndarray
    surveyed: np.ndarray
    steps: int
    threat: ThreatModel


def prepare(config: Config) -> Plan:
    """Loads what the flags name; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    check_eps("l2", dataset.input_shape, eps=config.eps)
    networks = load_pair(config, dataset)
    count = max(config.eval_examples, config.inverted, 2 * config.shown)
    test = data.subset(dataset.test, count, seed=config.seed)
    searched = data.subset(dataset.test, config.searched, seed=(config.seed, 1))
    surveyed = data.unit(data.subset(searched, 500, seed=config.seed).image)

    def rows(most: int) -> np.ndarray:
        return data.draw_rows(test.label, most, seed=config.seed)

    return Plan(
        dataset=dataset,
        networks=networks,
        judges=load_judges(config, dataset),
        units={name: _units(config, network, surveyed) for name, network in networks.items()},
        images=data.unit(test.image),
        labels=test.label,
        shown=rows(config.shown),
        measured=rows(config.eval_examples),
        inverted=rows(config.inverted),
        searched=data.unit(searched.image),
        surveyed=surveyed,
        steps=config.steps,
        threat=l2(config.eps),
    )


def _units(config: Config, network: Network, surveyed: np.ndarray) -> tuple[int, ...]:
    """Returns the requested units, or the three that vary most."""
    count = check_layer(config.layer, network)
    for unit in config.units or ():
        if unit >= count:
            raise ValueError(f"flag --units={unit}: the layer {config.layer} has {count} units")
    if config.units is not None:
        return config.units
    values = representations.unit_values(network.model_fn(config.layer), surveyed)
    return tuple(int(unit) for unit in np.argsort(-values.std(axis=0))[:3])
