"""Data sources: everything that ends in images, labels and ids.

`load` takes a name or a path and returns a `Dataset` in memory; `stream` reads what does not fit
there in batches; `advfeat.data.prepare` makes TFDS data from the published archives. To add a
source, write one module with `matches(name)` and `load(name, *, classes, data_dir)` and give it a
line in `_SOURCES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from advfeat.data import (
    constructed_npz,
    digits,
    folder,
    planted_images,
    restricted_imagenet,
    sample_set,
    tfds_images,
)
from advfeat.data.samples import Samples, sample_names, samples
from advfeat.data.streaming import Batch, Stream, stream
from advfeat.data.types import DataError, Dataset, Split, held_out, subset, unit
from advfeat.rows import draw_rows

__all__ = [
    "Batch",
    "DataError",
    "Dataset",
    "Samples",
    "Split",
    "Stream",
    "draw_rows",
    "held_out",
    "load",
    "names",
    "sample_names",
    "samples",
    "stream",
    "subset",
    "unit",
]

# The first that matches is asked, so that the widest come last.
_SOURCES: tuple[ModuleType, ...] = (
    digits,
    planted_images,
    sample_set,
    restricted_imagenet,
    constructed_npz,
    folder,
    tfds_images,
)

_NAMES = ("digits", "planted", "samples:cifar10", *tfds_images.COMMON)


def names() -> tuple[str, ...]:
    """Returns the names in common use; `load` takes any other TFDS name and paths too."""
    return _NAMES


def load(
    name: str, *, classes: Sequence[str] | None = None, data_dir: str | None = None
) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: "digits"; "planted" (drawn images, see `advfeat.features.planted`); "samples:cifar10"
        (a hundred images that come with the package); the TFDS name of a prepared image
        classification set ("cifar10", "mnist", "eurosat/rgb"); `folder:PATH` or the path of
        a folder of class folders of images; the path of a constructed `.npz`.
      classes: names of the classes to keep, at least two; their order gives the new labels. None
        or empty keeps all.
      data_dir: where TFDS data lie; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
      The data set.

    Raises:
      DataError: one line that says what is unknown, absent or unusable.

    >>> pair = load("digits", classes=("8", "3"))
    >>> pair.num_classes, pair.class_names, pair.train.image.shape[1:]
    (2, ('8', '3'), (8, 8, 1))
    """
    if not isinstance(name, str) or not name:
        raise DataError(f"dataset must be a name or a path, got {name!r}")
    for source in _SOURCES:
        if source.matches(name):
            return source.load(name, classes=classes, data_dir=data_dir)
    raise DataError(f"unknown data set {name!r}: known are {', '.join(_NAMES)}")
