"""Runs `experiments.ground_truth`: trains on planted images and scores all methods."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import data, saliency
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.saliency import EDGES

from ..shared import networks
from . import report, summary as ground_truth_summary
from .changes import changes_of
from .flags import Config
from .plan import NETWORKS, Plan, prepare


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, computes maps and changes, scores and reports."""
    root = jax.random.key(config.seed)
    found: dict[str, Network] = {}
    total = sum(recipe.config.epochs for recipe in plan.recipes.values())
    with tqdm(total=total, desc="networks", unit="epoch") as bar:
        for name, recipe in plan.recipes.items():
            train = plan.sets[NETWORKS[name]].train
            if config.dry_run:  # no flag holds the number of training images
                train = data.subset(train, 200, seed=config.seed)
            found[name] = networks.train(
                run, name.replace(" ", "_"), stream(root, name), recipe, train, advance=bar.update
            )
    maps = {name: _maps(config, plan, name, network) for name, network in found.items()}
    changes = {name: changes_of(config, plan, name, network) for name, network in found.items()}
    summary = ground_truth_summary.summarise(config, plan, found, maps, changes)
    report.write(config, plan, run, maps, changes, summary)
    return summary


def _maps(config: Config, plan: Plan, name: str, network: Network) -> dict[str, np.ndarray]:
    images = plan.images(name)
    key = jax.random.key(config.seed)
    found = saliency.maps(key, config.methods, network, images, plan.labels, options=plan.options)
    return {**found, EDGES: np.array([saliency.edges(image) for image in images])}


run = runner.Experiment("ground_truth", prepare, work)
