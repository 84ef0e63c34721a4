"""Runs `experiments.evaluate`: attacks a network with a suite, checks the result and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import advfeat
from advfeat.attacks.keeping import by_score
from advfeat.evaluation.result import SuiteResult
from advfeat.keys import stream
from advfeat.rows import draw_rows
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.runs.pieces import joined

from ..shared.eps_sweep import by_eps, pgd_sweep
from ..shared.kept import kept
from . import report
from .flags import Config
from .plan import Plan, prepare


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Attacks, checks the result and reports."""
    problem = plan.problem(config)
    others = problem.verdicts(run, plan.rest)
    first = problem.first(run, plan.images, plan.labels, plan.ids, checks=config.checks)
    result = joined(first, others)
    print(result)
    about = {
        "checkpoint": config.checkpoint,
        "threat": {"norm": config.norm, "eps": config.eps},
        "attacks": [part.name for part in result.attacks],
        "fooled_by": "place in attacks; -1: stands, -2: wrong without an attack",
    }
    run.save_arrays(
        "adversarial",
        {
            "image": plan.images,
            "label": plan.labels,
            "id": plan.ids,
            "adversarial": first.adversarial,
            **_by_image(first),
        },
        about,
    )
    if others:
        pieces = [(plan.labels, plan.ids), *((piece.label, piece.id) for piece in plan.rest)]
        labels, ids = (np.concatenate(column) for column in zip(*pieces, strict=True))
        run.save_arrays("verdicts", {"label": labels, "id": ids, **_by_image(result)}, about)
    summary = {
        "dataset": config.dataset,
        "norm": config.norm,
        "eps": config.eps,
        "num_examples": len(result.clean),
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
        "curves": _curves_of(config, plan, run, problem.model_fn),
        "claims": [],
    }
    return runner.reported(run, summary, lambda: report.write(config, plan, run, first, summary))


def _by_image(result: SuiteResult) -> dict[str, np.ndarray]:
    shares = ("clean_share", "robust_share") if result.looks > 1 else ()  # of a random network
    names = ("clean", "robust", *shares, "fooled_by", "distance")
    return {name: getattr(result, name) for name in names}


def _curves_of(
    config: Config, plan: Plan, run: RunDirectory, fn: advfeat.ModelFn
) -> dict[str, Any]:
    """Returns the summary's curves."""
    if not _wanted(config, plan):
        return {}
    found = kept(run, "measured/curves", lambda: _curves(config, plan, fn))
    return {
        "examples": found["robust"].shape[1],
        "accuracy_by_eps": by_eps(found["eps"], found["robust"]),
        "loss_by_step": found["loss"].mean(axis=0).tolist(),
    }


def _wanted(config: Config, plan: Plan) -> bool:
    eps = float(plan.threat.eps)
    return config.curves and np.isfinite(eps) and eps > 0


def _curves(config: Config, plan: Plan, fn: advfeat.ModelFn) -> dict[str, Any]:
    """Measures accuracy against eps, and highest loss so far against steps, on some images.

    Returns:
      "eps" `[E]`, "robust" `[E, N]` and "loss" `[N, S]`; nothing if no curve was asked for.
    """
    rows = draw_rows(plan.labels, config.sweep_examples, seed=config.seed)
    images, labels = plan.images[rows], plan.labels[rows]
    key, eps = stream(jax.random.key(config.seed), "curves"), float(plan.threat.eps)
    norm, steps = plan.threat.norm, 2 if config.dry_run else 20  # --attack_steps is the suite's
    if not _wanted(config, plan):
        return {}
    grid = [eps * share for share in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)]
    where = {"images": images, "labels": labels, "batch_size": config.attack_batch_size}
    sweep = pgd_sweep(key, fn, grid=grid, norm=norm, steps=steps, desc="curves", **where)
    attack = advfeat.pgd(plan.threat, steps=2 * steps, keep=by_score)
    by_step = advfeat.best_score_curve(key, attack, fn, **where)
    return {"eps": np.array(grid), "robust": sweep.robust, "loss": by_step}


run = runner.Experiment("evaluate", prepare, work)
