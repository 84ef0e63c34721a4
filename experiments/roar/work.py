"""Runs `experiments.roar`: ranks pixels, removes them and retrains networks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import correct, data, stats
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.saliency import mean_pixel, removed, title_of

from ..shared import networks, sweeps
from ..shared.sweeps import Points
from . import report
from .flags import Config
from .plan import CONTROLS, RANDOM, Plan, prepare, shown_rows
from .ranking import ranking_of


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Trains, ranks, removes, retrains and reports."""
    root = jax.random.key(config.seed)
    names = (*config.methods, *CONTROLS)
    seeds = range(config.seeds)
    epochs = (1 + len(names) * len(plan.shares) * len(seeds)) * plan.recipe.config.epochs
    shown: dict[str, np.ndarray] = {}
    hits: dict[tuple[str, float], np.ndarray] = {}
    with tqdm(total=epochs, desc="networks", unit="epoch") as bar:
        network = networks.train(
            run, "whole", stream(root, "whole"), plan.recipe, plan.train, advance=bar.update
        )
        mean = mean_pixel(plan.train.image)
        for name in names:  # one at a time: maps of a whole training set are large
            before = functools.cache(partial(_rankings, config, plan, network, name))
            shown[name] = run.cached(f"shown/{name}", partial(_shown, config, plan, before))["rank"]
            for share in plan.shares:
                hits[name, share] = np.array(
                    [
                        _retrained(config, plan, run, before, (name, share, seed), mean, bar)
                        for seed in seeds
                    ]
                )
    whole = Points.of(plan.test, 0, config.seed)
    clean = run.cached(
        "measured/whole",
        lambda: ({"clean": correct(network.model_fn(), whole.image, whole.label)}, {}),
    )["clean"]
    summary = summarise(config, plan, clean, hits)
    return runner.reported(run, summary, lambda: report.write(config, plan, run, summary, shown))


def _rankings(config: Config, plan: Plan, network: Network, name: str) -> list[np.ndarray]:
    """Ranks the pixels of training and test images; cached by the caller until the next method."""
    return [ranking_of(config, plan, network, part, name) for part in (plan.train, plan.test)]


def _shown(
    config: Config, plan: Plan, before: Callable[[], list[np.ndarray]]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return {"rank": before()[1][shown_rows(config, plan)]}, {}


def _retrained(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    before: Callable[[], list[np.ndarray]],
    which: tuple[str, float, int],
    mean: np.ndarray,
    bar: Any,
) -> np.ndarray:
    """Retrains one network without pixels; returns which test images it gets right without them."""
    name, share, seed = which

    def without() -> tuple[data.Split, Points]:
        train, test = (
            dataclasses.replace(split, image=removed(split.image, rankings, share, mean))
            for split, rankings in zip((plan.train, plan.test), before(), strict=True)
        )
        return train, Points(data.unit(test.image), test.label)

    return sweeps.clean_hits(
        config,
        run,
        f"{name}_{share:g}_{seed}",
        plan.recipe,
        without,
        advance=bar.update,
    )


def summarise(
    config: Config, plan: Plan, clean: np.ndarray, hits: dict[tuple[str, float], np.ndarray]
) -> dict[str, Any]:
    """Returns accuracy by method and share, areas under the curves, and a claim per method."""
    names = (*config.methods, *CONTROLS)
    # `[S, N]`: the fraction of the shares at which an image is classified correctly.
    means = {name: np.mean([hits[name, share] for share in plan.shares], axis=0) for name in names}
    areas = {name: stats.rate(array) for name, array in means.items()}
    claims = [
        stats.claim(
            f"Without the pixels that {title_of(name)} ranks first, networks err more "
            "often than without pixels drawn at random (mean error over the shares).",
            areas[name].complement(),
            areas[RANDOM].complement(),
            paired=stats.difference(1.0 - means[name], 1.0 - means[RANDOM]),
        )
        for name in config.methods
    ]
    return {
        "dataset": config.dataset,
        "seeds": config.seeds,
        "train_examples": len(plan.train),
        "evaluation_examples": len(plan.test),
        "recipe": plan.recipe.summary(),
        "shares": list(plan.shares),
        "whole": stats.rate(clean),
        "accuracy": {
            name: [stats.rate(hits[name, share]) for share in plan.shares] for name in names
        },
        "mean_accuracy": areas,
        "claims": runner.judged(claims, config),
    }


run = runner.Experiment("roar", prepare, work)
