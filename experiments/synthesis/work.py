"""Runs `experiments.synthesis`: performs every task with both networks, measures quality."""

from __future__ import annotations

from typing import Any

import jax

from advfeat.features import tasks
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from . import report
from .flags import Config
from .plan import Plan, prepare
from .summary import summarise
from .tasks import attacked


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Draws, measures and reports."""
    key = jax.random.key(config.seed)
    drawn = {
        task: {
            name: tasks.draw(key, plan.tasks[task], network.model_fn(), steps=plan.steps)
            for name, network in plan.networks.items()
        }
        for task in plan.tasks
    }
    for task, found in drawn.items():
        run.save_arrays(f"drawn/{task}", found, {"aims": plan.tasks[task].labels.tolist()})
    side_by_side = {
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
    summary = summarise(config, plan, drawn)
    report.write(config, plan, run, drawn, side_by_side, summary)
    return summary


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="synthesis")
