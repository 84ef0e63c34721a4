"""Runs `experiments.saliency`: computes, checks and reports the saliency maps of all networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import models, saliency
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared.two_networks import PAIR
from . import report
from .flags import Config
from .plan import Plan, prepare
from .summary import summarise


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Computes the maps, measures, checks and reports."""
    key = jax.random.key(config.seed)
    found = {}
    for name, network in plan.networks.items():
        found[name] = saliency.maps(
            key, config.methods, network, plan.images, plan.labels, options=plan.options
        )
        run.save_arrays(f"maps/{name}", found[name], {"labels": plan.labels.tolist()})
    sanity = {
        name: {
            how: _randomised(how, config, plan, plan.networks[name]) for how in saliency.RANDOMISED
        }
        for name in PAIR
    }
    summary = summarise(config, plan, found, sanity)
    report.write(config, plan, run, found, sanity, summary)
    return summary


def _randomised(how: str, config: Config, plan: Plan, network: Network) -> saliency.Randomisation:
    """Performs a randomisation test with a few images."""
    key, model, shape = jax.random.key(config.seed), network.spec.build(), network.spec.input_shape
    order = models.module_names(model, shape)

    def maps_of(variables: Any) -> dict[str, np.ndarray]:
        return saliency.maps(
            key,
            plan.checked,
            dataclasses.replace(network, variables=variables),
            plan.images[plan.few],
            plan.labels[plan.few],
            options=plan.options,
        )

    with tqdm(total=len(order), desc=how, unit="module") as bar:
        return saliency.randomised(
            how,
            maps_of,
            network.variables,
            models.init(key, model, shape),
            order,
            on_module=lambda _: bar.update(),
        )


run = runner.Experiment("saliency", prepare, work)
