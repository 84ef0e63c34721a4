"""Data sets that stay on disk: labels in memory, images decoded when they are asked for.

A `DiskDataset` has what a `Dataset` has, but its splits hold labels and ids only. So a sample is
drawn, and images are held out, by the same functions (`advfeat.data.subset`, `held_out`), and only
what was drawn is read. `advfeat.data.stream_split` streams a split in batches.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from advfeat.data import (
    classes as classes_lib,
    images,
    label_index,
    restricted_imagenet,
    tfds_images,
)
from advfeat.data.types import DataError, Described, Split, channel_statistics, subset

IMAGE_SIZE = 224

_GROUPINGS = {"restricted_imagenet": restricted_imagenet.GROUPING}
_STATISTICS = {
    # Those of most published ImageNet networks, and of the paper's own code.
    "imagenet2012": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "restricted_imagenet": (restricted_imagenet.MEAN, restricted_imagenet.STD),
}
_SAMPLE = 1000  # training images from which other sets' statistics are estimated
_BLOCK = 256  # records read at once: some 30 MB of ImageNet


@dataclasses.dataclass(frozen=True, eq=False)
class DiskSplit:
    """One split of a set on disk; `subset` and `held_out` draw from it as from a `Split`.

    Attributes:
      source: the opened set.
      name: of the split.
      label: int32 `[N]`, in [0, number of classes).
      id: int64 `[N]`, the position in the split on disk.
      class_names: one name per label.
      image_size: height and width of the images that are read, in pixels.
      central: the share of the shorter side that a central crop keeps.
    """

    source: tfds_images.Source = dataclasses.field(repr=False)
    name: str
    label: np.ndarray = dataclasses.field(repr=False)
    id: np.ndarray = dataclasses.field(repr=False)
    class_names: tuple[str, ...] = dataclasses.field(repr=False)
    image_size: int = IMAGE_SIZE
    central: float = images.CENTRAL

    def __len__(self) -> int:
        return len(self.label)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of one image."""
        return self.image_size, self.image_size, self.source.channels

    def take(self, indices: Sequence[int] | np.ndarray) -> DiskSplit:
        """Returns the examples at `indices` (positions in this split, or a boolean mask)."""
        return dataclasses.replace(self, label=self.label[indices], id=self.id[indices])

    def read(self) -> Split:
        """Reads all images of the split into memory, cropped at the centre.

        Raises:
          DataError: for an image that cannot be decoded, naming it.
        """
        pixels = np.empty((len(self), *self.input_shape), np.uint8)
        records, positions = self.source.records(self.name), self.id.tolist()
        what = f"images of {self.source.name} {self.name}"
        with (
            tqdm(total=len(self), desc=what, delay=3, leave=False, disable=None) as bar,
            concurrent.futures.ThreadPoolExecutor(usual_threads()) as pool,
        ):
            for start in range(0, len(self), _BLOCK):
                block = positions[start : start + _BLOCK]
                found = pool.map(self._decode, block, records.__getitems__(block))
                for place, image in enumerate(found, start):
                    pixels[place] = image
                bar.update(len(block))
        return Split(pixels, self.label, self.id)

    def batches(self, batch_size: int) -> Iterator[Split]:
        """Yields the split in order, `batch_size` examples at a time, read into memory."""
        for start in range(0, len(self), batch_size):
            rows = np.arange(start, min(start + batch_size, len(self)))
            yield self.take(rows).read()

    def _decode(self, position: int, record: bytes) -> np.ndarray:
        return self.decode(position, record, None)

    def decode(self, position: int, record: bytes, rng: np.random.Generator | None) -> np.ndarray:
        """Decodes a record to uint8 `[size, size, C]`; `rng` crops at random and mirrors."""
        _, blob = self.source.label_and_image(record)
        with tfds_images.located(self.source, self.name, position):
            return images.decode_cropped(
                blob,
                channels=self.source.channels,
                size=self.image_size,
                rng=rng,
                central=self.central,
            )


@dataclasses.dataclass(frozen=True, eq=False)
class DiskDataset(Described):
    """A named image classification data set on disk, with what `Dataset` has.

    Mean and deviation of the channels are the published ones, or those of 1,000 training images.

    Attributes:
      name: the name passed to `open_dataset`.
      train: the training examples.
      test: the test examples; never used for model selection.
    """

    name: str
    train: DiskSplit
    test: DiskSplit

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per label."""
        return self.train.class_names

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of one image."""
        return self.train.input_shape

    @property
    def one_size(self) -> bool:
        """Whether the images on disk all have one size."""
        return self.train.source.image_size is not None

    @functools.cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.name in _STATISTICS:
            return _STATISTICS[self.name]
        return channel_statistics(subset(self.train, _SAMPLE, seed=0).read().image)


def open_dataset(
    name: str,
    *,
    image_size: int | None = None,
    classes: Sequence[str] | None = None,
    data_dir: str | None = None,
) -> DiskDataset:
    """Opens a prepared TFDS set, or Restricted ImageNet, without reading images.

    Args:
      name: a TFDS name ("imagenet2012", "cifar10"), or "restricted_imagenet".
      image_size: height and width of the images that are read; None means the images' own size if
        all are squares of one size, else 224. Images of that very size are not cropped.
      classes: names of the classes to keep; None keeps all.
      data_dir: location of TFDS data; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
      The data set: its splits "train", and "test" or "validation".

    Raises:
      DataError: if the data cannot be opened (see `advfeat.data.load`).
      ValueError: for an `image_size` below 1.
    """
    options: Any = {"image_size": image_size, "classes": classes, "data_dir": data_dir}
    return DiskDataset(
        name, open_split(name, "train", **options), open_split(name, "test", **options)
    )


def open_split(
    name: str,
    split: str,
    *,
    image_size: int | None = None,
    classes: Sequence[str] | None = None,
    data_dir: str | None = None,
) -> DiskSplit:
    """Opens one split of a set as `open_dataset` does.

    Args:
      name: as `open_dataset` takes it.
      split: a TFDS split; "test" means "validation" if the test labels are not published.
      image_size: as `open_dataset` takes it.
      classes: as `open_dataset` takes it.
      data_dir: as `open_dataset` takes it.

    Raises:
      DataError: as `open_dataset` does, and for a split that the set does not have.
      ValueError: for an `image_size` below 1.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    grouping = _GROUPINGS.get(name)
    source = tfds_images.open_source(grouping.source if grouping else name, data_dir=data_dir)
    if split == "test":
        split = source.test_split
    elif split not in source.splits:
        raise DataError(f"{source.name} has no split {split!r}: {', '.join(source.splits)}")
    class_names = grouping.class_names if grouping else source.class_names
    keep = classes_lib.select(name, class_names, classes)
    labels = label_index.labels(source, split)
    if grouping:
        labels = np.where(labels >= 0, grouping.table(len(source.class_names))[labels], -1)
    positions, labels = classes_lib.relabel(labels, keep)
    counts = np.bincount(labels, minlength=len(keep))
    if not counts.all():
        raise DataError(f"{name}: {split} has no example of {class_names[keep[counts.argmin()]]}")
    size = image_size or source.image_size or IMAGE_SIZE
    central = 1.0 if size == source.image_size else images.CENTRAL
    names = tuple(class_names[label] for label in keep)
    return DiskSplit(source, split, labels, positions, names, size, central)


def usual_threads() -> int:
    """Returns the number of threads that read and decode: one per processor, at most 16."""
    return min(16, os.cpu_count() or 1)
