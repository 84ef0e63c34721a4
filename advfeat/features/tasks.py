"""The tasks of `experiments.synthesis`: starts, targets and eps of each.

The papers' eps and steps are for 224 pixels; these were chosen for 32 pixels, and scale with the
side of the image.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import advfeat
from advfeat import data, saliency
from advfeat.features import generation
from advfeat.keys import stream
from advfeat.models.network import Network

SIDE = 32  # the side of images to which the eps below refer
EPS = {
    "generation": 6.0,
    "translation": 4.0,
    "inpainting": 4.0,
    "superresolution": 2.0,
    "sketch": 8.0,
}
SMALLER = 4  # factor by which super-resolution's input is smaller
HOLE = 3 / 8  # of the side
BATCH = 40  # divides the usual number of images, so that no padding is drawn


@dataclasses.dataclass(frozen=True)
class Task:
    """One task: its starts, targets and limits.

    Attributes:
      name: one of `TASKS`.
      labels: `[N]`, the classes to draw.
      eps: L2 radius around the start.
      step_size: L2 step size for 60 steps; it is scaled for others.
      originals: `[N, H, W, C]`, the image before it was damaged, or the start.
      masks: `[N, H, W]`, 1 where pixels may change (inpainting).
      controls: by name `[N, H, W, C]`, results without a network, other than the start itself.
      start_is: the name of the start as a control, if it is one.
    """

    name: str
    starts: np.ndarray
    labels: np.ndarray
    eps: float
    step_size: float
    originals: np.ndarray
    masks: np.ndarray | None = None
    controls: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    start_is: str = ""


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
        "generation": _generation,
        "translation": _translation,
        "inpainting": _inpainting,
        "superresolution": _superresolution,
        "sketch": _sketch,
    }
    found = {}
    for name in names:
        eps = strength * EPS[name] * math.sqrt(images.shape[1] * images.shape[2]) / SIDE
        parts = makers[name](dataset, images, labels, seed)
        found[name] = Task(name=name, eps=eps, step_size=2.5 * eps / 60, **parts)
    return found


def _generation(
    dataset: data.Dataset, images: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Draws seeds of each class from a Gaussian fitted to its downsampled training images."""
    size = images.shape[1:3]
    rows, columns = (
        max(s for s in range(1, min(8, pixels) + 1) if pixels % s == 0) for pixels in size
    )
    train = data.subset(dataset.train, 5000, seed=seed)
    seeds = generation.fit_seeds(
        data.unit(train.image),
        train.label,
        num_classes=dataset.num_classes,
        side=(rows, columns),
    )
    keys = jax.random.split(stream(jax.random.key(seed), "seeds"), len(labels))
    starts = jax.vmap(lambda key, label: seeds.draw(key, label, size))(keys, jnp.asarray(labels))
    return {"starts": np.asarray(starts), "labels": labels, "originals": np.asarray(starts)}


def _translation(
    dataset: data.Dataset, images: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Targets the next class for every image."""
    del seed
    return {"starts": images, "labels": (labels + 1) % dataset.num_classes, "originals": images}


def _inpainting(
    dataset: data.Dataset, images: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Fills a square hole with the mean training pixel, at a random place in every image."""
    rng = np.random.default_rng(seed)
    count, height, width, _ = images.shape
    hole = max(1, round(HOLE * min(height, width)))
    masks = np.zeros((count, height, width), np.float32)
    rows = rng.integers(0, height - hole + 1, count)
    columns = rng.integers(0, width - hole + 1, count)
    for mask, row, column in zip(masks, rows, columns, strict=True):
        mask[row : row + hole, column : column + hole] = 1.0
    mean = np.asarray(dataset.mean, np.float32)
    starts = np.where(masks[..., None] > 0, mean, images).astype(np.float32)
    around = np.array([_own_mean(i, m) for i, m in zip(images, masks, strict=True)])
    return {
        "starts": starts,
        "labels": labels,
        "originals": images,
        "masks": masks,
        "controls": {"mean of the rest": around},
        "start_is": "mean of all",
    }


def _own_mean(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    mean = image[mask == 0].mean(axis=0)
    return np.where(mask[..., None] > 0, mean, image).astype(np.float32)


def _superresolution(
    dataset: data.Dataset, images: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Enlarges block means by repeating pixels; the control enlarges them bicubically."""
    del dataset, seed
    count, height, width, channels = images.shape
    block = next(b for b in range(min(SMALLER, height), 0, -1) if height % b == width % b == 0)
    blocks = images.reshape(count, height // block, block, width // block, block, channels)
    small = blocks.mean(axis=(2, 4))
    nearest = np.repeat(np.repeat(small, block, axis=1), block, axis=2).astype(np.float32)
    smooth = np.stack([bicubic(image, (height, width)) for image in small])
    return {
        "starts": nearest,
        "labels": labels,
        "originals": images,
        "controls": {"bicubic": smooth},
        "start_is": "nearest",
    }


def bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes `[h, w, C]` in [0, 1] to `[H, W, C]` with Pillow, channel by channel."""
    planes = [
        Image.fromarray(np.asarray(plane, np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], axis=-1), 0, 1)


def _sketch(
    dataset: data.Dataset, images: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Draws dark lines on white at the strongest edges of the image."""
    del dataset, seed
    starts = np.stack([sketch_of(image) for image in images])
    return {"starts": starts, "labels": labels, "originals": images}


def sketch_of(image: np.ndarray) -> np.ndarray:
    """Returns the strongest fifth of the edges, dark on white, equal in all channels."""
    strength = saliency.edges(image).mean(axis=-1)
    lines = strength > np.quantile(strength, 0.8)
    return np.repeat(np.where(lines, 0.1, 1.0)[..., None], image.shape[-1], -1).astype(np.float32)


def draw(task: Task, network: Network, *, steps: int, seed: int) -> np.ndarray:
    """Performs a task with a network, from its starts, `[N, H, W, C]`."""
    key, size = stream(jax.random.key(seed), task.name), task.step_size * 60 / steps
    aims: Any = task.labels
    attack = generation.generate(eps=task.eps, steps=steps, step_size=size)
    if task.masks is not None:
        attack = generation.inpaint(eps=task.eps, steps=steps, step_size=size)
        aims = (task.labels, task.starts, task.masks)
    result = advfeat.attack_dataset(
        attack, key, network.model_fn(), task.starts, aims, batch_size=BATCH
    )
    found = np.asarray(result.best.x)
    return found if task.masks is None else np.where(task.masks[..., None] > 0, found, task.starts)


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
                generation.generate(eps=eps, steps=steps),
                jax.random.key(seed),
                network.model_fn(),
                images,
                (labels + 1) % num_classes,
            ).best.x
        )
        for eps in eps_grid
    }
