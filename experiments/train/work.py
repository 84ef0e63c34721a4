"""Runs `experiments.train`: trains one network, measures it clean and under PGD, and reports."""

from __future__ import annotations

from typing import Any

import jax
from tqdm import tqdm

import advfeat
from advfeat import data, stats
from advfeat.keys import stream
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared import networks
from . import report
from .flags import Config
from .plan import Plan, prepare


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, measures and reports."""
    root = jax.random.key(config.seed)
    for note in plan.notes:
        print(note)
    network = networks.train(
        run, "model", stream(root, "model"), plan.recipe, plan.train, held_out=plan.held_out
    )
    fn, test = network.model_fn(), plan.dataset.test
    images, labels = data.unit(test.image), test.label
    clean = stats.rate(advfeat.correct(fn, images, labels))
    some = data.subset(test, 50 if config.dry_run else config.eval_examples, seed=config.seed)
    steps = 1 if config.dry_run else config.eval_steps
    with tqdm(total=len(some) * sum(e > 0 for e in plan.eps_grid), desc="PGD", unit="image") as bar:
        sweep = advfeat.evaluate_epsilons(
            stream(root, "evaluation"),
            lambda eps: advfeat.pgd(advfeat.threat_model(config.norm, eps), steps=steps),
            fn,
            data.unit(some.image),
            some.label,
            plan.eps_grid,
            batch_size=config.attack_batch_size,
            advance=bar.update,
        )
    by_eps = [
        {"eps": float(eps), "accuracy": stats.rate(row)}
        for eps, row in zip(sweep.epsilons, sweep.robust, strict=True)
    ]
    summary = {
        "dataset": config.dataset,
        "classes": list(plan.dataset.class_names),
        "objective": config.objective,
        "norm": config.norm,
        "eps": plan.eps,
        "clean_accuracy": clean,
        "robust_accuracy": by_eps[plan.eps_grid.index(plan.eps)]["accuracy"],
        "accuracy_by_eps": by_eps,
        "training": {"epochs": plan.recipe.how.epochs, **_made(plan, network.record)},
        "notes": list(plan.notes),
        "evaluation": {"attack": "PGD", "steps": steps, "examples": len(some)},
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))),
        "claims": [],
    }
    report.write(config, plan, run, summary)
    return summary


def _made(plan: Plan, record: dict[str, Any]) -> dict[str, Any]:
    """Returns how the network was trained, and which of its epochs was kept."""
    fields = (
        "objective",
        *plan.recipe.numbers,
        "label_smoothing",
        "awp",
        "ema",
        "swa",
        "selection",
    )
    return {name: record[name] for name in fields if name in record}


def follow(config: Config, plan: Plan) -> None:
    """Takes part in a distributed training as one of the other processes."""
    networks.follow(stream(jax.random.key(config.seed), "model"), plan.recipe, plan.train)


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="train", follow=follow)
