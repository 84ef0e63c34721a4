"""Runs `experiments.defences`: trains networks, evaluates and checks every defence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat.evaluation import broken_defences
from advfeat.evaluation.robust_accuracy import evaluate
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.runs.verdicts import packed, unpacked
from advfeat.types import Array, ModelFn

from ..shared import networks
from ..shared.recipes import Recipe
from . import report
from .flags import Config
from .plan import PLAIN, ROBUST, Plan, prepare
from .summary import Verdict, summarise


def _affine(weights: Mapping[str, Array], x: Array) -> Array:
    return x @ weights["kernel"] + weights["bias"]


def halves(network: Network) -> broken_defences.Halves:
    """Cuts a network before its last layer."""
    head = jax.tree_util.Partial(_affine, network.variables["params"]["classifier"])
    return broken_defences.Halves(network.model_fn("representation"), head)


def _subjects(config: Config, plan: Plan, run: RunDirectory) -> dict[str, ModelFn]:
    """Returns every network by name, trained unless the run already holds it."""
    root, split = jax.random.key(config.seed), plan.dataset.train

    def made(name: str, recipe: Recipe) -> broken_defences.Halves:
        return halves(networks.train(run, name, stream(root, name), recipe, split))

    members = [made(f"standard_{index}", plan.standard) for index in range(3)]
    honest = broken_defences.Honest(
        network=members[0],
        members=members,
        images=plan.images,
        levels=255 if plan.dataset.test.image.dtype == np.uint8 else 16,
    )
    return {
        PLAIN: members[0],
        ROBUST: made("adversarial", plan.robust),
        **{name: broken_defences.DEFENCES[name](honest) for name in plan.defences},
    }


def _family(config: Config, plan: Plan, run: RunDirectory) -> dict[str, ModelFn]:
    """Returns every network as one family of functions, so that attacks compile once for all."""
    subjects = _subjects(config, plan, run)
    return dict(zip(subjects, broken_defences.one_of(list(subjects.values())), strict=True))


def _attacked(
    config: Config, plan: Plan, name: str, family: Callable[[], dict[str, ModelFn]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attacks one network by FGSM and by the suite, and checks it; the images are not kept."""
    key, fn = stream(jax.random.key(config.seed), "attacks"), family()[name]
    images, labels = plan.images, plan.labels
    where: dict[str, Any] = {"threat": plan.threat, "batch_size": config.attack_batch_size}
    weak = evaluate(key, fn, images, labels, suite=["fgsm"], checks=False, **where)
    strong = evaluate(
        key, fn, images, labels, suite=plan.attack, checks=not config.dry_run, **where
    )
    found = Verdict.of(weak, strong)
    return {"clean": found.clean, "fgsm": found.fgsm, **packed(strong)}, {"network": name}


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Trains, attacks every network twice, checks and reports."""
    family = functools.cache(partial(_family, config, plan, run))
    verdicts = {}
    for name in tqdm((PLAIN, ROBUST, *plan.defences), desc="defences", unit="network"):
        measure = partial(_attacked, config, plan, name, family)
        saved = run.cached(f"verdicts/{name.replace(' ', '_')}", measure)
        strong = unpacked(saved, plan.threat, plan.images.shape[1:])
        verdicts[name] = Verdict(clean=saved["clean"], fgsm=saved["fgsm"], result=strong)
        run.log(len(verdicts), stage=f"defences/{name}", robust=strong.robust_accuracy.mean)
    summary = summarise(config, plan, verdicts)
    return runner.reported(run, summary, lambda: report.write(config, plan, run, summary))


run = runner.Experiment("defences", prepare, work)
