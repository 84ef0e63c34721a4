"""Runs `experiments.sanity`: trains on true and permuted labels, compares the maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import correct, data, saliency, stats
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.saliency import title_of

from ..shared import networks, sweeps
from ..shared.kept import kept
from ..shared.words import capital
from . import report
from .flags import Config
from .plan import KINDS, PAIRS, Plan, prepare

Likeness = dict[str, dict[str, dict[str, np.ndarray]]]
"""Measure, pair and method -> `[seeds, N]`."""


def training_set(config: Config, plan: Plan, kind: str, seed: int) -> data.Split:
    """Returns the training images with the labels of a kind of network."""
    if kind != "permuted":
        return plan.train
    rng = np.random.default_rng(sweeps.seed_of(config, seed))
    return dataclasses.replace(plan.train, label=rng.permutation(plan.train.label))


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Trains, computes maps, compares and reports."""
    seeds = range(config.seeds)
    root = jax.random.key(config.seed)
    found: dict[str, list[dict[str, np.ndarray]]] = {kind: [] for kind in KINDS}
    learned: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    tested: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    total = len(KINDS) * len(seeds) * plan.recipe.config.epochs
    with tqdm(total=total, desc="networks", unit="epoch") as bar:
        for kind in KINDS:
            for seed in seeds:
                name = f"{kind}_{seed}"
                train = training_set(config, plan, kind, seed)
                network = networks.train(
                    run, name, stream(root, name), plan.recipe, train, advance=bar.update
                )
                hits = run.cached(f"measured/{name}", partial(_hits, plan, network, train))
                learned[kind].append(hits["learned"])
                tested[kind].append(hits["tested"])
                found[kind].append(
                    run.cached(f"maps/{name}", partial(_maps, config, plan, network))
                )
    alike = kept(run, "measured/likeness", lambda: likeness(config, found))
    summary = summarise(config, plan, alike, learned, tested)
    first = {kind: maps[0] for kind, maps in found.items()}
    return runner.reported(run, summary, lambda: report.write(config, plan, run, summary, first))


def _hits(
    plan: Plan, network: Network, train: data.Split
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    fn, test = network.model_fn(), plan.dataset.test
    hits = {
        "learned": correct(fn, data.unit(train.image), train.label),
        "tested": correct(fn, data.unit(test.image), test.label),
    }
    return hits, {}


def _maps(
    config: Config, plan: Plan, network: Network
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    key, options = jax.random.key(config.seed), plan.options
    maps = saliency.maps(key, config.methods, network, plan.images, plan.labels, options=options)
    return maps, {"labels": plan.labels.tolist()}


def likeness(config: Config, found: dict[str, list[dict[str, np.ndarray]]]) -> Likeness:
    """Measures the similarity of the two kinds' maps and of the controls, per image."""
    compare = {
        "rank_correlation": saliency.rank_correlation,
        "ssim": saliency.picture_likeness,
    }
    found = {
        **found,
        "unrelated": [
            {method: np.roll(values, 1, axis=0) for method, values in maps.items()}
            for maps in found["true"]
        ],
    }
    return {
        measure: {
            pair: {
                method: np.array(
                    [
                        [fn(a, b) for a, b in zip(one[method], other[method], strict=True)]
                        for one, other in zip(found["true"], found[pair], strict=True)
                    ]
                )
                for method in config.methods
            }
            for pair in PAIRS
        }
        for measure, fn in compare.items()
    }


def summarise(
    config: Config,
    plan: Plan,
    alike: Likeness,
    learned: dict[str, list[np.ndarray]],
    tested: dict[str, list[np.ndarray]],
) -> dict[str, Any]:
    """Returns means with intervals, and a claim for each method."""

    ranks = alike["rank_correlation"]
    claims = [
        stats.claim(
            f"{capital(title_of(method))} maps of networks that learned other labels "
            "are less alike than those of two networks that learned the same (rank correlation).",
            stats.mean(ranks["again"][method], limits=stats.CORRELATION),
            stats.mean(ranks["permuted"][method], limits=stats.CORRELATION),
            paired=stats.mean(ranks["again"][method] - ranks["permuted"][method]),
            margin=stats.SMALL,
        )
        for method in config.methods
    ]
    return {
        "dataset": config.dataset,
        "seeds": config.seeds,
        "images": len(plan.images),
        "train_examples": len(plan.train),
        "recipe": plan.recipe.summary(),
        "learned": {kind: stats.rate(np.array(hits)) for kind, hits in learned.items()},
        "test_accuracy": {kind: stats.rate(np.array(hits)) for kind, hits in tested.items()},
        "likeness": {
            measure: {
                pair: {
                    method: stats.mean(values, limits=stats.CORRELATION)
                    for method, values in methods.items()
                }
                for pair, methods in pairs.items()
            }
            for measure, pairs in alike.items()
        },
        "claims": runner.judged(claims, config),
    }


run = runner.Experiment("sanity", prepare, work)
