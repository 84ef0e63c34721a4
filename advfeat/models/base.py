"""Base class of networks: pixel normalisation, named layers and the classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

TAPS = "intermediates"
"""The flax collection that named layers are sown into."""

DELTAS = "deltas"
"""The flax collection of offsets added to named layers; never initialised, only passed in."""


class Architecture(nn.Module):
    """A classifier of images `[B, H, W, C]` in [0, 1] with named layers.

    A subclass defines `features` (normalised images to the representation) and `downsampling`.
    Whatever it passes to `tap` can be retrieved by name.

    Attributes:
      num_classes: number of logits, at least 2.
      width: a positive integer that scales all layers; its meaning depends on the network.
      mean: per channel, subtracted from the pixels; None means 0.
      std: per channel, divides the pixels; None means 1.
      dtype: of the computation; parameters and logits are float32.
      relu: the activation function of all layers; see `advfeat.models.rectifiers`.
      last_relu: the activation function of the representation; None means `relu`.
    """

    num_classes: int
    width: int = 32
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dtype: Any = jnp.float32
    relu: Callable[[Array], Array] = nn.relu
    last_relu: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns logits `[B, num_classes]`; `train` uses the batch's own statistics."""
        self.check()
        if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                "x must be a batch of images [B, H, W, C] of floating point numbers in [0, 1], "
                f"got {x.dtype} of shape {x.shape}"
            )
        if min(x.shape[1:3]) < self.downsampling:
            raise ValueError(
                f"images of {x.shape[1]}x{x.shape[2]} pixels are too small for "
                f"{type(self).__name__}, whose strides need at least "
                f"{self.downsampling}x{self.downsampling}"
            )
        x = self.features(self._normalise(x).astype(self.dtype), train=train)
        # The classifier is cheap but sensitive to rounding, so it stays in float32.
        x = self.tap("representation", x.astype(jnp.float32))
        return self.tap("logits", nn.Dense(self.num_classes, name="classifier")(x))

    @property
    def rectify_last(self) -> Callable[[Array], Array]:
        """The activation function that produces the representation."""
        return self.relu if self.last_relu is None else self.last_relu

    def check(self) -> None:
        """Raises a ValueError that names a field out of range; subclasses check their own
        fields."""
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if self.std is not None and min(self.std, default=0.0) <= 0:
            raise ValueError(f"std must be positive in every channel, got {self.std}")

    def adapted(self, variables: Any, images: np.ndarray) -> Any:
        """Returns initial variables with what a network takes from its training images.

        Args:
          variables: from `models.init`.
          images: `[N, H, W, C]` in [0, 1], a few thousand.
        """
        del images
        return variables

    def features(self, x: Array, *, train: bool) -> Array:
        """Maps normalised images `[B, H, W, C]` to the representation `[B, D]`."""
        raise NotImplementedError

    @property
    def downsampling(self) -> int:
        """The product of all strides: the minimum height and width of an image."""
        return 1

    def tap(self, name: str, x: Array) -> Array:
        """Names activations, so that `model_fn(..., layer=name)` can return them.

        An offset under the same name in the collection `DELTAS` is added to them.
        """
        if self.has_variable(DELTAS, name):
            x = x + self.get_variable(DELTAS, name).astype(x.dtype)
        self.sow(TAPS, name, x)
        return x

    def _normalise(self, x: Array) -> Array:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, x.shape[-1]):
                raise ValueError(
                    f"{name} has {len(values)} values, the images have {x.shape[-1]} channels"
                )
        if self.mean is not None:
            x = x - jnp.asarray(self.mean, x.dtype).reshape(1, 1, 1, -1)
        if self.std is not None:
            x = x / jnp.asarray(self.std, x.dtype).reshape(1, 1, 1, -1)
        return x
