"""Random changes of ONE image, `(key, image [H, W, C]) -> image`, that leave its class alone.

Training augments with them, inside jit and keyed by step and example id; attacks look through them
so that a perturbation survives them (input diversity, expectation over transformations).
"""

from __future__ import annotations

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


TRANSFORMS: dict[str, Transform] = {
    "none": identity,
    "flip": flip,
    "shift1": shift1,
    "shift2": shift2,
    "flip_shift4": flip_shift4,
}
