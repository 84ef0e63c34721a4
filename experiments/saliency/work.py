"""Runs `experiments.saliency`: computes, checks and reports the saliency maps of all networks."""

from __future__ import annotations

from typing import Any

from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared import saliency_checks, saliency_maps
from ..shared.pairs import PAIR
from . import report
from .flags import Config
from .plan import Plan, prepare
from .summary import summarise


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Computes the maps, measures, checks and reports."""
    found = {}
    for name, network in plan.networks.items():
        found[name] = saliency_maps.maps(
            config.methods,
            network,
            network.variables,
            plan.options,
            plan.images,
            plan.labels,
            seed=config.seed,
        )
        run.save_arrays(f"maps/{name}", found[name], {"labels": plan.labels.tolist()})
    sanity = {
        name: {
            how: saliency_checks.randomised(
                how,
                plan.checked,
                plan.networks[name],
                plan.options,
                plan.images[plan.few],
                plan.labels[plan.few],
                seed=config.seed,
            )
            for how in saliency_checks.RANDOMISED
        }
        for name in PAIR
    }
    summary = summarise(config, plan, found, sanity)
    report.write(config, plan, run, found, sanity, summary)
    return summary


run = runner.Experiment("saliency", prepare, work)
