"""Sample images included in the package, for figures without a download.

`cifar10`: ten test images per class, as decoded from JPEG. Krizhevsky (2009),
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io
from typing import NamedTuple

import numpy as np

from advfeat.data.types import DataError

_SHA256 = {"cifar10": "e83f384b451d2ff32735f932a696105723350b1f484b0dbeefe389c7a69b1496"}


class Samples(NamedTuple):
    """Images with their labels.

    Attributes:
      image: `[N, H, W, C]` uint8.
      label: `[N]` int64.
      class_names: one name per label.
    """

    image: np.ndarray
    label: np.ndarray
    class_names: tuple[str, ...]


def sample_names() -> tuple[str, ...]:
    """Returns the names of the data sets with samples."""
    files = (entry.name for entry in importlib.resources.files(__package__).iterdir())
    end = "_samples.npz"
    return tuple(sorted(name.removesuffix(end) for name in files if name.endswith(end)))


def samples(name: str) -> Samples:
    """Loads test images of a data set, equally many per class.

    Args:
      name: one of `sample_names()`.

    Raises:
      DataError: for an unknown name, or a file whose checksum is not the package's.

    >>> samples("cifar10").image.shape
    (100, 32, 32, 3)
    """
    if name not in sample_names():
        raise DataError(f"there are samples of {', '.join(sample_names())}; not of {name!r}")
    found = importlib.resources.files(__package__).joinpath(f"{name}_samples.npz").read_bytes()
    if hashlib.sha256(found).hexdigest() != _SHA256[name]:
        raise DataError(f"the samples of {name} are damaged: install the package again")
    with np.load(io.BytesIO(found)) as arrays:
        names = tuple(str(each) for each in arrays["class_names"])
        return Samples(arrays["image"], arrays["label"].astype(np.int64), names)
