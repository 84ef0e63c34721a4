"""Tasks of image synthesis with a single classifier: their starts, targets, limits and controls.

Santurkar et al. (2019), https://arxiv.org/abs/1906.09453. The papers' eps and steps are for 224
pixels; these were chosen for 32 pixels, and scale with the side of the image.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer
from PIL import Image

from advfeat.attacks.batch import attack_dataset
from advfeat.checks import check_positive
from advfeat.edges import one_key
from advfeat.features.generation import Seeds, generate, inpaint
from advfeat.keys import stream
from advfeat.saliency.sanity import edges
from advfeat.types import Key, ModelFn

SIDE = 32  # the side of images to which the eps below refer
EPS = {
    "generation": 6.0,
    "translation": 4.0,
    "inpainting": 4.0,
    "superresolution": 2.0,
    "sketch": 8.0,
}
"""L2 eps of each task at a side of `SIDE` pixels."""
STEPS = 60  # of an ascent, for which a task's step size is given
BATCH = 40  # divides the usual number of images, so that no padding is drawn


@dataclasses.dataclass(frozen=True)
class Task:
    """One task: its starts, targets and limits.

    Attributes:
      name: a key of `EPS`.
      starts: `[N, H, W, C]` in [0, 1].
      labels: `[N]`, the classes to draw.
      eps: L2 radius around the start.
      step_size: L2 step size for `STEPS` steps; `draw` scales it for others.
      originals: `[N, H, W, C]`, the image before it was damaged, or the start.
      masks: `[N, H, W]`, 1 where pixels may change (inpainting).
      controls: by name `[N, H, W, C]`, results without a network, other than the start itself.
      start_is: the name of the start as a control, if it is one.
    """

    name: str
    starts: Float[np.ndarray, "N H W C"]
    labels: Integer[np.ndarray, " N"]
    eps: float
    step_size: float
    originals: Float[np.ndarray, "N H W C"]
    masks: Float[np.ndarray, "N H W"] | None = None
    controls: dict[str, Float[np.ndarray, "N H W C"]] = dataclasses.field(default_factory=dict)
    start_is: str = ""


def _task(name: str, starts: np.ndarray, labels: np.ndarray, strength: float, **parts: Any) -> Task:
    eps = strength * EPS[name] * math.sqrt(starts.shape[1] * starts.shape[2]) / SIDE
    return Task(name, starts, labels, eps, 2.5 * eps / STEPS, **parts)


def generation(
    key: Key,
    seeds: Seeds,
    labels: Integer[np.ndarray, " N"],
    size: tuple[int, int],
    *,
    strength: float = 1.0,
) -> Task:
    """Draws images of given classes, from seeds of each class.

    Args:
      key: a typed key.
      seeds: Gaussians fitted to downsampled training images (`generation.fit_seeds`).
      labels: `[N]`, the classes to draw.
      size: `(H, W)`.
      strength: factor on eps.
    """
    keys = jax.random.split(one_key(key), len(labels))
    drawn = jax.vmap(lambda key, label: seeds.draw(key, label, size))(keys, jnp.asarray(labels))
    starts = np.asarray(drawn)
    return _task("generation", starts, labels, strength, originals=starts)


def seed_side(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the size of the small images for seeds: the largest divisors up to 8.

    >>> seed_side((32, 28))
    (8, 7)
    """
    rows, columns = (
        max(s for s in range(1, min(8, pixels) + 1) if pixels % s == 0) for pixels in size
    )
    return rows, columns


def translation(
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    num_classes: int,
    *,
    strength: float = 1.0,
) -> Task:
    """Turns each image `[N, H, W, C]` into the class after its own `[N]`."""
    aims = (labels + 1) % num_classes
    return _task("translation", images, aims, strength, originals=images)


