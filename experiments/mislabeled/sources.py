"""Step 1 of the mislabelled-data experiment: trains the standard and the robust network."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data
from advfeat.attacks.ensemble import ensemble
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory
from advfeat.runs.files import read_arrays
from advfeat.types import ModelFn

from ..shared import networks
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
    return Sources(
        standard=standards[0],
        attacked=ensemble(*standards),
        robust=robust,
        clean={name: advfeat.correct(fn, *plan.evaluation) for name, fn in both.items()},
        standing={name: _standing(config, plan, run, name, fn) for name, fn in both.items()},
    )


def _standing(config: Config, plan: Plan, run: RunDirectory, name: str, fn: ModelFn) -> np.ndarray:
    """Returns whether M evaluation images are correct under PGD at each eps, `[E, M]`."""
    path = run.arrays_path(f"measured/{name}")
    if path.exists():
        return read_arrays(path)["robust"]
    images, labels = _some(config, plan)
    total = len(images) * sum(eps > 0 for eps in plan.eps_grid)
    norm, steps = plan.threat.norm, 1 if config.dry_run else config.eval_steps
    with tqdm(total=total, desc=f"PGD on the {name} network", unit="image") as bar:
        sweep = advfeat.evaluate_epsilons(
            stream(jax.random.key(config.seed), f"pgd/{name}"),
            lambda eps: advfeat.pgd(advfeat.threat_model(norm, eps), steps=steps),
            fn,
            images,
            labels,
            plan.eps_grid,
            batch_size=config.attack_batch_size,
            advance=bar.update,
        )
    provenance = {"network": name, "attack": f"PGD, {steps} steps", "norm": norm.name}
    run.save_arrays(
        f"measured/{name}", {"epsilons": sweep.epsilons, "robust": sweep.robust}, provenance
    )
    return sweep.robust


def _some(config: Config, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    images, labels = plan.evaluation
    rows = data.draw_rows(labels, config.eval_examples, seed=config.seed)
    return images[rows], labels[rows]
