"""Resizes the images of a data set, so that networks of another size can read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from advfeat.data.types import Dataset, Split, subset, unit


def resized(
    dataset: Dataset, size: Sequence[int], *, most: int = 0, seed: int | Sequence[int] = 0
) -> Dataset:
    """Resizes the images of a data set bilinearly, with anti-aliasing.

    Args:
      dataset: the data set to resize; returned unchanged if its images have the size.
      size: `(H, W)`.
      most: maximum number of images per split, 0 for all: resizing is slow.
      seed: determines the kept images.

    Returns:
      The data set, with uint8 images.

    >>> from advfeat.data import load
    >>> resized(load("digits"), (16, 16), most=20).train.image.shape
    (20, 16, 16, 1)
    """
    from skimage.transform import resize  # slow to import

    height, width, channels = dataset.input_shape
    if (height, width) == tuple(size):
        return dataset

    def scaled(split: Split) -> Split:
        part = subset(split, most, seed=seed)
        shape = (len(part), *size, channels)
        found = resize(unit(part.image), shape, order=1, anti_aliasing=True)
        return dataclasses.replace(part, image=np.round(255 * found).astype(np.uint8))

    return dataclasses.replace(dataset, train=scaled(dataset.train), test=scaled(dataset.test))
