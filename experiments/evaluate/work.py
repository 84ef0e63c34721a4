"""Runs `experiments.evaluate`: attacks a network with a suite, checks the result and reports."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

import advfeat
from advfeat.attacks.keeping import by_score
from advfeat.keys import stream
from advfeat.rows import draw_rows
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.runs.journal import Journal

from ..shared.eps_sweep import by_eps, pgd_sweep
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
            checks=config.checks,
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
    norm, steps = plan.threat.norm, 2 if config.dry_run else 20  # --steps is the suite's
    if not config.curves or not np.isfinite(eps) or eps == 0:
        return {}
    grid = [eps * share for share in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)]
    where = {"images": images, "labels": labels, "batch_size": config.batch_size}
    sweep = pgd_sweep(key, fn, grid=grid, norm=norm, steps=steps, desc="curves", **where)
    attack = advfeat.pgd(plan.threat, steps=2 * steps, keep=by_score)
    by_step = advfeat.best_score_curve(key, attack, fn, **where)
    return {
        "examples": len(labels),
        "accuracy_by_eps": by_eps(grid, sweep.robust),
        "loss_by_step": [float(value) for value in by_step.mean(axis=0)],
    }


run = runner.Experiment("evaluate", prepare, work)
