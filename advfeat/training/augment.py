"""Augmentation inside jit, per example and keyed by step and example id.

Each is `(key, image [H, W, C]) -> image`; a batch is a vmap.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advfeat.types import Array, Key

Augmentation = Callable[[Key, Array], Array]


def identity(key: Key, image: Array) -> Array:
    """No augmentation."""
    del key
    return image


def flip(key: Key, image: Array) -> Array:
    """A mirror image, half of the time."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def shift(key: Key, image: Array, *, pixels: int) -> Array:
    """A shift by up to `pixels` in each direction, zeros coming in: the usual padded crop."""
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    corner = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)


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


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": identity,
    "flip": flip,
    "shift1": shift1,
    "shift2": shift2,
    "flip_shift4": flip_shift4,
}


def augmentation(name: str) -> Augmentation:
    """An augmentation by name.

    Raises:
      ValueError: for an unknown name.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {name!r}")
    return AUGMENTATIONS[name]
