"""Image quality metrics: of a picture against its original, or of a set against real images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real
from scipy import linalg
from scipy.spatial import distance
from skimage import metrics

ROUNDING = 1 / (12 * 255**2)
"""Mean squared error of rounding to 8 bits, which is invisible."""


def psnr(image: Real[np.ndarray, "H W C"], original: Real[np.ndarray, "H W C"]) -> float:
    """Computes the peak signal-to-noise ratio in decibels, at most 58.9.

    Errors are floored at that of rounding to 8 bits. Without this floor identical images would have
    an infinite ratio and make every mean infinite.

    Args:
      image: in [0, 1].
      original: in [0, 1].

    Raises:
      ValueError: for another shape.

    >>> round(psnr(np.full((2, 2, 1), 0.6), np.full((2, 2, 1), 0.5)), 3)
    20.0
    >>> round(psnr(np.ones((2, 2, 1)), np.ones((2, 2, 1))), 1)
    58.9
    """
    _check(image, original)
    error = float(np.mean((np.asarray(image, np.float64) - np.asarray(original, np.float64)) ** 2))
    return -10 * float(np.log10(max(error, ROUNDING)))


def ssim(
    image: Real[np.ndarray, "H W C"],
    original: Real[np.ndarray, "H W C"],
    *,
    data_range: float = 1.0,
) -> float:
    """Computes structural similarity, 1 for equal images (scikit-image, default window if it fits).

    Wang et al. (2004), https://doi.org/10.1109/TIP.2003.819861.

    Args:
      image: an image.
      original: what it should look like.
      data_range: difference between the largest and the smallest possible value.

    Raises:
      ValueError: for another shape, or a side below 3.
    """
    _check(image, original)
    side = min(np.shape(image)[:2])
    if side < 3:
        raise ValueError(f"images must be at least 3 pixels wide, got {np.shape(image)}")
    window = min(7, side - 1 + side % 2)
    found = metrics.structural_similarity(
        np.asarray(image, np.float64),
        np.asarray(original, np.float64),
        win_size=window,
        data_range=data_range,
        channel_axis=-1,
    )
    return float(found)


def _check(image: np.ndarray, original: np.ndarray) -> None:
    if np.shape(image) != np.shape(original) or np.ndim(image) != 3:
        raise ValueError(
            "image and original must both be [H, W, C], of one shape, got "
            f"{np.shape(image)} and {np.shape(original)}"
        )


def frechet_distance(features: Real[np.ndarray, "N D"], real: Real[np.ndarray, "M D"]) -> float:
    """Computes the Fréchet distance of Gaussians fitted to two feature sets; 0 for equal sets.

    Heusel et al. (2017), https://arxiv.org/abs/1706.08500, for features of any representation. It
    is biased upwards for small samples, so compare only with the same number of real images.

    Args:
      features: of generated images, N at least 2.
      real: of real images, M at least 2.

    Raises:
      ValueError: for other shapes, or fewer than two examples.

    >>> draws = np.random.default_rng(0).normal(size=(9, 2))
    >>> round(frechet_distance(draws + 3.0, draws), 6)
    18.0
    """
    first, second = np.asarray(features, np.float64), np.asarray(real, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"features must be [N, D] and [M, D], got {first.shape} and {second.shape}"
        )
    if min(len(first), len(second)) < 2:
        raise ValueError("features must be of at least two examples each")
    apart = float(np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2))
    one, other = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (first, second))
    # tr (AB)^1/2 via a symmetric matrix, which avoids complex numbers and the root of a
    # near-singular product.
    root = _root(one)
    shared = np.sqrt(np.maximum(linalg.eigvalsh(root @ other @ root), 0.0)).sum()
    return max(apart + float(np.trace(one) + np.trace(other)) - 2 * float(shared), 0.0)


def _root(matrix: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    values, vectors = linalg.eigh(matrix)
    found: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return found


def mean_pairwise_distance(features: Real[np.ndarray, "N D"]) -> float:
    """Computes the mean pairwise distance of features.

    Args:
      features: N at least 2.

    >>> mean_pairwise_distance(np.array([[0.0, 0.0], [3.0, 4.0]]))
    5.0
    """
    array = np.asarray(features, np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(f"features must be [N, D] with N at least 2, got {array.shape}")
    # From differences, since squares of features far from 0 would cancel.
    return float(distance.pdist(array).mean())
