"""Runs `experiments.representations`: draws and measures both networks."""

from __future__ import annotations

from typing import Any

from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared.two_networks import PAIR
from . import pictures, report
from .flags import Config
from .plan import Plan, prepare
from .summary import measured, summarise


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Makes the pictures, measures and reports."""
    drawn = pictures.all_pictures(config, plan)
    inverted = {
        name: pictures.inverted(config, plan, name, plan.images[plan.inverted]) for name in PAIR
    }
    numbers = {
        name: measured(config, plan, network, inverted[name])
        for name, network in plan.networks.items()
    }
    summary = summarise(config, plan, numbers, inverted)
    run.save_arrays(
        "inverted",
        {
            f"{name}_{start}": values
            for name, found in inverted.items()
            for start, values in found.items()
        },
        {},
    )
    report.write(config, plan, run, drawn, summary)
    return summary


run = runner.Experiment("representations", prepare, work)
