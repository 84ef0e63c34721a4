"""Scikit-learn's handwritten digits: 1,797 real images, included in a dependency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advfeat.data import classes as classes_lib
from advfeat.data.types import DataError, Dataset, Split


def matches(name: str) -> bool:
    """Returns whether `name` means this source."""
    return name == "digits"


def load(name: str, *, classes: Sequence[str] | None, data_dir: str | None) -> Dataset:
    """Loads the digits, 8 × 8 × 1, float32 in [0, 1] (17 grey levels: v/16).

    The split is fixed: every fourth image of each class in scikit-learn's order is a test image
    (1,352 train, 445 test). The images are ordered by writer, so both parts contain every writer;
    splitting at one position would test on writers not seen in training. The id is the position in
    scikit-learn's order.

    Args:
      name: "digits".
      classes: the digits to keep, such as `("3", "8")`; None for all ten.
      data_dir: ignored; the data come with scikit-learn.

    Returns:
      The data set.

    Raises:
      DataError: if scikit-learn is not installed, or a class is unknown.

    >>> digits = load("digits", classes=None, data_dir=None)
    >>> len(digits.train), len(digits.test), digits.input_shape, digits.num_classes
    (1352, 445, (8, 8, 1), 10)
    """
    del data_dir
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError("digits needs scikit-learn: pip install scikit-learn") from error
    names = tuple(str(digit) for digit in range(10))
    keep = classes_lib.select(name, names, classes)
    bunch = datasets.load_digits()
    image = (bunch.images[..., None] / 16).astype(np.float32)
    everything = Split(image, bunch.target, np.arange(len(image)))
    test = _every_fourth_of_each_class(everything.label)
    return Dataset(
        name=name,
        train=classes_lib.restrict(everything.take(~test), keep),
        test=classes_lib.restrict(everything.take(test), keep),
        class_names=tuple(names[label] for label in keep),
    )


def _every_fourth_of_each_class(labels: np.ndarray) -> np.ndarray:
    """Returns the mask of test images; deterministic, so identical in every version."""
    test = np.zeros(len(labels), bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[3::4]] = True
    return test
