"""Code shared by the experiments that train many small networks: recipes, training, measurement.

Every network is trained and measured separately and its hits are stored in the run, so that a
killed run resumes with the networks that were not measured yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

import advfeat
from advfeat import data
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory
from advfeat.threats.balls import ThreatModel
from advfeat.training import TrainConfig
from advfeat.types import AttackFn

from . import networks
from .attacks import suite_for
from .flags.sweeps import SweepConfig, TrainingConfig
from .networks import spec_for
from .presets import Preset, chosen
from .recipes import Recipe

Hits = dict[str, np.ndarray]
"""Measurements of one network: name to `[N]` bool."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Images in [0, 1] and their labels."""

    image: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, split: data.Split, most: int, seed: int) -> Points:
        """Draws a stratified subset of a split with at most `most` images; 0 takes all."""
        part = data.subset(split, most, seed=seed)
        return cls(data.unit(part.image), part.label)

    def __len__(self) -> int:
        return len(self.label)


def training_images(config: TrainingConfig, dataset: data.Dataset, preset: Preset) -> data.Split:
    """Returns the training images."""
    most = chosen(config, preset, "train_examples")
    train = data.subset(dataset.train, most, seed=config.seed)
    if len(train) < 2 * dataset.num_classes:
        raise ValueError(
            f"flag --train_examples={len(train)}: must be at least {2 * dataset.num_classes}, two "
            "for each class"
        )
    return train


def recipe(config: TrainingConfig, dataset: data.Dataset, preset: Preset) -> Recipe:
    """Returns the recipe of a standard network; `robust` makes it adversarial."""
    model = chosen(config, preset, "model")
    width = config.width or (preset.width if model == preset.model else None)
    epochs = config.epochs or min(20, preset.robust_epochs)
    return Recipe(
        spec=spec_for(dataset, model, width=width, bfloat16=config.bfloat16),
        config=TrainConfig(
            epochs=epochs,
            batch_size=chosen(config, preset, "batch_size"),
            learning_rate=chosen(config, preset, "learning_rate"),
            weight_decay=config.weight_decay,
            augment=chosen(config, preset, "augment"),
        ),
    )


def train_eps(
    config: SweepConfig, given: tuple[float, ...] | None, shares: Sequence[float], usual: float
) -> tuple[float, ...]:
    """Returns the eps of training, ascending from 0.

    Args:
      config: the flags.
      given: the flag's values; None takes shares of the usual eps.
      shares: of the usual eps.
      usual: the usual eps.
    """
    grid = given or [float(f"{share * usual:.4g}") for share in shares]
    grid = sorted({0.0, *grid})
    # In a dry run the ends; as a smallest value of a flag, they would not follow the preset.
    return (grid[0], grid[-1]) if config.dry_run else tuple(grid)


def robust(config: SweepConfig, standard: Recipe, norm: str, eps: float) -> Recipe:
    """Returns the recipe with adversarial training; at eps 0 it is unchanged."""
    if eps == 0:
        return standard
    warmed = dataclasses.replace(standard.config, eps_warmup=config.eps_warmup)
    steps = config.attack_steps
    return dataclasses.replace(standard, norm=norm, eps=eps, config=warmed, attack_steps=steps)


def attacks(config: SweepConfig, threat: ThreatModel, num_classes: int) -> dict[str, AttackFn]:
    """Returns the measurement's attacks by name; raises if one is not defined for the norm."""
    found = suite_for(config, config.attack, threat, num_classes=num_classes).attacks
    pgd = advfeat.pgd(threat, steps=config.eval_steps, restarts=config.restarts)
    return {name: pgd if name == "pgd" else attack for name, attack in found.items()}


def attack_words(config: SweepConfig) -> str:
    """Describes the measurement's attack in words."""
    names = ", ".join(config.attack)
    if "pgd" not in config.attack:
        return names
    starts = "1 start" if config.restarts == 1 else f"the worst of {config.restarts} starts"
    return names.replace("pgd", f"PGD with {config.eval_steps} steps and {starts}")


