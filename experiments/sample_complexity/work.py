"""Runs `experiments.sample_complexity`: trains on growing sets, simulates the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import data
from advfeat.keys import stream
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.theory import simulation

from ..shared import sweeps
from ..shared.kept import kept
from ..shared.sweeps import Hits, Job, Points
from . import report, summary as sample_complexity_summary
from .flags import Config
from .plan import KINDS, Plan, prepare


def jobs(config: Config, plan: Plan) -> dict[tuple[str, int, int], Job]:
    """Returns every network's job by (kind, size, seed); a seed's training sets are nested."""
    found = {}
    robust = sweeps.robust(config, plan.standard, config.norm, plan.eps)
    recipes = {"standard": plan.standard, "adversarial": robust}
    drawn = {seed: _nested(config, plan, seed) for seed in range(config.seeds)}
    for size in plan.sizes:
        for seed, parts in drawn.items():
            part = parts[size]
            points = {
                "test": plan.test,
                "train": Points.of(part, config.eval_examples, config.seed),
            }
            for kind in KINDS:
                found[kind, size, seed] = Job(
                    name=f"{kind}_{size}_{seed}",
                    recipe=recipes[kind],
                    train=_repeated(part, plan.sizes[-1]),
                    points=points,
                    threats={"robust": (config.norm, plan.eps)},
                    noise=True,
                )
    return found


def _nested(config: Config, plan: Plan, seed: int) -> dict[int, data.Split]:
    """Draws a seed's training sets by size, each from the next larger one."""
    found, part = {}, plan.train
    for size in sorted(plan.sizes, reverse=True):
        part = data.subset(part, size, seed=sweeps.seed_of(config, seed))
        found[size] = part
    return found


def _repeated(part: data.Split, count: int) -> data.Split:
    """Repeats the images, so that every set gets equally many updates of the same shape."""
    rows = np.resize(np.arange(len(part)), count)
    return data.Split(part.image[rows], part.label[rows], np.arange(count))


def _errors(root: jax.Array, plan: Plan) -> dict[str, Any]:
    return {
        "gaussian": simulation.gaussian_errors(root, plan.gaussian),
        "bernoulli": simulation.bernoulli_errors(root, plan.bernoulli),
    }


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Trains, measures, simulates and reports."""
    todo = jobs(config, plan)
    hits: dict[tuple[str, int, int], Hits] = {}
    with tqdm(total=len(todo) * plan.standard.config.epochs, desc="networks", unit="epoch") as bar:
        for place, job in todo.items():
            hits[place] = sweeps.measure(config, run, job, advance=bar.update)
    root = stream(jax.random.key(config.seed), "theory")
    drawn = kept(run, "measured/models", lambda: _errors(root, plan))
    gaussian, bernoulli = (
        {int(count): errors for count, errors in drawn[name].items()}
        for name in ("gaussian", "bernoulli")
    )
    theory = {
        "gaussian": simulation.simulate_gaussian(root, plan.gaussian, errors=gaussian),
        "bernoulli": simulation.simulate_bernoulli(root, plan.bernoulli, errors=bernoulli),
    }
    curves = sample_complexity_summary.Curves.of(plan.sizes, hits)
    summary = sample_complexity_summary.summarise(config, plan, curves, theory)
    return runner.reported(run, summary, lambda: report.write(config, plan, run, summary))


run = runner.Experiment("sample_complexity", prepare, work)
