"""Prepares `experiments.saliency`: loads data and networks, and selects the images to map."""

from __future__ import annotations

import dataclasses

import numpy as np

from advfeat import data
from advfeat.models.network import Network
from advfeat.saliency import METHODS, Options

from ..shared.images import load_in_memory
from ..shared.map_flags import check_cam, options_of
from ..shared.two_networks import further, is_cifar10, load_fitting, load_pair
from .flags import Config

OTHERS = ("zoo:cifar10_cnn_standard", "zoo:cifar10_cnn_l2_robust")
_CHECKED = 2  # number of methods checked in a dry run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      networks: by name: "standard", "robust", and the others by their names.
      images: `[N, H, W, C]` in [0, 1], drawn from the test set.
      labels: `[N]`.
      options: of the methods.
      checked: the methods that are checked: each runs once per module of a network.
      few: rows of the images used by the checks.
      shown: rows of the images in figures.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    images: np.ndarray
    labels: np.ndarray
    options: Options
    checked: tuple[str, ...]
    few: np.ndarray
    shown: np.ndarray


def prepare(config: Config) -> Plan:
    """Loads what the flags name; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    networks = load_pair(config, dataset)
    others = config.others
    if others is None:
        others = OTHERS if is_cifar10(config) else ("none",)
    for name, reference in further(others, "others").items():
        networks[name] = load_fitting(reference, dataset)
    for network in networks.values():
        check_cam(config, network)
    count = max(config.eval_examples, config.shown, config.sanity_images)
    checked = tuple(name for name in config.methods if not METHODS[name].on_host)
    test = data.subset(dataset.test, count, seed=config.seed)
    return Plan(
        dataset=dataset,
        networks=networks,
        images=data.unit(test.image),
        labels=test.label,
        options=options_of(config, dataset.train),
        # No flag holds them: the maps of a dry run are by all methods.
        checked=checked[:_CHECKED] if config.dry_run else checked,
        few=data.draw_rows(test.label, config.sanity_images, seed=config.seed),
        shown=data.draw_rows(test.label, config.shown, seed=config.seed),
    )
