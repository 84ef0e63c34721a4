"""Step 1 of the mislabelled-data experiment: trains the standard and the robust network."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

import advfeat
from advfeat import data
from advfeat.attacks.ensemble import ensemble
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory
from advfeat.types import ModelFn

from ..shared import networks
from ..shared.eps_sweep import pgd_sweep
from ..shared.recipes import Recipe
from .plan import Config, Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """The networks that build the sets and predict their images.

    Attributes:
      standard: the standard network (the first of an ensemble).
      attacked: the network that is attacked to build the sets: the standard one, or the ensemble.
      robust: the independently trained robust network.
      clean: network name to `[N]` bool, correct on the evaluation images.
      standing: network name to `[E, M]` bool, correct at each eps on the images drawn for the
        sweep.
    """

    standard: ModelFn
    attacked: ModelFn
    robust: ModelFn
    clean: dict[str, np.ndarray]
    standing: dict[str, np.ndarray]


def sources(config: Config, plan: Plan, run: RunDirectory) -> Sources:
    """Trains (or loads) the standard and the robust network, and measures both over eps."""
    root = jax.random.key(config.seed)

    def make(name: str, recipe: Recipe) -> ModelFn:
        key = stream(root, name)
        made = networks.train(run, name, key, recipe, plan.train, held_out=plan.held_out)
        return made.model_fn()

    if plan.given_source is not None:
        standards = [plan.given_source.model_fn()]
    else:
        names = ["standard"] + [f"standard_{i}" for i in range(1, plan.sources)]
        standards = [make(name, plan.source) for name in names]
    if plan.given_robust is not None:
        robust = plan.given_robust.model_fn()
    else:
        robust = make("robust", plan.robust)
    both = {"standard": standards[0], "robust": robust}
    measured = {name: _measured(config, plan, run, name, fn) for name, fn in both.items()}
    return Sources(
        standard=standards[0],
        attacked=ensemble(*standards),
        robust=robust,
        clean={name: found["clean"] for name, found in measured.items()},
        standing={name: found["robust"] for name, found in measured.items()},
    )


def _measured(
    config: Config, plan: Plan, run: RunDirectory, name: str, fn: ModelFn
) -> dict[str, np.ndarray]:
    """Returns which evaluation images are correct: "clean" `[N]`, under PGD "robust" `[E, M]`."""

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        norm, steps = plan.threat.norm, config.eval_steps
        sweep = pgd_sweep(
            stream(jax.random.key(config.seed), f"pgd/{name}"),
            fn,
            *_some(config, plan),
            plan.eps_grid,
            norm=norm,
            steps=steps,
            batch_size=config.attack_batch_size,
            desc=f"PGD on the {name} network",
        )
        about = {"network": name, "attack": f"PGD, {steps} steps", "norm": norm.name}
        clean = advfeat.correct(fn, *plan.evaluation)
        return {"epsilons": sweep.epsilons, "robust": sweep.robust, "clean": clean}, about

    return run.cached(f"measured/{name}", measure)


def _some(config: Config, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    images, labels = plan.evaluation
    rows = data.draw_rows(labels, config.eval_examples, seed=config.seed)
    return images[rows], labels[rows]