def seed_of(config: TrainingConfig, seed: int) -> int:
    """Derives an integer seed, distinct for every run and every seed of a run."""
    return int(np.random.SeedSequence([config.seed, seed]).generate_state(1)[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One network of a sweep: its recipe and its measurements.

    Attributes:
      name: the network's name in the run.
      recipe: architecture and training.
      train: the training examples.
      points: the images to measure on, by name.
      threats: norm and eps of the attacks, by name.
      noise: whether accuracy under noise of the same norm is measured, too.
      keep: whether the run stores the network, for use by other experiments.
    """

    name: str
    recipe: Recipe
    train: data.Split
    points: Mapping[str, Points]
    threats: Mapping[str, tuple[str, float]]
    noise: bool = False
    keep: bool = False


def measure(
    config: SweepConfig, run: RunDirectory, job: Job, *, advance: Callable[[int], Any]
) -> Hits:
    """Trains the job's network and measures it, unless the run already holds the result.

    Args:
      config: the flags.
      run: the open run directory.
      job: the network to train and measure.
      advance: called with the number of finished epochs (a bar's `update`).

    Returns:
      For each of the job's points P: "P_clean" and, for each threat model T, "P_T" (correct on the
      clean image and under every attack) and, if noise is requested, "P_T_noise" (correct under the
      worst of as many draws as PGD has restarts): `[N]` bool each.
    """
    return run.cached(
        f"measured/{job.name}",
        lambda: _measured(config, run, job, advance),
        found=partial(advance, job.recipe.config.epochs),
    )


def _measured(
    config: SweepConfig, run: RunDirectory, job: Job, advance: Callable[[int], Any]
) -> tuple[Hits, dict[str, Any]]:
    """Trains and measures; returns the hits and their provenance."""
    root = stream(jax.random.key(config.seed), job.name)
    network = networks.train(
        run,
        job.name,
        stream(root, "training"),
        job.recipe,
        job.train,
        keep=job.keep,
        advance=advance,
    )
    fn, classes = network.model_fn(), len(job.recipe.spec.class_names)
    hits: Hits = {}
    for where, points in job.points.items():
        for name, (norm, eps) in job.threats.items():
            threat = advfeat.threat_model(norm, eps)
            key = stream(root, f"{where}/{name}")
            found = advfeat.evaluate(
                key,
                fn,
                points.image,
                points.label,
                threat=threat,
                suite=attacks(config, threat, classes),
                batch_size=config.attack_batch_size,
                checks=False,
            )
            hits[f"{where}_clean"], hits[f"{where}_{name}"] = found.clean, found.robust
            if job.noise:
                hits[f"{where}_{name}_noise"] = advfeat.evaluate_epsilons(
                    key,
                    partial(_noise, threat, config.restarts),
                    fn,
                    points.image,
                    points.label,
                    [eps],
                    batch_size=config.attack_batch_size,
                ).robust[0]
    threats = {name: {"norm": norm, "eps": eps} for name, (norm, eps) in job.threats.items()}
    made = {"network": job.name, "train_examples": len(job.train), **job.recipe.record()}
    return hits, {**made, "threats": threats, "attack": attack_words(config)}


def _noise(threat: advfeat.ThreatModel, repeats: int, eps: advfeat.types.Array) -> Any:
    return advfeat.uniform_noise(dataclasses.replace(threat, eps=eps), restarts=repeats)


def clean_hits(
    config: TrainingConfig,
    run: RunDirectory,
    name: str,
    recipe: Recipe,
    sets: Callable[[], tuple[data.Split, Points]],
    *,
    advance: Callable[[int], Any],
) -> np.ndarray:
    """Trains a network that is not stored; returns `[N]` bool, its correctly classified points.

    The run holds the result; if it already does, nothing is trained, nor are the training images
    and the points asked for.
    """

    def measure() -> tuple[Hits, dict[str, Any]]:
        train, points = sets()
        key = stream(stream(jax.random.key(config.seed), name), "training")
        network = networks.train(run, name, key, recipe, train, keep=False, advance=advance)
        hits = advfeat.correct(network.model_fn(), points.image, points.label)
        return {"clean": hits}, {"network": name, **recipe.record()}

    done = partial(advance, recipe.config.epochs)
    return run.cached(f"measured/{name}", measure, found=done)["clean"]
