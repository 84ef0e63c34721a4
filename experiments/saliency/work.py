"""Runs `experiments.saliency`: computes, checks and reports the saliency maps of all networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import models, saliency
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared.kept import kept
from ..shared.two_networks import PAIR
from . import report
from .flags import Config
from .measures import measured
from .plan import Plan, prepare
from .summary import summarise


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Computes the maps, measures, checks and reports."""
    key = jax.random.key(config.seed)

    def maps_of(network: Network) -> tuple[dict[str, Any], dict[str, Any]]:
        maps = saliency.maps(
            key, config.methods, network, plan.images, plan.labels, options=plan.options
        )
        return maps, {"labels": plan.labels.tolist()}

    found = {
        name: run.cached(f"maps/{name}", partial(maps_of, network))
        for name, network in plan.networks.items()
    }
    sanity = {name: _sanity(config, plan, run, name) for name in PAIR}
    numbers = {
        name: kept(run, f"measured/{name}", partial(measured, config, plan, name, maps))
        for name, maps in found.items()
    }
    summary = summarise(config, plan, found, sanity, numbers)
    return runner.reported(
        run, summary, lambda: report.write(config, plan, run, found, sanity, summary)
    )


def _sanity(
    config: Config, plan: Plan, run: RunDirectory, name: str
) -> dict[str, saliency.Randomisation]:
    """Performs the randomisation tests of one network, unless the run holds them."""

    def measure() -> dict[str, Any]:
        return {
            how: {
                "modules": np.array(test.modules),
                "rank": test.rank,
                "ssim": test.ssim,
                "first": {method: np.stack(maps) for method, maps in test.first.items()},
            }
            for how in saliency.RANDOMISED
            for test in [_randomised(how, config, plan, plan.networks[name])]
        }

    return {
        how: saliency.Randomisation(
            modules=tuple(map(str, test["modules"])),
            rank=test["rank"],
            ssim=test["ssim"],
            first={method: list(maps) for method, maps in test["first"].items()},
        )
        for how, test in kept(run, f"randomised/{name}", measure).items()
    }


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
        return saliency.randomisation_test(
            how,
            maps_of,
            network.variables,
            models.init(key, model, shape),
            order,
            on_module=lambda _: bar.update(),
        )


run = runner.Experiment("saliency", prepare, work)
