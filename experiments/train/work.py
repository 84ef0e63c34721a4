"""Runs `experiments.train`: trains one network, measures it clean and under PGD, and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from advfeat import data, stats
from advfeat.keys import stream
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared import images, networks
from ..shared.eps_sweep import by_eps, pgd_sweep
from . import report
from .flags import Config
from .plan import Plan, prepare


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Trains, measures and reports."""
    root = jax.random.key(config.seed)
    for note in plan.notes:
        print(note)
    held_out = images.pixels(plan.held_out)
    network = networks.train(
        run, "model", stream(root, "model"), plan.recipe, plan.train, held_out=held_out
    )
    fn, test = network.model_fn(), plan.dataset.test
    some = data.subset(test, config.eval_examples, seed=config.seed)

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        sweep = pgd_sweep(
            stream(root, "evaluation"),
            fn,
            *images.pixels(some),
            plan.eps_grid,
            norm=config.norm,
            steps=config.eval_steps,
            batch_size=config.attack_batch_size,
            desc="PGD",
        )
        return {"clean": images.correct(fn, test), **sweep._asdict()}, {"network": "model"}

    found = run.cached("measured/model", measure)
    clean, accuracies = stats.rate(found["clean"]), by_eps(found["epsilons"], found["robust"])
    summary = {
        "dataset": config.dataset,
        "classes": list(plan.dataset.class_names),
        "objective": config.objective,
        "norm": config.norm,
        "eps": plan.eps,
        "clean_accuracy": clean,
        "robust_accuracy": accuracies[plan.eps_grid.index(plan.eps)]["accuracy"],
        "accuracy_by_eps": accuracies,
        "training": {"epochs": plan.recipe.config.epochs, **_made(plan, network.record)},
        "notes": list(plan.notes),
        "evaluation": {"attack": "PGD", "steps": config.eval_steps, "examples": len(some)},
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))),
        "claims": [],
    }
    return runner.reported(run, summary, lambda: report.write(config, plan, run, summary))


def _made(plan: Plan, record: dict[str, Any]) -> dict[str, Any]:
    """Returns how the network was trained, and which of its epochs was kept."""
    more = ("label_smoothing", "awp", "ema", "swa", "reading", "selection")
    fields = ("objective", *plan.recipe.numbers, *more)
    return {name: record[name] for name in fields if name in record}


def follow(config: Config, plan: Plan) -> None:
    """Takes part in a distributed training as one of the other processes."""
    networks.follow(stream(jax.random.key(config.seed), "model"), plan.recipe, plan.train)


run = runner.Experiment("train", prepare, work, follow)
