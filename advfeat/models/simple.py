"""Small networks without batch normalisation: linear, a multilayer perceptron, a small CNN."""

from __future__ import annotations

import flax.linen as nn
from jax import Array

from advfeat.models.base import Architecture
from advfeat.models.layers import Conv

_HE = nn.initializers.he_normal()


class Linear(Architecture):
    """Softmax regression on the pixels; `width` is ignored."""

    def features(self, x: Array, *, train: bool) -> Array:
        """Returns the flattened normalised image."""
        del train
        return x.reshape(x.shape[0], -1)


class MLP(Architecture):
    """A multilayer perceptron with `depth` hidden layers ("hidden1", ...) of `width` units."""

    width: int = 256
    depth: int = 2

    def check(self) -> None:
        """Also requires at least one hidden layer."""
        super().check()
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")

    def features(self, x: Array, *, train: bool) -> Array:
        """Returns the last hidden layer's activations."""
        del train
        x = x.reshape(x.shape[0], -1)
        for index in range(1, self.depth + 1):
            dense = nn.Dense(self.width, dtype=self.dtype, kernel_init=_HE, name=f"dense{index}")
            relu = self.rectify_last if index == self.depth else self.relu
            x = self.tap(f"hidden{index}", relu(dense(x)))
        return x


class CNN(Architecture):
    """Three 3x3 convolutions of w, 2w and 4w channels and a dense layer of 8w units.

    The last two convolutions have stride 2: 8x8 digits end as 2x2 and 28x28 ones as 7x7.
    Layers: "block1", "block2", "block3".
    """

    width: int = 16

    def features(self, x: Array, *, train: bool) -> Array:
        """Returns the dense layer's activations."""
        del train
        for index, stride in enumerate((1, 2, 2)):
            channels = self.width << index
            layer = Conv(
                channels, stride=stride, use_bias=True, dtype=self.dtype, name=f"conv{index + 1}"
            )
            x = self.tap(f"block{index + 1}", self.relu(layer(x)))
        x = x.reshape(x.shape[0], -1)
        dense = nn.Dense(8 * self.width, dtype=self.dtype, kernel_init=_HE, name="dense")
        return self.rectify_last(dense(x))

    @property
    def downsampling(self) -> int:
        """Two strides of 2."""
        return 4
