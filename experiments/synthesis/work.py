"""Runs `experiments.synthesis`: performs every task with both networks, measures quality."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from advfeat.features import tasks
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared.kept import kept
from . import report
from .flags import Config
from .plan import Plan, prepare
from .summary import measured, summarise
from .tasks import attacked


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Draws, measures and reports."""
    key = jax.random.key(config.seed)

    def draw(task: str) -> tuple[dict[str, Any], dict[str, Any]]:
        found = {
            name: tasks.draw(key, plan.tasks[task], network.model_fn(), steps=plan.steps)
            for name, network in plan.networks.items()
        }
        return found, {"aims": plan.tasks[task].labels.tolist()}

    def attack() -> dict[str, Any]:
        return {
            name: attacked(
                network,
                plan.images[plan.shown],
                plan.labels[plan.shown],
                config.eps_grid,
                num_classes=plan.dataset.num_classes,
                steps=plan.steps,
                seed=config.seed,
            )
            for name, network in plan.networks.items()
        }

    drawn = {task: run.cached(f"drawn/{task}", partial(draw, task)) for task in plan.tasks}
    attacks = kept(run, "attacked", attack)
    side_by_side = {
        name: {float(eps): images for eps, images in found.items()}
        for name, found in attacks.items()
    }
    numbers = kept(run, "measured/read", lambda: measured(plan, drawn))
    summary = summarise(config, plan, drawn, numbers)
    return runner.reported(
        run, summary, lambda: report.write(config, plan, run, drawn, side_by_side, summary)
    )


run = runner.Experiment("synthesis", prepare, work)
