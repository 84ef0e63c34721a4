"""Data sources: load or stream images, labels and ids.

`load` takes a name or a path and returns a `Dataset` in memory. A larger set stays on disk:
`open_dataset` opens it, `stream` reads it in batches. `advfeat.data.prepare` converts the published
archives to TFDS data. To add a source, write a module with `matches(name)` and `load(name, *,
classes, data_dir)` and list it in `_SOURCES`.
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
from advfeat.data.on_disk import DiskDataset, DiskSplit, open_dataset, open_split
from advfeat.data.samples import Samples, sample_names, samples
from advfeat.data.streaming import Batch, Stream, stream, stream_split
from advfeat.data.types import DataError, Dataset, Split, held_out, subset, unit
from advfeat.rows import draw_rows

__all__ = [
    "Batch",
    "DataError",
    "Dataset",
    "DiskDataset",
    "DiskSplit",
    "Samples",
    "Split",
    "Stream",
    "draw_rows",
    "held_out",
    "load",
    "names",
    "open_dataset",
    "open_split",
    "sample_names",
    "samples",
    "stream",
    "stream_split",
    "subset",
    "unit",
]

# The first match wins, so the most general sources come last.
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
    """Returns the names in common use; `load` also takes any other TFDS name, and paths."""
    return _NAMES


def load(
    name: str, *, classes: Sequence[str] | None = None, data_dir: str | None = None
) -> Dataset:
    """Loads a data set into memory.

    Args:
      name: "digits"; "planted" (synthetic images, see `advfeat.features.planted`);
        "samples:cifar10" (a hundred images included in the package); the TFDS name of a prepared
        image classification set ("cifar10", "mnist", "eurosat/rgb"); `folder:PATH` or the path of a
        folder with one folder of images per class; the path of a constructed `.npz`.
      classes: names of the classes to keep, at least two; their order defines the new labels. None
        or empty keeps all.
      data_dir: location of TFDS data; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
      The data set.

    Raises:
      DataError: if the data set is unknown, absent or unusable; the message is one line.

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
