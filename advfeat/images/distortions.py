"""Graded distortions of ONE image, for what has to be ordered by strength.

Each is `(image [H, W, C] in [0, 1], strength in [0, 1], generator) -> image`; 0 changes nothing, 1
leaves little. A new one is a function and a line in `DISTORTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

Distortion = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def noise(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian, standard deviation up to 0.4."""
    return np.clip(image + 0.4 * strength * rng.standard_normal(image.shape), 0, 1)


def blur(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian, standard deviation up to a tenth of the side."""
    del rng
    sigma = 0.1 * strength * image.shape[0]
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def contrast(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Towards the mean of each channel."""
    del rng
    mean = image.mean(axis=(0, 1), keepdims=True)
    return mean + (1 - 0.9 * strength) * (image - mean)


def brightness(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Towards black."""
    del rng
    return (1 - 0.9 * strength) * image


def shift(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Sideways by up to a quarter of the side, bilinear, the edge continued."""
    del rng
    return ndimage.shift(image, (0, 0.25 * strength * image.shape[1], 0), order=1, mode="nearest")


def rotate(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """By up to 45 degrees, bilinear, the edge continued."""
    del rng
    return ndimage.rotate(image, 45 * strength, reshape=False, order=1, mode="nearest")


def occlusion(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A grey square in the middle, up to three quarters of the side."""
    del rng
    height, width, _ = image.shape
    half = 0.375 * strength
    rows = np.abs((np.arange(height) + 0.5) / height - 0.5) < half
    columns = np.abs((np.arange(width) + 0.5) / width - 0.5) < half
    return np.where((rows[:, None] & columns[None, :])[:, :, None], 0.5, image)


DISTORTIONS: dict[str, Distortion] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
    "shift": shift,
    "rotate": rotate,
    "occlusion": occlusion,
}


def graded(
    name: str, images: np.ndarray, strengths: Sequence[float], *, seed: int = 0
) -> np.ndarray:
    """`[N, S, H, W, C]` float32, every image at every strength, noise drawn once per image.

    Args:
      name: one of `DISTORTIONS`.
      images: `[N, H, W, C]` in [0, 1].
      strengths: S numbers in [0, 1].
      seed: of the noise.

    Raises:
      ValueError: for an unknown name, or a strength outside [0, 1].
    """
    if name not in DISTORTIONS:
        raise ValueError(f"name must be one of {', '.join(DISTORTIONS)}, got {name!r}")
    if not all(0 <= strength <= 1 for strength in strengths):
        raise ValueError(f"strengths must lie in [0, 1], got {tuple(strengths)}")
    made = [
        [DISTORTIONS[name](image, s, np.random.default_rng([seed, i])) for s in strengths]
        for i, image in enumerate(np.asarray(images, np.float64))
    ]
    return np.clip(np.array(made), 0, 1).astype(np.float32)
