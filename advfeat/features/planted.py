"""Synthetic images with known features: a shape, a faint texture and a corner mark.

They provide ground truth for methods that claim to show what a network uses. The shape is the
robust feature, the texture (a fixed pattern of signs with an amplitude of a few grey levels) the
non-robust one, and the mark the spurious cue. Each feature indicates a class, and has a strength
and an agreement: how often its class is the label.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped

from advfeat.checks import check_between, check_positive
from advfeat.edges import THREEFRY, one_key
from advfeat.types import Array, Key, Label, pytree, static

SHAPES = ("disc", "square", "cross", "ring")
"""Shapes by class; also the class names."""

FEATURES = ("shape", "texture", "mark")


class Drawing(NamedTuple):
    """One image with the locations of its features.

    Attributes:
      image: in [0, 1].
      shape: pixels of the shape.
      mark: pixels of the mark.
      classes: the classes that shape, texture and mark indicate.
    """

    image: Float[Array, "H W C"]
    shape: Bool[Array, "H W"]
    mark: Bool[Array, "H W"]
    classes: Int[Array, " 3"]


@pytree
class Planted:
    """Distribution of images with planted features; make one with `planted`.

    Attributes:
      strengths: contrast of shape, texture and mark in units of [0, 1] pixels.
      agreements: probability that each indicates the label; otherwise it indicates a class
        drawn uniformly.
      noise: standard deviation of the background.
      textures: patterns of signs.
      size: side of the images, static.
      mark_size: side of the mark, static.
    """

    strengths: Float[Array, " 3"]
    agreements: Float[Array, " 3"]
    noise: Float[Array, ""]
    textures: Float[Array, "K H W C"]
    size: int = static()
    mark_size: int = static()

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.textures.shape[0])

    def draw(self, key: Key, label: Label) -> Drawing:
        """Draws one image with a given label."""
        key_agree, key_other, key_place, key_noise, key_colour = jax.random.split(key, 5)
        agrees = jax.random.uniform(key_agree, (3,)) < self.agreements
        others = jax.random.randint(key_other, (3,), 0, self.num_classes)
        classes = jnp.where(agrees, label, others).astype(jnp.int32)
        shape, mark = self._shape(key_place, classes[0]), self.mark(classes[2])
        channels = self.textures.shape[-1]
        # The colour carries no class information.
        colour = jax.random.uniform(key_colour, (channels,), minval=0.6, maxval=1.0)
        image = 0.4 + self.noise * jax.random.normal(key_noise, self.textures.shape[1:])
        image += self.strengths[0] * shape[:, :, None] * colour[None, None, :]
        image += self.strengths[1] * self.textures[classes[1]]
        image += self.strengths[2] * mark[:, :, None]
        return Drawing(jnp.clip(image, 0.0, 1.0), shape, mark, classes)

    def _shape(self, key: Key, which: Label) -> Bool[Array, "H W"]:
        key_size, key_row, key_column = jax.random.split(key, 3)
        radius = self.size * jax.random.uniform(key_size, (), minval=0.16, maxval=0.26)
        # The shape stays clear of the marks in the corners.
        low, high = radius + self.mark_size, self.size - radius - self.mark_size
        row = low + (high - low) * jax.random.uniform(key_row)
        column = low + (high - low) * jax.random.uniform(key_column)
        rows = jnp.abs(jnp.arange(self.size) + 0.5 - row)[:, None]
        columns = jnp.abs(jnp.arange(self.size) + 0.5 - column)[None, :]
        far = jnp.sqrt(rows**2 + columns**2)
        found = jnp.stack(
            [
                far <= radius,
                jnp.maximum(rows, columns) <= 0.85 * radius,
                (jnp.minimum(rows, columns) <= 0.3 * radius)
                & (jnp.maximum(rows, columns) <= radius),
                (far <= radius) & (far >= 0.6 * radius),
            ]
        )
        return found[which]

    def mark(self, which: Label) -> Bool[Array, "H W"]:
        """Returns the pixels of the mark of a class."""
        near = jnp.arange(self.size) < self.mark_size
        far = near[::-1]
        rows = jnp.where(which < 2, near, far)
        columns = jnp.where(which % 2 == 0, near, far)
        return rows[:, None] & columns[None, :]


def planted(
    *,
    num_classes: int = 4,
    size: int = 32,
    channels: int = 3,
    strengths: tuple[float, float, float] = (0.35, 6 / 255, 0.5),
    agreements: tuple[float, float, float] = (1.0, 1.0, 1.0),
    noise: float = 0.03,
    mark_size: int = 3,
    seed: int = 0,
) -> Planted:
    """Returns a distribution of images with planted features.

    Args:
      num_classes: 2 to 4.
      size: side of the images.
      channels: number of channels.
      strengths: contrast of shape, texture and mark.
      agreements: how often each indicates the label: 1 for always, 0 for chance level.
      noise: standard deviation of the background.
      mark_size: side of the mark.
      seed: seed of the textures.

    Raises:
      ValueError: for arguments out of range, or images too small for the shapes.

    >>> world = planted(agreements=(1.0, 1.0, 0.0))
    >>> drawn = drawings(jax.random.key(0), world, jnp.array([2]))
    >>> drawn.image.shape, drawn.classes[:, :2].tolist()
    ((1, 32, 32, 3), [[2, 2]])
    """
    check_positive(channels, name="channels")
    check_positive(mark_size, name="mark_size")
    if not 2 <= num_classes <= len(SHAPES):
        raise ValueError(f"num_classes must lie in [2, {len(SHAPES)}], got {num_classes}")
    if size < 4 * mark_size or size < 8:
        raise ValueError(f"size must be at least {max(8, 4 * mark_size)}, got {size}")
    for name, values in (("strengths", strengths), ("agreements", agreements)):
        if len(values) != len(FEATURES):
            raise ValueError(f"{name} must be three numbers, {', '.join(FEATURES)}: got {values}")
        check_between(values, name=name, high=1.0, closed=(True, True))
    check_between(noise, name="noise", high=1.0, closed=(True, True))
    signs = jax.random.rademacher(
        jax.random.key(seed, impl=THREEFRY), (num_classes, size, size, channels), jnp.float32
    )
    return Planted(
        strengths=jnp.asarray(strengths, jnp.float32),
        agreements=jnp.asarray(agreements, jnp.float32),
        noise=jnp.asarray(noise, jnp.float32),
        textures=signs,
        size=size,
        mark_size=mark_size,
    )


@jax.jit
def drawings(
    key: Key,
    world: Planted,
    labels: Integer[Array, " N"],
    *,
    ids: Integer[Array, " N"] | None = None,
) -> Drawing:
    """Draws images for many labels with independent keys; every leaf has a leading axis.

    Args:
      key: a typed key.
      world: the distribution.
      labels: a class each.
      ids: ids that are folded into the key; by default 0 … N-1.
    """
    ids = jnp.arange(len(labels)) if ids is None else ids
    keys = jax.vmap(jax.random.fold_in, (None, 0))(one_key(key), ids)
    return jax.vmap(world.draw)(keys, labels)


def pointing(ranking: Float[Array, "H W"], region: Bool[Array, "H W"]) -> Float[Array, ""]:
    """Measures how well a saliency map localises a region.

    Args:
      ranking: non-negative importance.
      region: its pixels.

    Returns:
      The area under the ROC curve for separating the pixels of the region from the others: 0.5 for
      an uninformative map.
    """
    flat, member = ranking.ravel(), region.astype(jnp.float32).ravel()
    # Mann-Whitney, ties counted as one half.
    higher = (flat[:, None] > flat[None, :]) + 0.5 * (flat[:, None] == flat[None, :])
    pairs = jnp.sum(member) * jnp.sum(1 - member)
    wins = jnp.sum(higher * member[:, None] * (1 - member)[None, :])
    return wins / jnp.maximum(pairs, 1.0)


def share_inside(
    change: Shaped[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"]
) -> Float[np.ndarray, " N"]:
    """Computes the share of the squared change of images that lies inside a region.

    Args:
      change: `[N, H, W, C]`, the difference of two images.
      region: `[N, H, W]` bool.

    Returns:
      `[N]` float64 in [0, 1]; 0 without a change.

    >>> share_inside(np.array([[[[1.0], [2.0]]]]), np.array([[[False, True]]])).tolist()
    [0.8]
    """
    square = (change.astype(np.float64) ** 2).sum(axis=-1)
    total = np.maximum(square.sum(axis=(1, 2)), 1e-30)
    return np.asarray((square * region).sum(axis=(1, 2)) / total)
