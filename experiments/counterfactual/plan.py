"""Prepares `experiments.counterfactual`: loads data, finds wrong predictions."""

from __future__ import annotations

import dataclasses

import numpy as np

import advfeat
from advfeat import data
from advfeat.models.network import Network

from ..shared.flag_checks import check_eps
from ..shared.images import load_in_memory
from ..shared.two_networks import check_layer, load_pair
from .flags import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      networks: "standard" and "robust".
      images: `[M, H, W, C]` in [0, 1], the searched ones.
      labels: `[M]`.
      wrong: by network, the indices of its misclassified images.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    images: np.ndarray
    labels: np.ndarray
    wrong: dict[str, np.ndarray]


def prepare(config: Config) -> Plan:
    """Loads what the flags name and finds wrong predictions; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    check_eps("l2", dataset.input_shape, eps=config.eps)
    networks = load_pair(config, dataset)
    found = data.subset(dataset.test, config.searched, seed=config.seed)
    images, wrong = data.unit(found.image), {}
    for name, network in networks.items():
        units = check_layer(config.layer, network)
        if config.features > units:
            raise ValueError(
                f"flag --features={config.features}: the layer {config.layer} has {units} units"
            )
        right = advfeat.correct(network.model_fn(), images, found.label)
        places = np.flatnonzero(~right)
        drawn = data.draw_rows(found.label[places], config.eval_examples, seed=config.seed)
        wrong[name] = places[drawn]
        if len(places) == 0:
            raise ValueError(
                f"flag --searched={len(images)}: the {name} network gets all of them right"
            )
    return Plan(dataset=dataset, networks=networks, images=images, labels=found.label, wrong=wrong)
