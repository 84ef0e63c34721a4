"""Removes pixels of images in the order of a ranking, as ROAR does before it retrains.

Hooker et al. (2019), https://arxiv.org/abs/1806.10758.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped


def mean_pixel(images: Shaped[np.ndarray, "N H W C"]) -> Shaped[np.ndarray, " C"]:
    """Returns the mean pixel `[C]` of images `[N, H, W, C]`, in their dtype; uint8 is rounded.

    >>> mean_pixel(np.array([[[[3, 9]]], [[[4, 9]]]], np.uint8)).tolist()
    [4, 9]
    """
    mean = images.mean(axis=(0, 1, 2), dtype=np.float64)  # float32 sums stall at 2^24
    return (np.round(mean) if images.dtype == np.uint8 else mean).astype(images.dtype)


def removed(
    images: Shaped[np.ndarray, "N H W C"],
    rankings: Shaped[np.ndarray, "N H W"],
    share: float,
    mean: Shaped[np.ndarray, " C"],
) -> Shaped[np.ndarray, "N H W C"]:
    """Replaces the highest-ranked pixels of images by the mean.

    Args:
      images: `[N, H, W, C]`, uint8 or in [0, 1].
      rankings: `[N, H, W]`; larger values are removed first.
      share: share of the pixels, rounded to an integer number of them.
      mean: `[C]`, of the images' dtype.

    Returns:
      `[N, H, W, C]`, of the images' dtype; ties are removed in order.

    >>> removed(np.array([[[[5], [6]], [[7], [8]]]]), np.array([[[0.1, 0.9], [0.8, 0.2]]]), 0.5,
    ...         np.array([0])).ravel().tolist()
    [5, 0, 0, 8]
    """
    count = round(share * rankings[0].size)
    order = np.argsort(-rankings.reshape(len(rankings), -1), axis=1, kind="stable")
    gone = np.zeros((len(images), rankings[0].size), bool)
    np.put_along_axis(gone, order[:, :count], True, axis=1)
    return np.where(gone.reshape(rankings.shape)[..., None], mean, images).astype(images.dtype)
