"""Prepares `experiments.synthesis`: loads data and networks, and builds the tasks."""

from __future__ import annotations

import dataclasses

import numpy as np

from advfeat import data
from advfeat.features.tasks import Task
from advfeat.models.network import Network

from ..shared.flag_checks import check_eps
from ..shared.images import load_in_memory
from ..shared.two_networks import load_judges, load_pair
from . import tasks
from .flags import Config

RESTORED = ("inpainting", "superresolution")
"""Tasks with an original for comparison."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      dataset: as loaded.
      networks: "standard" and "robust".
      judges: independent networks by name.
      images: `[N, H, W, C]` in [0, 1], test images.
      labels: `[N]`.
      shown: rows of the images in figures.
      others: as many other test images, for comparison with the drawn ones.
      tasks: by name.
      steps: of every ascent.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    judges: dict[str, Network]
    images: np.ndarray
    labels: np.ndarray
    shown: np.ndarray
    others: np.ndarray
    tasks: dict[str, Task]
    steps: int


def prepare(config: Config) -> Plan:
    """Loads what the flags name; writes nothing."""
    dataset = load_in_memory(config.dataset, classes=config.classes, data_dir=config.data_dir)
    check_eps("l2", dataset.input_shape, eps_grid=config.eps_grid)
    judges, networks = load_judges(config, dataset), load_pair(config, dataset)
    count = max(config.eval_examples, config.shown)
    count = min(count, len(dataset.test) // 2)
    both = data.subset(dataset.test, 2 * count, seed=config.seed)
    first = data.draw_rows(both.label, count, seed=config.seed)
    half, others = both.take(first), both.take(np.delete(np.arange(len(both)), first))
    images, labels = data.unit(half.image), half.label
    return Plan(
        dataset=dataset,
        networks=networks,
        judges=judges,
        images=images,
        labels=labels,
        shown=data.draw_rows(labels, config.shown, seed=config.seed),
        others=data.unit(others.image),
        tasks=tasks.plan_tasks(
            config.tasks, dataset, images, labels, strength=config.strength, seed=config.seed
        ),
        steps=config.steps,
    )
