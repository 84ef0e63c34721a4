"""Streams data sets that do not fit in memory, in batches, with grain.

The place of each example is a pure function of seed and epoch (`_Slots`). Grain reads, decodes and
batches ahead in threads and records its position, so that a run can resume where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np

from advfeat.data import (
    classes as classes_lib,
    images,
    label_index,
    restricted_imagenet,
    tfds_images,
)
from advfeat.data.types import DataError

_GROUPINGS = {"restricted_imagenet": restricted_imagenet.GROUPING}
_ENDLESS = 1 << 31  # epochs, more than any run needs


class Batch(TypedDict):
    """One process's part of a batch of B examples.

    Attributes:
      image: uint8 `[B, size, size, C]`.
      label: int32 `[B]`.
      id: int32 `[B]`, the position in the split; -1 for padding.
      weight: float32 `[B]`, 1 for examples and 0 for padding.
    """

    image: np.ndarray
    label: np.ndarray
    id: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """An iterable of batches; every `iter()` starts from the beginning.

    The iterator is grain's: `get_state()` returns a small JSON-serialisable dict;
    `set_state(state)` on an iterator of an equal stream continues with the next batch.

    Attributes:
      name: the name passed to `stream`.
      class_names: one name per label.
      input_shape: `(size, size, C)` of one image.
      num_examples: examples per epoch, over all processes, without padding.
      steps_per_epoch: batches per epoch.
      batch_size: examples per batch, over all processes.
      epochs: number of passes over the data; None for an endless stream.
    """

    name: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    num_examples: int
    steps_per_epoch: int
    batch_size: int
    epochs: int | None
    _open: Callable[[int], Any] = dataclasses.field(repr=False)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._open(0))

    def after(self, steps: int) -> Iterator[Batch]:
        """Iterates over the batches after the first `steps`, which are not read."""
        return iter(self._open(steps))


def stream(
    name: str,
    *,
    split: str,
    batch_size: int,
    training: bool,
    seed: int = 0,
    epochs: int | None = 1,
    image_size: int = 224,
    balanced: bool = False,
    classes: Sequence[str] | None = None,
    data_dir: str | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int | None = None,
) -> Stream:
    """Streams a prepared TFDS image classification set of any size, or Restricted ImageNet.

    Labels are read first, so unwanted records are never decoded. In training, `seed`, epoch and id
    determine every epoch's order and every image's random crop (8 to 100 % of the area, aspect
    ratio 3:4 to 4:3) and mirroring; otherwise the order is the split's and each image is cropped at
    its centre (7/8 of the shorter side). The last batch of an epoch is padded with examples of
    weight 0. All processes together see each example once per epoch.

    Args:
      name: a TFDS name ("imagenet2012", "cifar10"), or "restricted_imagenet".
      split: a TFDS split; "test" means "validation" if the test labels are not published.
      batch_size: examples per batch, over all processes; a multiple of `process_count`.
      training: whether to shuffle, crop at random and mirror.
      seed: determines the order, the crops and the selection of `balanced`.
      epochs: number of passes over the data; None for an endless stream.
      image_size: height and width of the returned images, in pixels.
      balanced: every epoch takes as many examples of each class as the smallest class has, redrawn
        each time.
      classes: classes to keep; None keeps all.
      data_dir: location of TFDS data; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      process_index: the part of each batch to read.
      process_count: number of processes that share the batches.
      num_threads: number of threads that read and decode; None for one per processor, at most 16.

    Returns:
      The stream.

    Raises:
      DataError: if the data cannot be loaded (see `advfeat.data.load`).
      ValueError: if a number is out of range.
    """
    _check_counts(batch_size=batch_size, image_size=image_size, process_count=process_count)
    _check_counts(epochs=1 if epochs is None else epochs)
    _check_counts(num_threads=1 if num_threads is None else num_threads)
    if batch_size % process_count:
        raise ValueError(
            f"batch_size must be a multiple of process_count {process_count}, got {batch_size}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must lie in [0, {process_count}), got {process_index}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    grain = _import_grain()

    wanted = _find(name, split, classes, data_dir)
    slots = _Slots(
        labels=wanted.labels,
        seed=seed,
        shuffle=training,
        balanced=balanced,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
        epochs=_ENDLESS if epochs is None else epochs,
    )
    read = _Reader(wanted, size=image_size, seed=seed, training=training)
    local_batch = batch_size // process_count
    options = grain.ReadOptions(
        num_threads=num_threads or min(16, os.cpu_count() or 1),
        prefetch_buffer_size=2 * local_batch,
    )

    def open_after(steps: int) -> Any:
        later = _Later(slots, steps * local_batch)
        examples = grain.MapDataset.source(later).map(read).to_iter_dataset(options)
        return examples.batch(local_batch)

    return Stream(
        name=name,
        class_names=wanted.class_names,
        input_shape=(image_size, image_size, wanted.source.channels),
        num_examples=slots.num_examples,
        steps_per_epoch=slots.steps_per_epoch,
        batch_size=batch_size,
        epochs=epochs,
        _open=open_after,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Wanted:
    """The examples to stream: their positions in the split, and their labels in the stream."""

    source: tfds_images.Source
    split: str
    positions: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def _find(name: str, split: str, classes: Sequence[str] | None, data_dir: str | None) -> _Wanted:
    """Opens the set and finds the examples of the wanted classes with the label index."""
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
    return _Wanted(source, split, positions, labels, tuple(class_names[label] for label in keep))


@dataclasses.dataclass(frozen=True)
class _Slot:
    """A place in a batch: `index` of a kept example (-1 for padding), and the epoch."""

    index: int
    epoch: int


class _Slots:
    """The ordered places of this process, with `len` and item access for grain."""

    def __init__(
        self,
        *,
        labels: np.ndarray,
        seed: int,
        shuffle: bool,
        balanced: bool,
        batch_size: int,
        process_index: int,
        process_count: int,
        epochs: int,
    ):
        self._labels, self._seed, self._shuffle, self._balanced = labels, seed, shuffle, balanced
        self._batch_size = batch_size
        self._local_batch = batch_size // process_count
        self._offset = process_index * self._local_batch
        self._epochs = epochs
        counts = np.bincount(labels)
        self.num_examples = int(counts.min()) * len(counts) if balanced else len(labels)
        self.steps_per_epoch = -(-self.num_examples // batch_size)
        # Two: at an epoch's end, threads already read from the next.
        self._order = functools.lru_cache(maxsize=2)(self._draw)

    def __len__(self) -> int:
        return self._epochs * self.steps_per_epoch * self._local_batch

    def __getitem__(self, place: int) -> _Slot:
        step, within = divmod(place, self._local_batch)
        epoch, step = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        position = step * self._batch_size + self._offset + within
        return _Slot(int(order[position]) if position < len(order) else -1, epoch)

    def _draw(self, epoch: int) -> np.ndarray:
        """Returns the kept examples in the order of this epoch."""
        rng = np.random.default_rng([self._seed, epoch])
        chosen = np.arange(len(self._labels))
        if self._balanced:
            counts = np.bincount(self._labels)
            of_class = (np.flatnonzero(self._labels == label) for label in range(len(counts)))
            drawn = [rng.permutation(members)[: counts.min()] for members in of_class]
            chosen = np.sort(np.concatenate(drawn))
        return rng.permutation(chosen) if self._shuffle else chosen


class _Later:
    """The places from `first` on."""

    def __init__(self, slots: _Slots, first: int):
        self._slots, self._first = slots, first

    def __len__(self) -> int:
        return max(len(self._slots) - self._first, 0)

    def __getitem__(self, place: int) -> _Slot:
        return self._slots[place + self._first]


class _Reader:
    """Turns a slot into an example: reads the record, decodes, crops."""

    def __init__(self, wanted: _Wanted, *, size: int, seed: int, training: bool):
        self._wanted, self._size, self._seed, self._training = wanted, size, seed, training
        self._records = wanted.source.records(wanted.split)

    def __call__(self, slot: _Slot) -> dict[str, Any]:
        if slot.index < 0:
            image = np.zeros((self._size, self._size, self._wanted.source.channels), np.uint8)
            label, position = 0, -1
        else:
            label = int(self._wanted.labels[slot.index])
            position = int(self._wanted.positions[slot.index])
            image = self._image(position, slot.epoch)
        return {
            "image": image,
            "label": np.int32(label),
            "id": np.int32(position),
            "weight": np.float32(position >= 0),
        }

    def _image(self, position: int, epoch: int) -> np.ndarray:
        source = self._wanted.source
        rng = np.random.default_rng([self._seed, epoch, position]) if self._training else None
        _, blob = source.label_and_image(self._records[position])
        with tfds_images.located(source, self._wanted.split, position):
            return images.decode_cropped(blob, channels=source.channels, size=self._size, rng=rng)


def _import_grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise DataError("streaming needs grain: pip install grain") from error
    return grain


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
