"""Streams data sets that do not fit in memory, in batches, with grain.

The place of each example is a pure function of seed and epoch (`_Slots`). Grain reads, decodes and
batches ahead in threads and records its position, so that a run can resume where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np

from advfeat.data.on_disk import IMAGE_SIZE, DiskSplit, open_split, usual_threads
from advfeat.data.types import DataError

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
      class_names: one name per label.
      input_shape: `(size, size, C)` of one image.
      num_examples: examples per epoch, over all processes, without padding.
      steps_per_epoch: batches per epoch.
      batch_size: examples per batch, over all processes.
      epochs: number of passes over the data; None for an endless stream.
    """

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
    image_size: int = IMAGE_SIZE,
    classes: Sequence[str] | None = None,
    data_dir: str | None = None,
    **options: Any,
) -> Stream:
    """Streams a prepared TFDS image classification set of any size, or Restricted ImageNet.

    Args:
      name: a TFDS name ("imagenet2012", "cifar10"), or "restricted_imagenet".
      split: a TFDS split; "test" means "validation" if the test labels are not published.
      image_size: height and width of the returned images, in pixels.
      classes: classes to keep; None keeps all.
      data_dir: location of TFDS data; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      **options: those of `stream_split`, of which `batch_size` and `training` must be given.

    Returns:
      The stream.

    Raises:
      DataError: if the data cannot be loaded (see `advfeat.data.load`).
      ValueError: if a number is out of range.
    """
    found = open_split(name, split, image_size=image_size, classes=classes, data_dir=data_dir)
    return stream_split(found, **options)


def stream_split(
    split: DiskSplit,
    *,
    batch_size: int,
    training: bool,
    random_crops: bool | None = None,
    seed: int = 0,
    epochs: int | None = 1,
    balanced: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int | None = None,
) -> Stream:
    """Streams a split that stays on disk, or examples drawn from one.

    In training, `seed`, epoch and id determine every epoch's order and every image's random crop (8
    to 100 % of the area, aspect ratio 3:4 to 4:3) and mirroring; otherwise the order is the split's
    and each image is cropped at its centre (7/8 of the shorter side, or nothing where the images
    have the wanted size). The last batch of an epoch is padded with examples of weight 0. All
    processes together see each example once per epoch.

    Args:
      split: from `open_dataset`; unwanted records are never read.
      batch_size: examples per batch, over all processes; a multiple of `process_count`.
      training: whether to shuffle, crop at random and mirror.
      random_crops: whether to crop at random and mirror; None means as `training` says.
      seed: determines the order, the crops and the selection of `balanced`.
      epochs: number of passes over the data; None for an endless stream.
      balanced: every epoch takes as many examples of each class as the smallest class has, redrawn
        each time.
      process_index: the part of each batch to read.
      process_count: number of processes that share the batches.
      num_threads: number of threads that read and decode; None for one per processor, at most 16.

    Returns:
      The stream.

    Raises:
      DataError: if grain is not installed; later, for an image that cannot be decoded.
      ValueError: if a number is out of range.
    """
    _check_counts(batch_size=batch_size, process_count=process_count)
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

    slots = _Slots(
        labels=split.label,
        seed=seed,
        shuffle=training,
        balanced=balanced,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
        epochs=_ENDLESS if epochs is None else epochs,
    )
    crops = training if random_crops is None else random_crops
    read = _Reader(split, seed=seed, random_crops=crops)
    local_batch = batch_size // process_count
    options = grain.ReadOptions(
        num_threads=num_threads or usual_threads(), prefetch_buffer_size=2 * local_batch
    )

    def open_after(steps: int) -> Any:
        later = grain.MapDataset.source(slots)[steps * local_batch :]
        examples = later.map(read).to_iter_dataset(options)
        return examples.batch(local_batch)

    return Stream(
        class_names=split.class_names,
        input_shape=split.input_shape,
        num_examples=slots.num_examples,
        steps_per_epoch=slots.steps_per_epoch,
        batch_size=batch_size,
        epochs=epochs,
        _open=open_after,
    )


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


class _Reader:
    """Turns a slot into an example: reads the record, decodes, crops."""

    def __init__(self, split: DiskSplit, *, seed: int, random_crops: bool):
        self._split, self._seed, self._random_crops = split, seed, random_crops
        self._records = split.source.records(split.name)

    def __call__(self, slot: _Slot) -> dict[str, Any]:
        if slot.index < 0:
            image = np.zeros(self._split.input_shape, np.uint8)
            label, position = 0, -1
        else:
            label = int(self._split.label[slot.index])
            position = int(self._split.id[slot.index])
            image = self._image(position, slot.epoch)
        return {
            "image": image,
            "label": np.int32(label),
            "id": np.int32(position),
            "weight": np.float32(position >= 0),
        }

    def _image(self, position: int, epoch: int) -> np.ndarray:
        drawn = [self._seed, epoch, position]
        rng = np.random.default_rng(drawn) if self._random_crops else None
        return self._split.decode(position, self._records[position], rng)


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
