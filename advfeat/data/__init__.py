"""Data sources: load or stream images, labels and ids.

`load` takes a name or a path and returns a `Dataset` in memory. A larger set stays on disk:
`open_dataset` opens it, `stream` reads it in batches. `advfeat.data.prepare` converts the published
archives to TFDS data. A data set of your own is one more entry of `SOURCES`, also from outside of
this package:

    data.SOURCES["mine"] = data.Source(load_mine)     # (name, *, classes, data_dir) -> Dataset
"""

from __future__ import annotations

from collections.abc import Sequence

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
from advfeat.data.resizing import resized
from advfeat.data.samples import Samples, sample_names, samples
from advfeat.data.streaming import Batch, Stream, stream, stream_split
from advfeat.data.types import (
    DataError,
    Dataset,
    NeedsStreamError,
    NotPreparedError,
    Source,
    Split,
    held_out,
    subset,
    unit,
)
from advfeat.rows import draw_rows

__all__ = [
    "SOURCES",
    "Batch",
    "DataError",
    "Dataset",
    "DiskDataset",
    "DiskSplit",
    "NeedsStreamError",
    "NotPreparedError",
    "Samples",
    "Source",
    "Split",
    "Stream",
    "draw_rows",
    "held_out",
    "load",
    "names",
    "open_dataset",
    "open_split",
    "resized",
    "sample_names",
    "samples",
    "stream",
    "stream_split",
    "subset",
    "unit",
]

SOURCES: dict[str, Source] = {
    "tfds": Source(tfds_images.load, tfds_images.matches, tfds_images.COMMON),
    "folder": Source(folder.load, folder.matches, ()),
    "constructed": Source(constructed_npz.load, constructed_npz.matches, ()),
    "restricted_imagenet": Source(restricted_imagenet.load, restricted_imagenet.matches, ()),
    "samples": Source(sample_set.load, sample_set.matches, ("samples:cifar10",)),
    "planted": Source(planted_images.load, planted_images.matches),
    "digits": Source(digits.load, digits.matches),
}
"""Sources of data sets by name. The last that matches a name is taken: the most general comes
first, and what is added goes before what was there."""


def names() -> tuple[str, ...]:
    """Returns the names in common use; `load` also takes any other TFDS name, and paths."""
    return tuple(name for key in reversed(SOURCES) for name in SOURCES[key].names_of(key))


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
    for key in reversed(SOURCES):
        source = SOURCES[key]
        if name == key if source.matches is None else source.matches(name):
            return source.load(name, classes=classes, data_dir=data_dir)
    raise DataError(f"unknown data set {name!r}: known are {', '.join(names())}")
