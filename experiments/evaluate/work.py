"""Runs `experiments.evaluate`: attacks a network with a suite, checks the result and reports."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import stats
from advfeat.attacks.keeping import by_score
from advfeat.keys import stream
from advfeat.rows import draw_rows
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.runs.journal import Journal
from advfeat.threats.balls import threat_model

from . import report
from .flags import Config
from .plan import Plan, prepare


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Attacks, checks the result and reports."""
    fn = plan.network.model_fn()
    root = jax.random.key(config.seed)
    with Journal(run, plan.fingerprint) as journal:
        result = advfeat.evaluate(
            stream(root, "suite"),
            fn,
            plan.images,
            plan.labels,
            threat=plan.threat,
            suite=plan.suite,
            sequential=not config.each,
            batch_size=config.batch_size,
            ids=plan.ids,
            checks=config.checks and not config.dry_run,
            **journal.hooks(),
        )
        seconds = journal.seconds()
    attacks = [
        dataclasses.replace(part, seconds=seconds.get(part.name, part.seconds))
        for part in result.attacks
    ]
    result = dataclasses.replace(result, attacks=tuple(attacks))
    print(result)
    run.save_arrays(
        "adversarial",
        {
            "image": plan.images,
            "label": plan.labels,
            "id": plan.ids,
            "adversarial": result.adversarial,
            "clean": result.clean,
            "robust": result.robust,
            "fooled_by": result.fooled_by,
            "distance": result.distance,
        },
        {
            "checkpoint": config.checkpoint,
            "threat": {"norm": config.norm, "eps": config.eps},
            "attacks": [part.name for part in result.attacks],
            "fooled_by": "place in attacks; -1: stands, -2: wrong without an attack",
        },
    )
    summary = {
        "dataset": config.dataset,
        "norm": config.norm,
        "eps": config.eps,
        "num_examples": len(plan.labels),
        "suite": result.suite,
        "clean_accuracy": result.clean_accuracy,
        "robust_accuracy": result.robust_accuracy,
        "attacks": {
            part.name: {
                "robust_accuracy": part.robust_accuracy,
                "tried": int(part.tried.sum()),
                "fooled": int(part.fooled.sum()),
                "forward_passes": part.forward_passes,
                "gradients": part.gradients,
                "seconds": part.seconds,
            }
            for part in result.attacks
        },
        "trusted": result.trusted,
        "warnings": [warned._asdict() for warned in result.warnings],
        "curves": _curves(config, plan, fn),
        "claims": [],
    }
    report.write(config, plan, run, result, summary)
    return summary


def _curves(config: Config, plan: Plan, fn: advfeat.ModelFn) -> dict[str, Any]:
    """Measures accuracy against eps, and highest loss so far against steps, on some images."""
    rows = draw_rows(plan.labels, config.sweep_examples, seed=config.seed)
    images, labels = plan.images[rows], plan.labels[rows]
    key, eps = stream(jax.random.key(config.seed), "curves"), float(plan.threat.eps)
    norm, steps = plan.threat.norm, 2 if config.dry_run else 20
    if not config.curves or not np.isfinite(eps) or eps == 0:
        return {}
    grid = [eps * share for share in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)]
    with tqdm(total=len(grid) * len(labels), desc="curves", unit="image") as bar:
        sweep = advfeat.evaluate_epsilons(
            key,
            lambda e: advfeat.pgd(threat_model(norm, e), steps=steps),
            fn,
            images,
            labels,
            grid,
            batch_size=config.batch_size,
            advance=bar.update,
        )
        by_step = advfeat.best_score_curve(
            key,
            advfeat.pgd(plan.threat, steps=2 * steps, keep=by_score),
            fn,
            images,
            labels,
            batch_size=config.batch_size,
        )
        bar.update(len(labels))
    return {
        "examples": len(labels),
        "accuracy_by_eps": [
            {"eps": e, "accuracy": stats.rate(row)}
            for e, row in zip(grid, sweep.robust, strict=True)
        ],
        "best_score_curve": [float(value) for value in by_step.mean(axis=0)],
    }


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="evaluate")
