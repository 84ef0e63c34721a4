"""Graded distortions (corruptions) of ONE image, for tests of perceptual ordering.

Each is a function `(image in [0, 1], strength in [0, 1], generator) -> image`; strength 0 changes
nothing, 1 leaves little. To add one, write a function and register it in `DISTORTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

Distortion = Callable[
    [Float[np.ndarray, "H W C"], float, np.random.Generator], Float[np.ndarray, "H W C"]
]


def noise(
    image: Float[np.ndarray, "H W C"], strength: float, rng: np.random.Generator
) -> Float[np.ndarray, "H W C"]:
    """Adds Gaussian noise with a standard deviation of up to 0.4."""
    return np.clip(image + 0.4 * strength * rng.standard_normal(image.shape), 0, 1)


def blur(
    image: Float[np.ndarray, "H W C"], strength: float, rng: np.random.Generator
) -> Float[np.ndarray, "H W C"]:
    """Applies a Gaussian blur with a standard deviation of up to a tenth of the side."""
    del rng
    sigma = 0.1 * strength * image.shape[0]
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def contrast(
    image: Float[np.ndarray, "H W C"], strength: float, rng: np.random.Generator
) -> Float[np.ndarray, "H W C"]:
    """Shrinks contrast towards the mean of each channel."""
    del rng
    mean = image.mean(axis=(0, 1), keepdims=True)
    return mean + (1 - 0.9 * strength) * (image - mean)


def brightness(
    image: Float[np.ndarray, "H W C"], strength: float, rng: np.random.Generator
) -> Float[np.ndarray, "H W C"]:
    """Darkens the image towards black."""
    del rng
    return (1 - 0.9 * strength) * image


def shift(
    image: Float[np.ndarray, "H W C"], strength: float, rng: np.random.Generator
) -> Float[np.ndarray, "H W C"]:
    """Shifts horizontally by up to a quarter of the side, bilinear, with edges repeated."""
    del rng
    return ndimage.shift(image, (0, 0.25 * strength * image.shape[1], 0), order=1, mode="nearest")


def rotate(
    image: Float[np.ndarray, "H W C"], strength: float, rng: np.random.Generator
) -> Float[np.ndarray, "H W C"]:
    """Rotates by up to 45 degrees, bilinear, with edges repeated."""
    del rng
    return ndimage.rotate(image, 45 * strength, reshape=False, order=1, mode="nearest")


def occlusion(
    image: Float[np.ndarray, "H W C"], strength: float, rng: np.random.Generator
) -> Float[np.ndarray, "H W C"]:
    """Covers the centre with a grey square of up to three quarters of the side."""
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
    name: str, images: Float[np.ndarray, "N H W C"], strengths: Sequence[float], *, seed: int = 0
) -> Float[np.ndarray, "N S H W C"]:
    """Distorts every image at every strength, in float32; one noise draw per image.

    Args:
      name: one of `DISTORTIONS`.
      images: in [0, 1].
      strengths: S numbers in [0, 1].
      seed: seed of the noise.

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
