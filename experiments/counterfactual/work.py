"""Runs `experiments.counterfactual`: searches, measures and reports counterfactuals."""

from __future__ import annotations

from collections.abc import Mapping
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


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Searches, measures and reports."""
    found = {name: _found(config, plan, run, name) for name in PAIR}
    summary = _summary(config, found)
    return runner.reported(run, summary, lambda: report.write(config, plan, run, found, summary))


_ALONE = ("predicted", "gains", "nearest", "values")
_BY_WAY = {field: field for field in ("units", "turned", "distance", "off")} | {"changed": "image"}
"""Field of `Found` -> its name in the file, which the way follows."""


def _found(config: Config, plan: Plan, run: RunDirectory, name: str) -> Found:
    """Searches one network's features and images, unless the run holds them."""

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        part = search(config, plan, name)
        arrays = {
            "places": plan.wrong[name],
            **{field: getattr(part, field) for field in _ALONE},
            **{
                f"{title}_{way}": getattr(part, field)[way]
                for field, title in _BY_WAY.items()
                for way in WAYS
            },
        }
        return arrays, {}

    saved = run.cached(f"changed/{name}", measure)
    fields: dict[str, Any] = {field: saved[field] for field in _ALONE}
    for field, title in _BY_WAY.items():
        fields[field] = {way: saved[f"{title}_{way}"] for way in WAYS}
    return Found(**fields)


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
