"""The package's sample images as a data set: `samples:cifar10`, for figures without a download.

It holds a hundred test images. A few of each class serve as training set, for uses that need
examples outside the measured ones (baselines, mean colours); they are too few to train a network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advfeat.data import classes as classes_lib
from advfeat.data.samples import sample_names, samples
from advfeat.data.types import DataError, Dataset, Split

PREFIX = "samples:"
_TRAIN = 3  # per class


def matches(name: str) -> bool:
    """Returns whether `name` means this source."""
    return name.startswith(PREFIX)


def load(name: str, *, classes: Sequence[str] | None, data_dir: str | None) -> Dataset:
    """Loads the samples of a data set, uint8: three per class for training, the others for testing.

    The id is the position among the samples.

    Args:
      name: "samples:NAME", NAME one of `advfeat.data.sample_names()`.
      classes: classes to keep; None keeps all.
      data_dir: ignored; the samples come with the package.

    Raises:
      DataError: for an unknown name or class.

    >>> few = load("samples:cifar10", classes=("cat", "dog"), data_dir=None)
    >>> len(few.train), len(few.test), few.input_shape
    (6, 14, (32, 32, 3))
    """
    del data_dir
    known = [f"{PREFIX}{each}" for each in sample_names()]
    if name not in known:
        raise DataError(f"unknown data set {name!r}: of samples there are {', '.join(known)}")
    found = samples(name.removeprefix(PREFIX))
    keep = classes_lib.select(name, found.class_names, classes)
    everything = Split(found.image, found.label, np.arange(len(found.image)))
    train = np.zeros(len(everything), bool)
    for label in range(len(found.class_names)):
        train[np.flatnonzero(everything.label == label)[:_TRAIN]] = True
    return Dataset(
        name=name,
        train=classes_lib.restrict(everything.take(train), keep),
        test=classes_lib.restrict(everything.take(~train), keep),
        class_names=tuple(found.class_names[label] for label in keep),
    )
