"""Residual networks for small images: basic, bottleneck and wide, optionally with ImageNet stem.

References:
  He et al., Deep residual learning for image recognition (CVPR 2016; arXiv 1512.03385).
  He et al., Identity mappings in deep residual networks (ECCV 2016; arXiv 1603.05027).
  Zagoruyko and Komodakis, Wide residual networks (BMVC 2016; arXiv 1605.07146).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from advfeat.models.base import Architecture
from advfeat.models.layers import HE, SMALL, Conv

STEMS = ("cifar", "imagenet")
NORMALISATIONS = ("batch", "group", "none")


class Normalisation(nn.Module):
    """Batch normalisation (momentum 0.9, epsilon 1e-5), or a replacement without batch statistics.

    Attributes:
      kind: "batch", "group" (at most 32 groups) or "none".
      dtype: of the computation.
      zero: initialises the scale to zero instead of one.
    """

    kind: str = "batch"
    dtype: Any = jnp.float32
    zero: bool = False

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalises; `train` uses the batch's own statistics and updates the running ones."""
        scale = nn.initializers.zeros if self.zero else nn.initializers.ones
        if self.kind == "batch":
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                dtype=self.dtype,
                scale_init=scale,
            )(x)
        if self.kind == "group":
            groups = math.gcd(32, x.shape[-1])
            return nn.GroupNorm(groups, epsilon=1e-5, dtype=self.dtype, scale_init=scale)(x)
        return x


def initialiser(norm: str) -> Callable[..., Array]:
    """Returns the kernel initialiser of convolutions before this kind of normalisation."""
    return HE if norm == "none" else SMALL


class Block(nn.Module):
    """One residual block: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1), post- or pre-activation.

    Attributes:
      features: channels of the 3x3 convolutions.
      stride: of the first 3x3 convolution.
      bottleneck: whether 1x1 convolutions surround one 3x3; the output has 4 times `features`.
      preact: normalise and activate before each convolution instead of after it.
      norm: see `Normalisation`.
      zero_scale: initialises the last normalisation of a post-activation block to scale zero.
      dtype: of the computation.
      relu: the activation function.
      last_relu: the activation function after the sum (post-activation blocks).
    """

    features: int
    stride: int = 1
    bottleneck: bool = False
    preact: bool = False
    norm: str = "batch"
    zero_scale: bool = False
    dtype: Any = jnp.float32
    relu: Callable[[Array], Array] = nn.relu
    last_relu: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """`[B, H, W, C]` -> `[B, ceil(H / stride), ceil(W / stride), C']`."""
        middle, end = (self.features, 3, self.stride), (self.features, 3, 1)
        plan = [middle, end]
        if self.bottleneck:
            plan = [(self.features, 1, 1), middle, (4 * self.features, 1, 1)]
        project = self.stride > 1 or x.shape[-1] != plan[-1][0]
        out, shortcut, start = x, x, initialiser(self.norm)
        for index, (channels, size, stride) in enumerate(plan):
            last = index == len(plan) - 1
            if self.preact:
                out = self.relu(self._norm(f"norm{index + 1}")(out, train=train))
                if index == 0 and project:
                    shortcut = out
            name = f"conv{index + 1}"
            out = Conv(channels, size, stride, dtype=self.dtype, init_fn=start, name=name)(out)
            if not self.preact:
                zero = last and self.zero_scale
                out = self._norm(f"norm{index + 1}", zero=zero)(out, train=train)
                out = out if last else self.relu(out)
        if project:
            shortcut = Conv(
                plan[-1][0], 1, self.stride, dtype=self.dtype, init_fn=start, name="project"
            )(shortcut)
            if not self.preact:
                shortcut = self._norm("project_norm")(shortcut, train=train)
        return out + shortcut if self.preact else self.last_relu(out + shortcut)

    def _norm(self, name: str, *, zero: bool = False) -> Normalisation:
        return Normalisation(self.norm, dtype=self.dtype, zero=zero, name=name)


class ResNet(Architecture):
    """A residual network; `width` is the number of channels of the first stage.

    Each stage after the first doubles the channels and halves height and width. Layers: "stem",
    "block1", "block2", ... (the last one before the pooling), then the pooled "representation".

    Attributes:
      blocks: residual blocks in each stage.
      widen: factor on the channels of every stage, but not of the stem (wide residual networks).
      bottleneck: bottleneck instead of basic blocks.
      preact: pre-activation blocks (He et al. 2016b) instead of post-activation ones.
      stem: "cifar" (3x3) or "imagenet" (7x7 with stride 2, then 3x3 max-pooling with stride 2).
      norm: "batch", "group" or "none".
      zero_scale: initialises every block as the identity (post-activation blocks only).
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    widen: int = 1
    bottleneck: bool = False
    preact: bool = False
    stem: str = "cifar"
    norm: str = "batch"
    zero_scale: bool = False

    def check(self) -> None:
        """Also checks blocks, stem and normalisation."""
        super().check()
        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"blocks must be at least 1 in every stage, got {self.blocks}")
        if self.widen < 1:
            raise ValueError(f"widen must be at least 1, got {self.widen}")
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {self.stem!r}")
        if self.norm not in NORMALISATIONS:
            raise ValueError(f"norm must be one of {', '.join(NORMALISATIONS)}, got {self.norm!r}")
        if self.zero_scale and (self.preact or self.norm == "none"):
            raise ValueError("zero_scale needs post-activation blocks with a normalisation")

    def features(self, x: Array, *, train: bool) -> Array:
        """Returns the spatial mean of the last activations."""
        x = self.tap("stem", self._stem(x, train=train))
        index = 0
        for stage, count in enumerate(self.blocks):
            for position in range(count):
                index += 1
                block = Block(
                    self.widen * self.width << stage,
                    stride=2 if stage > 0 and position == 0 else 1,
                    bottleneck=self.bottleneck,
                    preact=self.preact,
                    norm=self.norm,
                    zero_scale=self.zero_scale,
                    dtype=self.dtype,
                    relu=self.relu,
                    last_relu=self.rectify_last if index == sum(self.blocks) else self.relu,
                    name=f"stage{stage + 1}_{position + 1}",
                )
                x = self.tap(f"block{index}", block(x, train=train))
        if self.preact:
            x = self.rectify_last(
                Normalisation(self.norm, dtype=self.dtype, name="final_norm")(x, train=train)
            )
        return x.mean(axis=(1, 2))

    def _stem(self, x: Array, *, train: bool) -> Array:
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        start = initialiser(self.norm)
        x = Conv(self.width, size, stride, dtype=self.dtype, init_fn=start, name="stem_conv")(x)
        if not self.preact:
            x = self.relu(
                Normalisation(self.norm, dtype=self.dtype, name="stem_norm")(x, train=train)
            )
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        return x

    @property
    def downsampling(self) -> int:
        """A factor of two per stage after the first, and four for the ImageNet stem."""
        return 2 ** (len(self.blocks) - 1) * (4 if self.stem == "imagenet" else 1)
