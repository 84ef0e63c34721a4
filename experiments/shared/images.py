"""Images of a run, in memory or on disk: what is measured on either, and the stream of either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data
from advfeat.data import Dataset, DiskDataset, DiskSplit, Split

from .flags.streams import StreamConfig

Images: TypeAlias = Split | DiskSplit
AnyDataset: TypeAlias = Dataset | DiskDataset

_BATCH = 500  # images read from disk and classified at a time


def load(config: StreamConfig, image_size: int | None = None) -> AnyDataset:
    """Loads the data set of the flags; with `--stream` opens it and leaves the images on disk.

    Raises:
      DataError: if it cannot be loaded or opened.
    """
    where: Any = {"classes": config.classes, "data_dir": config.data_dir}
    if config.stream:
        return data.open_dataset(config.dataset, image_size=image_size, **where)
    return load_in_memory(config.dataset, **where)


def load_in_memory(
    name: str, *, classes: Sequence[str] | None = None, data_dir: str | None = None
) -> Dataset:
    """Loads a data set; if it is not usable yet, the error names the command that makes it so.

    Raises:
      DataError: as `data.load`.
    """
    try:
        return data.load(name, classes=classes, data_dir=data_dir)
    except data.NotPreparedError as error:
        command = "python -m experiments.prepare_data --archive_dir=ARCHIVES"
        raise data.DataError(
            f"{error}; as a command: {command} --dataset={error.name} --data_dir={error.data_dir}"
        ) from error
    except data.NeedsStreamError as error:
        commands = "experiments.train --stream, experiments.evaluate --stream"
        raise data.DataError(f"{error} ({commands})") from error


def in_memory(images: Images) -> Split:
    """Returns the examples in memory: reads those that are on disk."""
    return images.read() if isinstance(images, DiskSplit) else images


def pixels(images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images in [0, 1], `[N, H, W, C]`, and their labels `[N]`."""
    found = in_memory(images)
    return data.unit(found.image), found.label


def correct(model_fn: advfeat.ModelFn, images: Images) -> np.ndarray:
    """Returns which examples a network classifies correctly, `[N]`; few are read at a time."""
    if isinstance(images, Split):
        return advfeat.correct(model_fn, data.unit(images.image), images.label)
    found = []
    with tqdm(total=len(images), desc="clean images", unit="image", delay=3) as bar:
        for part in images.batches(_BATCH):
            found.append(advfeat.correct(model_fn, data.unit(part.image), part.label))
            bar.update(len(part))
    return np.concatenate(found)


def streamed(images: DiskSplit, batch_size: int, *, seed: int, random_crops: bool) -> data.Stream:
    """Returns the endless stream of a training: this process's part of every batch.

    Args:
      images: the training images.
      batch_size: over all processes; fewer images become a single batch.
      seed: determines the order and the crops.
      random_crops: whether to crop at random and mirror, or at the centre.

    Raises:
      ValueError: for a batch that the processes do not divide.
      DataError: if grain is not installed.
    """
    return data.stream_split(
        images,
        batch_size=min(batch_size, len(images)),
        training=True,
        random_crops=random_crops,
        seed=seed,
        epochs=None,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
