"""Summarises `experiments.synthesis`: quality with intervals, and claims."""

from __future__ import annotations

from typing import Any

import numpy as np

import advfeat
from advfeat import stats
from advfeat.evaluation.prediction import predict
from advfeat.features.tasks import Task
from advfeat.images import quality
from advfeat.runs import runner
from advfeat.stats import Estimate

from .flags import Config
from .plan import RESTORED, Plan


def measured(plan: Plan, drawn: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Asks the networks about the pictures.

    Args:
      plan: the networks, tasks and images.
      drawn: pictures by task and network.

    Returns:
      "read" by judge, task and maker `[N]` bool, whether the judge reads the target class; "own",
      the same of each network itself; "real" by judge, of real images; "features" of the last
      judge by kind of picture `[N, D]`, with "others", for distances (empty without a judge).
    """
    read = {
        judge: {
            task: {
                name: advfeat.correct(network.model_fn(), images, plan.tasks[task].labels)
                for name, images in {**found, "start": plan.tasks[task].starts}.items()
            }
            for task, found in drawn.items()
        }
        for judge, network in plan.judges.items()
    }
    own = {
        task: {
            name: advfeat.correct(plan.networks[name].model_fn(), images, plan.tasks[task].labels)
            for name, images in found.items()
        }
        for task, found in drawn.items()
    }
    real = {
        judge: advfeat.correct(network.model_fn(), plan.images, plan.labels)
        for judge, network in plan.judges.items()
    }
    return {"read": read, "own": own, "real": real, "features": _features(plan, drawn)}


def _features(plan: Plan, drawn: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not plan.judges or "generation" not in drawn:
        return {}
    fn = list(plan.judges.values())[-1].model_fn("representation")
    seeds = plan.tasks["generation"].starts
    sets = {**drawn["generation"], "seeds": seeds, "real": plan.images, "others": plan.others}
    return {which: predict(fn, images) for which, images in sets.items()}


def summarise(
    config: Config,
    plan: Plan,
    drawn: dict[str, dict[str, np.ndarray]],
    numbers: dict[str, Any],
) -> dict[str, Any]:
    """Returns the summary: numbers (of `measured`) with intervals, and claims."""
    read, own = numbers["read"], numbers["own"]
    claims = []
    for judge, found in read.items():
        for task, hits in found.items():
            claims.append(
                stats.claim(
                    f"{task.capitalize()}: {judge.replace('_', ' ')} reads the class in the robust "
                    "network's pictures more often than in the standard network's.",
                    stats.rate(hits["robust"]),
                    stats.rate(hits["standard"]),
                    paired=stats.difference(hits["robust"], hits["standard"]),
                )
            )
    return {
        "dataset": config.dataset,
        "images": len(plan.images),
        "steps": plan.steps,
        "tasks": {
            task: {"eps": plan.tasks[task].eps, "step_size": plan.tasks[task].step_size}
            for task in plan.tasks
        },
        "own": _rates(own),
        "read": {judge: _rates(found) for judge, found in read.items()},
        "judges_on_real": {judge: stats.rate(hits) for judge, hits in numbers["real"].items()},
        "spread": _spread(plan, numbers["features"]),
        "restored": {
            task: _restored(plan.tasks[task], found)
            for task, found in drawn.items()
            if task in RESTORED
        },
        "claims": runner.judged(claims, config),
    }


def _rates(found: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    return {
        task: {name: stats.rate(hits) for name, hits in parts.items()}
        for task, parts in found.items()
    }


def _spread(plan: Plan, features_of: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns Fréchet distances to other real images, and diversity, by the last judge."""
    if not features_of:
        return {}
    sets = dict(features_of)
    real = sets.pop("others")
    found: dict[str, Any] = {"judge": list(plan.judges)[-1]}
    for which, features in sets.items():
        found[which] = {
            "frechet": stats.of_set(
                lambda part: quality.frechet_distance(part, real), features, limits=(0.0, np.inf)
            ),
            "diversity": stats.of_set(
                quality.mean_pairwise_distance, features, limits=(0.0, np.inf)
            ),
        }
    return found


def _restored(task: Task, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns PSNR and SSIM against the originals: of the networks, the start and the controls.

    An image equal to its original has no finite PSNR: such images are counted and excluded.
    """
    sets = {**found, task.start_is: task.starts, **task.controls}
    return {name: _against(images, task.originals) for name, images in sets.items()}


def _against(images: np.ndarray, originals: np.ndarray) -> dict[str, Any]:
    pairs = list(zip(images, originals, strict=True))
    psnr = np.array([quality.psnr(*pair) for pair in pairs])
    differ = np.array([not np.array_equal(*pair) for pair in pairs])
    found: Estimate | None = stats.mean(psnr[differ]) if differ.any() else None
    return {
        "psnr": found,
        "equal": int((~differ).sum()),
        "ssim": stats.mean([quality.ssim(*pair) for pair in pairs], limits=stats.CORRELATION),
    }
