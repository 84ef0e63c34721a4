"""Runs `experiments.counterfactual`: searches, measures and reports counterfactuals."""

from __future__ import annotations

from typing import Any

import numpy as np

from advfeat import stats
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.stats import Estimate

from ..shared.two_networks import PAIR
from . import report
from .flags import Config
from .plan import Plan, prepare
from .search import WAYS, Found, search


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Searches, measures and reports."""
    found = {name: search(config, plan, name) for name in PAIR}
    for name, part in found.items():
        run.save_arrays(
            f"changed/{name}",
            {
                "places": plan.wrong[name],
                "predicted": part.predicted,
                "gains": part.gains,
                **{f"units_{way}": part.units[way] for way in WAYS},
                **{f"image_{way}": part.changed[way] for way in WAYS},
            },
            {},
        )
    summary = _summary(config, found)
    report.write(config, plan, run, found, summary)
    return summary


def _summary(config: Config, found: dict[str, Found]) -> dict[str, Any]:
    claims = [
        stats.claim(
            f"{name.capitalize()} network: its top {config.features} features, enhanced, turn the "
            "wrong prediction into the label more often than as many drawn at random.",
            stats.rate(part.turned["top"]),
            stats.rate(part.turned["random"]),
            paired=stats.difference(part.turned["top"], part.turned["random"]),
        )
        for name, part in found.items()
    ]
    return {
        "dataset": config.dataset,
        "layer": config.layer,
        "features": config.features,
        "eps": config.eps,
        "networks": {
            name: {
                "wrong": len(part.predicted),
                "turned": {way: stats.rate(part.turned[way]) for way in WAYS},
                "distance": {way: _mean(part.distance[way][part.turned[way]]) for way in WAYS},
                "off": {way: float(part.off[way].mean()) for way in WAYS},
                "nearest": _mean(part.nearest[~np.isnan(part.nearest)]),
            }
            for name, part in found.items()
        },
        "claims": runner.judged(claims, config),
    }


def _mean(values: np.ndarray) -> Estimate | None:
    return stats.mean(values, limits=(0.0, np.inf)) if len(values) else None


run = runner.Experiment("counterfactual", prepare, work)
