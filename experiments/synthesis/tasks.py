"""The tasks of `experiments.synthesis`, from a data set."""

from __future__ import annotations

import jax
import numpy as np

import advfeat
from advfeat import data
from advfeat.features import generation, tasks
from advfeat.features.tasks import Task
from advfeat.keys import stream
from advfeat.models.network import Network


def plan_tasks(
    names: tuple[str, ...],
    dataset: data.Dataset,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    strength: float,
    seed: int,
) -> dict[str, Task]:
    """Builds the tasks by name."""
    makers = {
        "generation": lambda: _generation(dataset, images, labels, strength, seed),
        "translation": lambda: tasks.translation(
            images, labels, dataset.num_classes, strength=strength
        ),
        "inpainting": lambda: tasks.inpainting(
            images, labels, np.asarray(dataset.mean), seed=seed, strength=strength
        ),
        "superresolution": lambda: tasks.superresolution(images, labels, strength=strength),
        "sketch": lambda: tasks.sketch(images, labels, strength=strength),
    }
    return {name: makers[name]() for name in names}


def _generation(
    dataset: data.Dataset, images: np.ndarray, labels: np.ndarray, strength: float, seed: int
) -> Task:
    """Draws seeds of each class from a Gaussian fitted to its downsampled training images."""
    size = images.shape[1:3]
    train = data.subset(dataset.train, 5000, seed=seed)
    seeds = generation.fit_seeds(
        data.unit(train.image),
        train.label,
        num_classes=dataset.num_classes,
        side=tasks.seed_side(size),
    )
    key = stream(jax.random.key(seed), "seeds")
    return tasks.generation(key, seeds, labels, size, strength=strength)


def attacked(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray,
    eps_grid: tuple[float, ...],
    *,
    num_classes: int,
    steps: int,
    seed: int,
) -> dict[float, np.ndarray]:
    """Turns images into the next class as far as eps allows, by eps `[N, H, W, C]`."""
    return {
        eps: np.asarray(
            advfeat.attack_dataset(
                jax.random.key(seed),
                generation.generate(eps=eps, steps=steps),
                network.model_fn(),
                images,
                (labels + 1) % num_classes,
            ).best.x
        )
        for eps in eps_grid
    }
