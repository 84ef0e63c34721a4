"""Runs `experiments.representations`: draws and measures both networks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared.kept import kept
from ..shared.two_networks import PAIR
from . import pictures, report
from .flags import Config
from .pictures import Drawn
from .plan import Plan, prepare
from .summary import measured, of_pixels, summarise


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Makes the pictures, measures and reports."""
    drawn = {
        name: Drawn.read(kept(run, f"pictures/{name}", partial(_pictures, config, plan, name)))
        for name in PAIR
    }
    inverted = _inverted(config, plan, run)
    numbers = {
        name: kept(
            run, f"measured/{name}", partial(measured, config, plan, network, inverted[name])
        )
        for name, network in plan.networks.items()
    }
    pixels = kept(run, "measured/pixels", lambda: of_pixels(config, plan))
    summary = summarise(config, plan, numbers, pixels)
    return runner.reported(run, summary, lambda: report.write(config, plan, run, drawn, summary))


def _pictures(config: Config, plan: Plan, name: str) -> dict[str, Any]:
    return vars(pictures.all_pictures(config, plan, name))


def _inverted(config: Config, plan: Plan, run: RunDirectory) -> dict[str, dict[str, np.ndarray]]:
    """Inverts the images that the numbers are based on, by network and start."""

    def measure() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays = {
            f"{name}_{start}": values
            for name in PAIR
            for start, values in pictures.inverted(
                config, plan, name, plan.images[plan.inverted]
            ).items()
        }
        return arrays, {}

    saved = run.cached("inverted", measure)
    return {name: {start: saved[f"{name}_{start}"] for start in pictures.STARTS} for name in PAIR}


run = runner.Experiment("representations", prepare, work)