def inpainting(
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    fill: Float[np.ndarray, " C"],
    *,
    seed: int,
    hole: float = 3 / 8,
    strength: float = 1.0,
) -> Task:
    """Restores a square hole at a random place in every image.

    The control fills the hole with the mean of the rest of the image.

    Args:
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`, their classes.
      fill: `[C]`, the colour of the hole, such as the mean training pixel.
      seed: of the holes' places.
      hole: side of the hole, over the smaller side of the image.
      strength: factor on eps.
    """
    rng = np.random.default_rng(seed)
    count, height, width, _ = images.shape
    side = max(1, round(hole * min(height, width)))
    masks = np.zeros((count, height, width), np.float32)
    rows = rng.integers(0, height - side + 1, count)
    columns = rng.integers(0, width - side + 1, count)
    for mask, row, column in zip(masks, rows, columns, strict=True):
        mask[row : row + side, column : column + side] = 1.0
    starts = np.where(masks[..., None] > 0, np.asarray(fill, np.float32), images)
    around = np.array([_own_mean(i, m) for i, m in zip(images, masks, strict=True)])
    return _task(
        "inpainting",
        starts.astype(np.float32),
        labels,
        strength,
        originals=images,
        masks=masks,
        controls={"mean of the rest": around},
        start_is="mean of all",
    )


def _own_mean(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    mean = image[mask == 0].mean(axis=0)
    return np.where(mask[..., None] > 0, mean, image).astype(np.float32)


def superresolution(
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    factor: int = 4,
    strength: float = 1.0,
) -> Task:
    """Enlarges block means of images by repeating pixels; the control enlarges them bicubically.

    Args:
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`, their classes.
      factor: how many times smaller the input is; the largest divisor of H and W up to it is taken.
      strength: factor on eps.
    """
    check_positive(factor, name="factor")
    count, height, width, channels = images.shape
    block = next(b for b in range(min(factor, height), 0, -1) if height % b == width % b == 0)
    blocks = images.reshape(count, height // block, block, width // block, block, channels)
    small = blocks.mean(axis=(2, 4))
    nearest = np.repeat(np.repeat(small, block, axis=1), block, axis=2).astype(np.float32)
    smooth = np.stack([bicubic(image, (height, width)) for image in small])
    return _task(
        "superresolution",
        nearest,
        labels,
        strength,
        originals=images,
        controls={"bicubic": smooth},
        start_is="nearest",
    )


def bicubic(
    image: Float[np.ndarray, "h w C"], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]} C"]:
    """Resizes `[h, w, C]` in [0, 1] to `[H, W, C]` with Pillow, channel by channel."""
    planes = [
        Image.fromarray(np.asarray(plane, np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], axis=-1), 0, 1)


def sketch(
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    strength: float = 1.0,
) -> Task:
    """Turns sketches of the images `[N, H, W, C]` (`sketch_of`) into pictures of their classes."""
    starts = np.stack([sketch_of(image) for image in images])
    return _task("sketch", starts, labels, strength, originals=images)


def sketch_of(image: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, "H W C"]:
    """Returns the strongest fifth of the edges of `[H, W, C]`, dark on white, in all channels."""
    strength = edges(image).mean(axis=-1)
    lines = strength > np.quantile(strength, 0.8)
    return np.repeat(np.where(lines, 0.1, 1.0)[..., None], image.shape[-1], -1).astype(np.float32)


def draw(
    key: Key, task: Task, model_fn: ModelFn, *, steps: int = STEPS, batch_size: int = BATCH
) -> Float[np.ndarray, "N H W C"]:
    """Performs a task with a network, from its starts.

    Args:
      key: a typed key; the draws depend on it and the task's name.
      task: the task.
      model_fn: the network, for ONE example.
      steps: of the ascent.
      batch_size: images per batch.

    Returns:
      `[N, H, W, C]` in [0, 1]; outside the masks, if there are any, exactly the start.
    """
    size = task.step_size * STEPS / steps
    aims: Any = task.labels
    make: Callable[..., Any] = generate
    if task.masks is not None:
        make, aims = inpaint, (task.labels, task.starts, task.masks)
    attack = make(eps=task.eps, steps=steps, step_size=size)
    result = attack_dataset(
        stream(key, task.name), attack, model_fn, task.starts, aims, batch_size=batch_size
    )
    found = np.asarray(result.best.x)
    return found if task.masks is None else np.where(task.masks[..., None] > 0, found, task.starts)
