"""Random class-preserving transforms of ONE image, `(key, image) -> image`.

Training uses them as augmentation, inside jit and keyed by step and example id. Attacks apply them
so that perturbations survive them (input diversity, expectation over transformation).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from advfeat.types import Array, Key

Transform = Callable[[Key, Float[Array, "H W C"]], Float[Array, "H W C"]]


def identity(key: Key, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Returns the image unchanged."""
    del key
    return image


def flip(key: Key, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Mirrors the image horizontally with probability one half."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def shift(key: Key, image: Float[Array, "H W C"], *, pixels: int) -> Float[Array, "H W C"]:
    """Shifts by up to `pixels` in each direction with zero padding: the usual padded crop."""
    height, width, _ = image.shape
    offset = jax.random.randint(key, (2,), -pixels, pixels + 1)

    def selector(size: int, by: Array) -> Array:
        # Products with 0 and 1 are exact, and their gradient avoids a scatter, slow on CPU.
        return (jnp.arange(size)[:, None] + by == jnp.arange(size)[None, :]).astype(image.dtype)

    rows, columns = selector(height, offset[0]), selector(width, offset[1])
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("ij,kl,jlc->ikc", rows, columns, image, precision=exact)


def shift1(key: Key, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Shifts by up to one pixel, for 8x8 digits."""
    return shift(key, image, pixels=1)


def shift2(key: Key, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Shifts by up to two pixels, for MNIST, where flips change the class."""
    return shift(key, image, pixels=2)


def flip_shift2(key: Key, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Flips and shifts by up to two pixels, for short trainings on CIFAR-10."""
    key_flip, key_shift = jax.random.split(key)
    return shift(key_shift, flip(key_flip, image), pixels=2)


def flip_shift4(key: Key, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Flips and shifts by up to four pixels, the standard augmentation for CIFAR-10."""
    key_flip, key_shift = jax.random.split(key)
    return shift(key_shift, flip(key_flip, image), pixels=4)


@dataclasses.dataclass(frozen=True)
class RandomAffine:
    """Random rotation, scale and shift, bilinear, with edges repeated; see `random_affine`.

    Attributes:
      pixels: maximum shift in each direction.
      degrees: maximum rotation.
      scale: maximum scale factor, and inverse of the minimum.
    """

    pixels: float
    degrees: float
    scale: float

    def __call__(self, key: Key, image: Float[Array, "*n H W C"]) -> Float[Array, "*n H W C"]:
        """Transforms an image, or each of several independently."""
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
    """Returns the random transform for transformation-robust feature visualisation.

    Olah et al. (2017), https://distill.pub/2017/feature-visualization, whose values (16 pixels, 5
    degrees, 1.1) are for images of 128 to 224 pixels.

    Args:
      pixels: maximum shift in each direction.
      degrees: maximum rotation.
      scale: maximum scale factor, at least 1.

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
    "flip_shift2": flip_shift2,
    "flip_shift4": flip_shift4,
}
