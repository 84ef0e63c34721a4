"""Data sets in memory: arrays with class names, ids and channel statistics."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from advfeat.rows import draw_rows

_CHUNK = 4096  # images per pass over the statistics: keeps float64 copies small


class DataError(ValueError):
    """Raised for a data set that is unknown, absent or unusable; the message is one line."""


class NotPreparedError(DataError):
    """Raised for a data set that `data.prepare.prepare` makes from its archives.

    Attributes:
      name: of the data set.
      data_dir: folder in which it was looked for.
    """

    def __init__(self, message: str, name: str, data_dir: str):
        super().__init__(message)
        self.name, self.data_dir = name, data_dir


class NeedsStreamError(DataError):
    """Raised for a data set that is read by `data.stream`, not loaded into memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, in memory.

    Attributes:
      image: `[N, H, W, C]`, uint8 (a value v meaning v/255) or float32 in [0, 1].
      label: int32 `[N]`, in [0, number of classes).
      id: int32 `[N]`, the position in the source's own order. It identifies an example permanently:
        subsets, shuffles and held-out sets keep it.

    >>> import numpy as np
    >>> split = Split(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1]), np.array([5, 7]))
    >>> len(split), split.label.dtype.name, split.take([1]).id.tolist()
    (2, 'int32', [7])
    """

    image: np.ndarray
    label: np.ndarray
    id: np.ndarray

    def __post_init__(self) -> None:
        if self.image.ndim != 4 or self.image.dtype not in (np.uint8, np.float32):
            raise DataError(
                "image must be uint8 or float32 of shape [N, H, W, C], got "
                f"{self.image.dtype} {list(self.image.shape)}"
            )
        for name in ("label", "id"):
            value = np.asarray(getattr(self, name), np.int32)
            if value.shape != (len(self.image),):
                raise DataError(f"{name} must be [{len(self.image)}], got {list(value.shape)}")
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, indices: Sequence[int] | np.ndarray) -> Split:
        """Returns the examples at `indices` (positions in this split, or a boolean mask)."""
        chosen = np.asarray(indices)
        if chosen.dtype != np.bool_:
            chosen = chosen.astype(np.int64)
        return Split(self.image[chosen], self.label[chosen], self.id[chosen])


class Drawable(Protocol):
    """What examples can be drawn from: a `Split`, or a `DiskSplit` whose images stay on disk."""

    @property
    def label(self) -> np.ndarray:
        """`[N]` integers."""

    def __len__(self) -> int: ...

    def take(self, indices: Any) -> Any:
        """Returns the examples at `indices`, of the same kind."""


S = TypeVar("S", bound=Drawable)


class Described:
    """What every data set says of its classes and channels, wherever its images are."""

    class_names: Any  # a field, or a property

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over training images, in [0, 1]."""
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over training images, in [0, 1]."""
        return self._statistics[1]

    @functools.cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset(Described):
    """A named image classification data set.

    Attributes:
      name: the name passed to `advfeat.data.load`.
      train: the training examples.
      test: the test examples; never used for model selection.
      class_names: one name per label.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, split in (("train", self.train), ("test", self.test)):
            if not len(split):
                raise DataError(f"{self.name}: the {part} split is empty")
            low, high = int(split.label.min()), int(split.label.max())
            if low < 0 or high >= self.num_classes:
                raise DataError(
                    f"{self.name}: labels of the {part} split must lie in "
                    f"[0, {self.num_classes}), got {low if low < 0 else high}"
                )
        if self.train.image.shape[1:] != self.test.image.shape[1:]:
            raise DataError(
                f"{self.name}: train images are {list(self.train.image.shape[1:])}, "
                f"test images {list(self.test.image.shape[1:])}"
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of one image."""
        height, width, channels = self.train.image.shape[1:]
        return height, width, channels

    @functools.cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_statistics(self.train.image)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel of images `[N, H, W, C]`, in [0, 1]."""
    total = np.zeros(images.shape[-1])
    squares = np.zeros(images.shape[-1])
    for start in range(0, len(images), _CHUNK):
        chunk = unit(images[start : start + _CHUNK]).astype(np.float64)
        total += chunk.sum((0, 1, 2))
        squares += np.square(chunk).sum((0, 1, 2))
    count = images.size / images.shape[-1]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    return tuple(mean.tolist()), tuple(std.tolist())


class Source(NamedTuple):
    """Where data sets come from, an entry of `data.SOURCES`.

    Attributes:
      load: `(name, *, classes, data_dir) -> Dataset`; raises `DataError` with one line. `classes`
        are names to keep (None keeps all), for which `data.classes.select` and `restrict` help.
      matches: whether a name means this source; by default only the entry's own.
      names: names in common use; by default the entry's own.
    """

    load: Callable[..., Dataset]
    matches: Callable[[str], bool] | None = None
    names: tuple[str, ...] | None = None

    def names_of(self, key: str) -> tuple[str, ...]:
        """Returns the names in common use of the entry `key`."""
        return (key,) if self.names is None else self.names


def unit(images: np.ndarray) -> np.ndarray:
    """Converts images to float32 in [0, 1], the pixel range of all attacks.

    Args:
      images: uint8 (divided by 255) or float32 (returned unchanged), of any shape.

    Returns:
      float32, of the same shape.

    Raises:
      ValueError: if the dtype is neither.

    >>> unit(np.array([0, 51, 255], np.uint8)).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255)
    if images.dtype == np.float32:
        return images
    raise ValueError(f"images must be uint8 or float32, got {images.dtype}")


def held_out(split: S, *, fraction: float, seed: int) -> tuple[S, S]:
    """Splits off a held-out set for model selection, stratified by class.

    Args:
      split: the examples to divide, usually `dataset.train`.
      fraction: the share to hold out, in (0, 1), rounded to the nearest example per class; every
        class keeps at least one example and, if it has two or more, holds out at least one.
      seed: determines the held-out examples.

    Returns:
      `(kept, held)`: disjoint, together the whole split, each in the split's order.

    Raises:
      ValueError: if `fraction` lies outside (0, 1).

    >>> part = Split(np.zeros((10, 1, 1, 1), np.uint8), np.arange(10) % 2, np.arange(10))
    >>> kept, held = held_out(part, fraction=0.2, seed=0)
    >>> len(kept), len(held), sorted(held.label.tolist())
    (8, 2, [0, 1])
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
    held = np.zeros(len(split), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(split.label):
        members = np.flatnonzero(split.label == label)
        count = int(
            np.clip(round(fraction * len(members)), min(1, len(members) - 1), len(members) - 1)
        )
        held[rng.permutation(members)[:count]] = True
    return split.take(~held), split.take(held)


def subset(split: S, most: int, *, seed: int | Sequence[int]) -> S:
    """Draws a stratified subset of at most `most` examples, in random order.

    Args:
      split: the examples to draw from.
      most: maximum number of examples; 0 returns the split unchanged.
      seed: determines the drawn examples.

    Returns:
      The examples selected by `draw_rows`, with their ids.

    Raises:
      ValueError: for a negative number.

    >>> part = Split(np.zeros((10, 1, 1, 1), np.uint8), np.arange(10) % 2, np.arange(10))
    >>> len(subset(part, 4, seed=0)), len(subset(part, 0, seed=0))
    (4, 10)
    """
    rows = draw_rows(split.label, most, seed=seed)
    return split.take(rows) if most else split
