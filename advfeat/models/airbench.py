"""A network that trains fast: whitened patches, pooling, and convolutions that begin as identities.

Jordan (2024), "94% on CIFAR-10 in 3.29 seconds on a single GPU", https://arxiv.org/abs/2404.00498,
after Page (2018), https://myrtle.ai/how-to-train-your-resnet, and hlb-CIFAR10.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from advfeat.models.base import Architecture
from advfeat.models.layers import SMALL, Conv, conv

PATCH = 2
"""Side of the whitened patches, in pixels."""

FROZEN = "whitening"
"""The flax collection of the first layer's kernel, which is no parameter."""


def mostly_identity(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Draws a kernel `[h, w, I, O]` whose first I filters each pass one input channel on."""
    kernel = SMALL(key, shape, dtype)
    rows, columns, channels, features = shape
    same = min(channels, features)
    identity = jnp.zeros((rows, columns, channels, same), dtype)
    index = jnp.arange(same)
    identity = identity.at[rows // 2, columns // 2, index, index].set(1.0)
    return kernel.at[..., :same].set(identity)


def pooled(x: Array, size: int) -> Array:
    """Takes the maximum over blocks of `size` x `size` pixels; rows and columns left over are
    dropped. `[B, H, W, C]` -> `[B, H // size, W // size, C]`.

    On CPU its gradient takes a third of the time of `flax.linen.max_pool`'s, which scatters
    (128 images of 31 x 31 x 64, two busy cores: 76 and 233 ms; forwards 23 and 6)."""
    count, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(count, rows, size, columns, size, channels).max(axis=(2, 4))


class Shifted(nn.Module):
    """Batch normalisation without a scale, whose shift learns 64 times as fast as other weights.

    Running statistics follow the last few batches (momentum 0.6).
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalises; `train` uses the batch's own statistics and updates the running ones."""
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.6,
            epsilon=1e-12,
            use_scale=False,
            use_bias=False,
            dtype=self.dtype,
            name="norm",
        )(x)
        shift = self.param("shift", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        # The gradient of the factor comes on top: 8 * 8.
        return x + (8.0 * shift).astype(x.dtype).reshape(1, 1, 1, -1)


class Airbench(Architecture):
    """Whitened 2x2 patches, then three groups of two 3x3 convolutions, each pooled by 2.

    The groups have w, 4w and 4w channels, the representation 4w. The first layer's kernel is fixed;
    `adapted` takes it from images. The paper's activation is GELU; here it is ReLU, faster on CPU,
    and guided backpropagation and inversion need it. Layers: "stem", "block1", "block2", "block3".
    """

    width: int = 64

    def features(self, x: Array, *, train: bool) -> Array:
        """Returns the maximum of the last activations, divided by 9, which keeps logits small."""
        x = self.tap("stem", self.relu(self._whitened(x)))
        for index, features in enumerate((self.width, 4 * self.width, 4 * self.width), 1):
            for part in (1, 2):
                name = f"{index}_{part}"
                start = mostly_identity
                x = Conv(features, dtype=self.dtype, init_fn=start, name=f"conv{name}")(x)
                if part == 1:
                    x = pooled(x, 2)
                x = Shifted(self.dtype, name=f"norm{name}")(x, train=train)
                last = (index, part) == (3, 2)
                x = (self.rectify_last if last else self.relu)(x)
            x = self.tap(f"block{index}", x)
        return x.max(axis=(1, 2)) / 9.0

    def _whitened(self, x: Array) -> Array:
        """Projects every patch onto fixed directions and their opposites, and shifts."""
        size = PATCH * PATCH * x.shape[-1]
        shape = (PATCH, PATCH, x.shape[-1], size)
        kernel = self.variable(FROZEN, "kernel", lambda: jnp.eye(size).reshape(shape)).value
        both = jnp.concatenate([kernel, -kernel], axis=-1).astype(self.dtype)
        shift = self.param("shift", nn.initializers.zeros, (2 * size,), jnp.float32)
        shift = shift.astype(self.dtype).reshape(1, 1, 1, -1)
        return conv(x.astype(self.dtype), both, padding="VALID") + shift

    def adapted(self, variables: Any, images: np.ndarray) -> Any:
        """Returns variables whose first layer whitens the patches of these images."""
        x = np.asarray(self._normalise(jnp.asarray(images, jnp.float32)))
        return {**variables, FROZEN: {"kernel": jnp.asarray(whitening(x))}}

    @property
    def downsampling(self) -> int:
        """A patch and three poolings."""
        return 9


def whitening(images: np.ndarray) -> np.ndarray:
    """Returns the kernel `[2, 2, C, 4C]` that makes the patches of images uncorrelated, variance 1.

    Args:
      images: `[N, H, W, C]`, normalised.

    >>> rng = np.random.default_rng(0)
    >>> images = rng.normal(size=(50, 9, 9, 1)) @ np.full((1, 3), 0.3) + rng.random((50, 9, 9, 3))
    >>> kernel = whitening(images)
    >>> found = np.einsum("nhwijc,ijco->nhwo", patches(images), kernel).reshape(-1, 12)
    >>> bool(np.allclose(found.T @ found / len(found), np.eye(12), atol=0.01))
    True
    """
    seen = patches(images)
    flat = seen.reshape(-1, seen[0, 0, 0].size).astype(np.float64)
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    kernel = vectors / np.sqrt(values + 5e-4)  # the constant is Jordan's
    return kernel[:, ::-1].reshape(*seen.shape[3:], -1).astype(np.float32)


def patches(images: np.ndarray) -> np.ndarray:
    """Returns all 2x2 patches: `[N, H, W, C]` -> `[N, H - 1, W - 1, 2, 2, C]`."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    return np.moveaxis(windows, 3, -1)
