"""Steps 1 and 3 of the mislabelled-data experiment: the networks, and fresh ones on every set."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data
from advfeat.attacks.ensemble import ensemble
from advfeat.features.mislabeled import ConstructedSet
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory
from advfeat.runs.files import read_arrays
from advfeat.types import ModelFn
from experiments import networks
from experiments.mislabeled_plan import Config, Plan
from experiments.recipes import Recipe

if TYPE_CHECKING:
    from experiments.mislabeled_sets import Sets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """The networks that the sets are built with and read by.

    Attributes:
      standard: the standard network (an ensemble's first).
      attacked: what the sets are built from: the standard network, or the ensemble.
      robust: the independently trained robust network.
      clean: network name to `[N]` bool, correct on the evaluation images.
      standing: network name to `[E, M]` bool, correct at each eps on those drawn for the sweep.
    """

    standard: ModelFn
    attacked: ModelFn
    robust: ModelFn
    clean: dict[str, np.ndarray]
    standing: dict[str, np.ndarray]


def sources(config: Config, plan: Plan, run: RunDirectory) -> Sources:
    """Trains (or reads) the standard and the robust network and measures both over the grid."""
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
        clean={name: advfeat.accuracy(fn, *plan.evaluation) for name, fn in both.items()},
        standing={name: _standing(config, plan, run, name, fn) for name, fn in both.items()},
    )


def _standing(
    config: Config, plan: Plan, run: RunDirectory, name: str, fn: ModelFn
) -> np.ndarray:
    """`[E, M]`: which of M evaluation images the network gets right under PGD at each eps."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreshResult:
    """Fresh networks of one training set, one row per seed.

    Attributes:
      hits: `[seeds, N]` bool, right by the ORIGINAL label on the evaluation images.
      hits_next: `[seeds, N]` bool, right by the next label (y + 1): what D_det's labels say of
        everything that a person sees.
      curve: `[seeds, epochs]`, accuracy on the held-out original images after each epoch.
      fitted: `[seeds]`, accuracy on the training set's own labels at the end.
    """

    hits: np.ndarray
    hits_next: np.ndarray
    curve: np.ndarray
    fitted: np.ndarray


def fresh(
    config: Config, plan: Plan, run: RunDirectory, sets: Sets
) -> dict[tuple[str, str], FreshResult]:
    """Trains fresh networks on every set and its controls: (variant, control or "") -> result."""
    seeds = 1 if config.dry_run else config.seeds
    total = len(sets.training) * seeds * plan.fresh.how.epochs
    results = {}
    with tqdm(total=total, desc="fresh networks", unit="epoch") as bar:
        for (variant, control), make in sets.training.items():
            made = make()
            rows = [
                _one(config, plan, run, f"{variant}_{control or 'itself'}_{seed}", made, bar)
                for seed in range(seeds)
            ]
            results[variant, control] = FreshResult(
                hits=np.stack([row["hits"] for row in rows]),
                hits_next=np.stack([row["hits_next"] for row in rows]),
                curve=np.stack([row["curve"] for row in rows]),
                fitted=np.array([float(row["fitted"]) for row in rows]),
            )
    return results


def _one(
    config: Config, plan: Plan, run: RunDirectory, name: str, made: ConstructedSet, bar: Any
) -> dict[str, np.ndarray]:
    """One fresh network: its predictions are kept, and the network where it is no control."""
    path = run.arrays_path(f"predictions/{name}")
    if path.exists():
        bar.update(plan.fresh.how.epochs)
        return read_arrays(path)
    network = networks.train(
        run,
        name,
        stream(jax.random.key(config.seed), f"fresh/{name}"),
        plan.fresh,
        data.Split(made.image, made.label, made.id),
        held_out=plan.held_out,
        keep="_itself_" in name,
        on_epoch=bar.update,
    )
    images, labels = plan.evaluation
    predicted = np.argmax(advfeat.predict(network.model_fn(), images), axis=1)
    lines = run.metrics(f"train/{name}")
    arrays = {
        "prediction": predicted.astype(np.int32),
        "hits": predicted == labels,
        "hits_next": predicted == (labels + 1) % plan.dataset.num_classes,
        "curve": _curve(lines, plan.fresh.how.epochs),
        "fitted": np.float32(lines[-1]["accuracy"]),
    }
    run.save_arrays(f"predictions/{name}", arrays, {"network": name, "on": config.evaluate_on})
    return arrays


def _curve(lines: list[dict[str, Any]], epochs: int) -> np.ndarray:
    """Held-out accuracy by epoch; NaN where a kill left no line."""
    curve = np.full(epochs, np.nan, np.float32)
    for line in lines:
        curve[int(line["step"]) - 1] = line["held_out_accuracy"]
    return curve
