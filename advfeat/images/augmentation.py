"""Random changes of ONE image, `(key, image [H, W, C]) -> image`, that leave its class alone.

Training augments with them, inside jit and keyed by step and example id; attacks look through them
so that a perturbation survives them (input diversity, expectation over transformations).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from advfeat.types import Array, Key

Transform = Callable[[Key, Array], Array]


def identity(key: Key, image: Array) -> Array:
    """No change."""
    del key
    return image


def flip(key: Key, image: Array) -> Array:
    """A mirror image, half of the time."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def shift(key: Key, image: Array, *, pixels: int) -> Array:
    """A shift by up to `pixels` in each direction, zeros coming in: the usual padded crop."""
    height, width, _ = image.shape
    offset = jax.random.randint(key, (2,), -pixels, pixels + 1)

    def selector(size: int, by: Array) -> Array:
        # A product with 0 and 1 is exact, and its gradient is no scatter, which is slow on CPU.
        return (jnp.arange(size)[:, None] + by == jnp.arange(size)[None, :]).astype(image.dtype)

    rows, columns = selector(height, offset[0]), selector(width, offset[1])
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("ij,kl,jlc->ikc", rows, columns, image, precision=exact)


def shift1(key: Key, image: Array) -> Array:
    """A shift by up to one pixel: digits of 8x8."""
    return shift(key, image, pixels=1)


def shift2(key: Key, image: Array) -> Array:
    """A shift by up to two pixels: MNIST, where a mirror image is another sign."""
    return shift(key, image, pixels=2)


def flip_shift4(key: Key, image: Array) -> Array:
    """Mirror and a shift by up to four pixels: what CIFAR-10 is usually trained with."""
    key_flip, key_shift = jax.random.split(key)
    return shift(key_shift, flip(key_flip, image), pixels=4)


@dataclasses.dataclass(frozen=True)
class RandomAffine:
    """A random rotation, scale and shift at once, bilinear, edges continued; see `looks`.

    Attributes:
      pixels: the largest shift in each direction.
      degrees: the largest rotation.
      scale: the largest factor, and the inverse of the smallest.
    """

    pixels: float
    degrees: float
    scale: float

    def __call__(self, key: Key, image: Array) -> Array:
        """The image as seen from nearby; of several `[n, H, W, C]`, each in its own way."""
        if image.ndim > 3:
            return jax.vmap(self)(jax.random.split(key, len(image)), image)
        height, width, _ = image.shape
        draws = jax.random.uniform(key, (4,), jnp.float32, -1.0, 1.0)
        angle = draws[0] * jnp.deg2rad(self.degrees)
        factor = jnp.exp(draws[1] * jnp.log(self.scale))
        rows = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
        columns = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
        cosine, sine = jnp.cos(angle) / factor, jnp.sin(angle) / factor
        at = [
            cosine * rows + sine * columns + (height - 1) / 2 + draws[2] * self.pixels,
            cosine * columns - sine * rows + (width - 1) / 2 + draws[3] * self.pixels,
        ]

        def sample(channel: Array) -> Array:
            return jax.scipy.ndimage.map_coordinates(channel, at, order=1, mode="nearest")

        return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def random_affine(*, pixels: float = 2.0, degrees: float = 5.0, scale: float = 1.1) -> RandomAffine:
    """The views that a picture of a unit should survive (transformation robustness).

    Olah et al. (2017), https://distill.pub/2017/feature-visualization, whose numbers (16 pixels, 5
    degrees, 1.1) are for images of 128 to 224 pixels.

    Args:
      pixels: the largest shift in each direction.
      degrees: the largest rotation.
      scale: the largest factor, at least 1.

    Raises:
      ValueError: for a negative shift or rotation, or a scale below 1.
    """
    if not pixels >= 0 or not degrees >= 0 or not 1 <= scale < float("inf"):
        raise ValueError(
            "pixels and degrees must be at least 0, scale at least 1: "
            f"got {pixels!r}, {degrees!r}, {scale!r}"
        )
    return RandomAffine(float(pixels), float(degrees), float(scale))


TRANSFORMS: dict[str, Transform] = {
    "none": identity,
    "flip": flip,
    "shift1": shift1,
    "shift2": shift2,
    "flip_shift4": flip_shift4,
}
