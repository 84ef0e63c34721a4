"""Runs `experiments.transfer_learning`: trains sources and transfers them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, stats
from advfeat.evaluation.prediction import predict
from advfeat.features.representations import linear_probe
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from ..shared import networks, sweeps
from ..shared.sweeps import Points
from . import report
from .flags import Config
from .plan import WAYS, Plan, prepare


def frozen_hits(network: Network, shots: data.Split, test: Points) -> np.ndarray:
    """Returns the hits `[N]` of a linear classifier on the frozen representation."""
    fn = network.model_fn("representation")
    probe = linear_probe(predict(fn, data.unit(shots.image)), shots.label)
    return np.asarray(probe(predict(fn, test.image)) == test.label)


def _frozen(
    network: Network, shots: data.Split, test: Points
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return {"clean": frozen_hits(network, shots, test)}, {}


def _own(plan: Plan, network: Network) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    test = plan.source.test
    hits = advfeat.correct(network.model_fn(), data.unit(test.image), test.label)
    return {"clean": hits}, {}


def _sets(shots: data.Split, points: Points) -> tuple[data.Split, Points]:
    return shots, points


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Trains, transfers and reports."""
    root, seeds = jax.random.key(config.seed), range(config.seeds)
    hits: dict[str, dict[str, list[np.ndarray]]] = {way: {} for way in WAYS}
    own: dict[str, list[np.ndarray]] = {}
    # One pass over both sets, the selection's first.
    points = Points(
        np.concatenate([plan.choice.image, plan.test.image]),
        np.concatenate([plan.choice.label, plan.test.label]),
    )
    per_seed = len(plan.eps) * (plan.standard.config.epochs + plan.tuned.config.epochs)
    total = len(seeds) * (per_seed + plan.tuned.config.epochs)
    with tqdm(total=total, desc="networks", unit="epoch") as bar:
        for seed in seeds:
            blank = Network(
                plan.standard.spec, plan.standard.variables(stream(root, f"blank_{seed}")), {}
            )
            starts: dict[str, Network | None] = {"none": None}
            for eps in plan.eps:
                name = f"source_{eps:g}_{seed}"
                recipe = sweeps.robust(config, plan.standard, "l2", eps)
                starts[f"{eps:g}"] = networks.train(
                    run, name, stream(root, name), recipe, plan.train, advance=bar.update
                )
            for name, start in starts.items():
                measure = partial(_frozen, start or blank, plan.shots[seed], points)
                found = run.cached(f"measured/frozen_{name}_{seed}", measure)
                hits["frozen"].setdefault(name, []).append(found["clean"])
                hits["fine-tuned"].setdefault(name, []).append(
                    sweeps.clean_hits(
                        config,
                        run,
                        f"tuned_{name}_{seed}",
                        dataclasses.replace(plan.tuned, start=start, start_name=name),
                        partial(_sets, plan.shots[seed], points),
                        advance=bar.update,
                    )
                )
                if start is not None:
                    found = run.cached(f"measured/own_{name}_{seed}", partial(_own, plan, start))
                    own.setdefault(name, []).append(found["clean"])
    summary = _summary(config, plan, hits, own)
    return runner.reported(run, summary, lambda: report.write(config, plan, run, summary))


def _summary(
    config: Config,
    plan: Plan,
    hits: dict[str, dict[str, list[np.ndarray]]],
    own: dict[str, list[np.ndarray]],
) -> dict[str, Any]:
    claims, best = [], {}
    choice, test = (
        {
            way: {name: np.array(rows)[:, part] for name, rows in found.items()}
            for way, found in hits.items()
        }
        for part in (slice(None, len(plan.choice)), slice(len(plan.choice), None))
    )
    for way in WAYS:
        robust = [name for name in test[way] if name not in ("none", "0")]
        names = stats.chosen_by_others({name: choice[way][name] for name in robust})
        mine = np.stack([test[way][name][seed] for seed, name in enumerate(names)])
        plain = test[way]["0"]
        best[way] = {"eps": [float(name) for name in names], "target_accuracy": stats.rate(mine)}
        claims.append(
            stats.claim(
                f"{way.capitalize()}: a robust source transfers better than the standard one (its "
                "eps chosen by the other seeds' networks, on held-out training images).",
                stats.rate(mine),
                stats.rate(plain),
                paired=stats.difference(mine, plain),
            )
        )
    return {
        "source": {"dataset": config.dataset, "classes": list(plan.source.class_names)},
        "target": {"dataset": config.target, "classes": list(plan.target.class_names)},
        "seeds": config.seeds,
        "train_examples": len(plan.train),
        "target_examples": len(plan.shots[0]),
        "evaluation_examples": len(plan.test),
        "recipe": {
            **plan.standard.summary(),
            "attack_steps": config.attack_steps,
            "eps_warmup": config.eps_warmup,
        },
        "eps": list(plan.eps),
        "choice_examples": len(plan.choice),
        "source_accuracy": {name: stats.rate(np.array(rows)) for name, rows in own.items()},
        "target_accuracy": {
            way: {name: stats.rate(rows) for name, rows in found.items()}
            for way, found in test.items()
        },
        "chosen": best,
        "claims": runner.judged(claims, config),
    }


run = runner.Experiment("transfer_learning", prepare, work)
