"""Gradient filters for attacks, which confine perturbations to where natural images vary.

A perturbation may use all of pixel space; natural images do not. Components outside their range are
easy to learn but tell nothing about unperturbed images, so a network trained on perturbed images
learns them first and little else (screened on CIFAR-10: docs/results/mislabeled.md).
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float

from advfeat.types import Array

OPPONENT = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3.0], [2.0], [6.0]])
"""Orthonormal opponent colour axes: brightness, red-green, yellow-blue."""


def chroma420(image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Averages chroma over 2x2 blocks and keeps brightness, like 4:2:0 chroma subsampling in JPEG.

    Args:
      image: grey images and odd sizes are returned unchanged.
    """
    height, width, channels = image.shape
    if channels != 3 or height % 2 or width % 2:
        return image
    brightness = jnp.mean(image, axis=-1, keepdims=True)
    blocks = (image - brightness).reshape(height // 2, 2, width // 2, 2, channels)
    mean = jnp.mean(blocks, axis=(1, 3), keepdims=True)
    return brightness + jnp.broadcast_to(mean, blocks.shape).reshape(image.shape)


@functools.cache
def cosine_matrix(size: int) -> Float[np.ndarray, "frequency pixel"]:
    """Returns the orthonormal DCT-II matrix."""
    return scipy.fft.dct(np.eye(size), axis=0, norm="ortho")


def _block(height: int, width: int) -> int:
    """Returns the largest block size up to 8 that tiles the image."""
    return max(size for size in range(1, 9) if height % size == 0 and width % size == 0)


def _axes(channels: int) -> np.ndarray:
    return OPPONENT if channels == 3 else np.eye(channels)


@dataclasses.dataclass(frozen=True)
class SpectralFilter:
    """Weights per colour axis and frequency of a block DCT. Static and hashable.

    Attributes:
      weights: `[C][b][b]`, as nested tuples.
    """

    weights: tuple[tuple[tuple[float, ...], ...], ...]

    def __call__(self, gradient: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        """Filters a gradient whose sides are multiples of the block size."""
        weights = jnp.asarray(self.weights, gradient.dtype)
        height, width, channels = gradient.shape
        size = weights.shape[-1]
        cosines = jnp.asarray(cosine_matrix(size), gradient.dtype)
        axes = jnp.asarray(_axes(channels), gradient.dtype)
        blocks = gradient.reshape(height // size, size, width // size, size, channels)
        spectrum = jnp.einsum("ah,xhywj,bw,cj->xaybc", cosines, blocks, cosines, axes)
        spectrum = spectrum * jnp.transpose(weights, (1, 2, 0))[None, :, None, :, :]
        blocks = jnp.einsum("ah,xaybc,bw,cj->xhywj", cosines, spectrum, cosines, axes)
        return blocks.reshape(gradient.shape)


def natural_spectrum(
    images: Float[np.ndarray, "N H W C"], *, band: int = 6, power: float = 1.0
) -> SpectralFilter:
    """Returns the filter that weights each frequency by its strength in natural images.

    The weight is `min(1, rms / reference) ** power`, where the reference is the rms of brightness
    in the diagonal band `band` (0 … 14 for blocks of 8): frequencies at least as strong pass
    unchanged, weaker ones are attenuated.

    Args:
      images: in [0, 1]; a few hundred suffice.
      band: reference band, the sum of the two frequency indices.
      power: exponent of the weights; 0 passes everything.

    Raises:
      ValueError: if the band does not exist for this block size.
    """
    count, height, width, channels = images.shape
    size = _block(height, width)
    if not 0 <= band <= 2 * size - 2:
        raise ValueError(f"band must lie in [0, {2 * size - 2}] for blocks of {size}, got {band}")
    cosines, axes = cosine_matrix(size), _axes(channels)
    blocks = images.reshape(count, height // size, size, width // size, size, channels)
    spectrum = np.einsum("ah,nxhywj,bw,cj->nxaybc", cosines, blocks, cosines, axes, optimize=True)
    rms = np.sqrt(np.mean(spectrum**2, axis=(0, 1, 3)))  # [b, b, C]
    diagonal = np.add.outer(np.arange(size), np.arange(size)) == band
    reference = np.sqrt(np.mean(rms[..., 0][diagonal] ** 2))
    weights = np.minimum(1.0, rms / max(reference, 1e-12)) ** power
    return SpectralFilter(
        tuple(
            tuple(tuple(float(value) for value in row) for row in plane)
            for plane in np.transpose(weights, (2, 0, 1))
        )
    )
