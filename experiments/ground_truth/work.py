"""Runs `experiments.ground_truth`: trains on planted images and scores all methods."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
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
from ..shared.kept import kept
from . import report, summary as ground_truth_summary
from .changes import Changes, changes_of
from .flags import Config
from .plan import NETWORKS, Plan, prepare
from .summary import measured


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
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
                run, _file(name), stream(root, name), recipe, train, advance=bar.update
            )
    maps = {
        name: run.cached(f"maps/{_file(name)}", partial(_maps, config, plan, name, network))
        for name, network in found.items()
    }
    changes = {
        name: Changes(
            **run.cached(f"changes/{_file(name)}", partial(_changes, config, plan, name, network))
        )
        for name, network in found.items()
    }
    numbers = {
        name: kept(
            run, f"measured/{_file(name)}", partial(measured, plan, name, network.model_fn())
        )
        for name, network in found.items()
    }
    summary = ground_truth_summary.summarise(config, plan, numbers, maps, changes)
    return runner.reported(
        run, summary, lambda: report.write(config, plan, run, maps, changes, summary)
    )


def _file(name: str) -> str:
    return name.replace(" ", "_")


def _changes(
    config: Config, plan: Plan, name: str, network: Network
) -> tuple[dict[str, Any], dict[str, Any]]:
    return vars(changes_of(config, plan, name, network)), {}


def _maps(
    config: Config, plan: Plan, name: str, network: Network
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    images = plan.images(name)
    key = jax.random.key(config.seed)
    found = saliency.maps(key, config.methods, network, images, plan.labels, options=plan.options)
    return {**found, EDGES: np.array([saliency.edges(image) for image in images])}, {}


run = runner.Experiment("ground_truth", prepare, work)
