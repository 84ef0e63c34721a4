"""Runs `experiments.tradeoff`: trains networks at every eps, measures their accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared import sweeps
from ..shared.sweeps import Hits, Job
from . import report, summary as tradeoff_summary
from .flags import Config
from .plan import Plan, prepare


def jobs(config: Config, plan: Plan) -> dict[tuple[str, float, int], Job]:
    """Returns every network's job by (norm, eps, seed); the network of eps 0 serves all norms."""
    found = {}
    for seed in range(config.seeds):
        for norm, grid in plan.eps.items():
            for eps in grid:
                # A network is measured in its training norm, the standard one in all norms.
                threats = {
                    name: (name, at)
                    for name, at in plan.measured_at.items()
                    if eps == 0 or name == norm
                }
                name = "standard" if eps == 0 else f"{norm}_{eps:g}"
                found[norm, eps, seed] = Job(
                    name=f"{name}_{seed}",
                    recipe=sweeps.robust(config, plan.standard, norm, eps),
                    train=plan.train,
                    points={"test": plan.test},
                    threats=threats,
                    keep=True,
                )
    return found


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Trains, measures and reports."""
    todo = jobs(config, plan)
    hits: dict[tuple[str, float, int], Hits] = {}
    with tqdm(total=len(todo) * plan.standard.config.epochs, desc="networks", unit="epoch") as bar:
        for place, job in todo.items():
            hits[place] = sweeps.measure(config, run, job, advance=bar.update)
    summary = tradeoff_summary.summarise(config, plan, hits)
    return runner.reported(run, summary, lambda: report.write(config, plan, run, summary))


run = runner.Experiment("tradeoff", prepare, work)
