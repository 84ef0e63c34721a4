"""Step 3 of the mislabelled-data experiment: trains fresh networks on every set."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data
from advfeat.features.mislabeled import ConstructedSet
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory

from ..shared import networks
from .plan import Config, Plan
from .sets import Sets


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreshResult:
    """Results of the fresh networks of one training set, one row per seed.

    Attributes:
      hits: `[seeds, N]` bool, correct by the ORIGINAL label on the evaluation images.
      hits_next: `[seeds, N]` bool, correct by the next label (y + 1), which is D_det's label for
        the class that a person sees.
      curve: `[seeds, epochs]`, accuracy on the held-out original images after each epoch.
      fitted: `[seeds]`, final accuracy on the training set's own labels.
    """

    hits: np.ndarray
    hits_next: np.ndarray
    curve: np.ndarray
    fitted: np.ndarray


def fresh(
    config: Config, plan: Plan, run: RunDirectory, sets: Sets
) -> dict[tuple[str, str], FreshResult]:
    """Trains fresh networks on every set and its controls: (variant, control or "") -> result."""
    total = len(sets.training) * config.seeds * plan.fresh.config.epochs
    results = {}
    with tqdm(total=total, desc="fresh networks", unit="epoch") as bar:
        for (variant, control), make in sets.training.items():
            made = make()
            rows = [
                _one(config, plan, run, f"{variant}_{control or 'itself'}_{seed}", made, bar)
                for seed in range(config.seeds)
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
    """Trains one fresh network; stores its predictions, and the network unless it is a control."""
    epochs = plan.fresh.config.epochs

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        network = networks.train(
            run,
            name,
            stream(jax.random.key(config.seed), f"fresh/{name}"),
            plan.fresh,
            data.Split(made.image, made.label, made.id),
            held_out=plan.held_out,
            keep="_itself_" in name,
            advance=bar.update,
        )
        images, labels = plan.evaluation
        predicted = np.argmax(advfeat.predict(network.model_fn(), images), axis=1)
        lines = run.metrics(f"train/{name}")
        arrays = {
            "prediction": predicted.astype(np.int32),
            "hits": predicted == labels,
            "hits_next": predicted == (labels + 1) % plan.dataset.num_classes,
            "curve": _curve(lines, epochs),
            "fitted": np.float32(lines[-1]["accuracy"]),
        }
        return arrays, {"network": name, "on": config.evaluate_on}

    done = partial(bar.update, epochs)
    return run.cached(f"predictions/{name}", measure, found=done)


def _curve(lines: list[dict[str, Any]], epochs: int) -> np.ndarray:
    """Returns held-out accuracy by epoch; NaN if a kill left no log entry."""
    curve = np.full(epochs, np.nan, np.float32)
    for line in lines:
        curve[int(line["step"]) - 1] = line["held_out_accuracy"]
    return curve
