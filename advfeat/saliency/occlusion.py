"""Occlusion: the drop of the score when a patch is covered.

Zeiler and Fergus (2014), https://arxiv.org/abs/1311.2901.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from advfeat.checks import check_positive
from advfeat.edges import on_one
from advfeat.objectives.features import class_score
from advfeat.types import Array, Key, ModelFn, Number, Objective, pytree, static, with_key


@pytree
class Occlusion:
    """Occlusion by sliding patches; make one with `occlusion`.

    Attributes:
      value: fill value of a patch, one for all channels or one a channel.
      objective: objective that provides the score, static.
      size: side of a patch in pixels, static.
      stride: pixels between the starts of two patches, static.
      chunk: patches evaluated at a time, static.
    """

    value: Float[Array, "*C"]
    objective: Objective = static()
    size: int = static()
    stride: int = static()
    chunk: int = static()

    def __call__(
        self, key: Key, model_fn: ModelFn, x: Float[Array, "H W C"], y: Any
    ) -> Float[Array, "H W"]:
        """Computes the map: the mean score drop over the patches that cover each pixel."""
        key, x, y = on_one(key, self, model_fn, x, y, box=False)
        height, width, _ = x.shape
        if self.size > min(height, width):
            raise ValueError(f"size must be at most {min(height, width)}, got {self.size}")
        corners = np.array(
            [
                (row, column)
                for row in _begins(height, self.size, self.stride)
                for column in _begins(width, self.size, self.stride)
            ]
        )
        real = np.arange(-(-len(corners) // self.chunk) * self.chunk) < len(corners)
        corners = np.resize(corners, (len(real), 2))

        def score(point: Array) -> Array:
            return self.objective(key, with_key(model_fn, key), point, y)[0]

        whole = score(x)
        wide = jnp.promote_types(x.dtype, jnp.float32)  # accumulate in float32 at least
        rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]

        def lost(corner: Array) -> tuple[Array, Array]:
            inside = (rows >= corner[0]) & (rows < corner[0] + self.size)
            inside &= (columns >= corner[1]) & (columns < corner[1] + self.size)
            covered = jnp.where(inside[:, :, None], self.value.astype(x.dtype), x)
            return whole - score(covered), inside.astype(wide)

        def add(sums: tuple[Array, Array], these: tuple[Array, Array]) -> Any:
            corner, kept = these
            losses, masks = jax.vmap(lost)(corner)
            weights = kept.astype(wide)
            total = sums[0] + jnp.einsum("n,nhw->hw", weights * losses, masks)
            return (total, sums[1] + jnp.einsum("n,nhw->hw", weights, masks)), None

        none = jnp.zeros_like(x, shape=(height, width), dtype=wide)
        parts = corners.reshape(-1, self.chunk, 2), real.reshape(-1, self.chunk)
        (total, count), _ = jax.lax.scan(add, (none, none), jax.tree.map(jnp.asarray, parts))
        return (total / jnp.maximum(count, 1.0)).astype(x.dtype)


def _begins(side: int, size: int, stride: int) -> list[int]:
    """Returns the starts of the patches; the last patch ends at the edge of the image."""
    begins = list(range(0, side - size + 1, stride))
    return begins if begins[-1] == side - size else [*begins, side - size]


def occlusion(
    objective: Objective = class_score(),
    *,
    size: int = 4,
    stride: int = 2,
    value: Number | Float[Array, " C"] = 0.5,
    chunk: int = 16,
) -> Occlusion:
    """Returns a method that computes occlusion maps.

    Args:
      objective: objective that provides the score; by default the logit of the class `y`.
      size: side of a patch in pixels.
      stride: pixels between the starts of two patches, at most `size`, so that every pixel is
        covered.
      value: fill value: a number, or one per channel (e.g. the mean of the data set).
      chunk: patches evaluated at a time.

    Returns:
      A method whose map is `[H, W]`.

    Raises:
      ValueError: for sizes below 1, or a stride that skips pixels.

    On a linear network, a patch of one pixel removes that pixel's contribution:

    >>> weights = jnp.array([1.0, -2.0, 0.0, 3.0])
    >>> method = occlusion(size=1, stride=1, value=0.0)
    >>> x = jnp.ones((2, 2, 1))
    >>> network = lambda x: jnp.stack([weights @ x.ravel(), jnp.zeros(())])
    >>> method(jax.random.key(0), network, x, 0).tolist()
    [[1.0, -2.0], [0.0, 3.0]]
    """
    for name, number in (("size", size), ("stride", stride), ("chunk", chunk)):
        check_positive(number, name=name)
    if stride > size:
        raise ValueError(f"stride must be at most the size, {size}, got {stride}")
    return Occlusion(jnp.asarray(value, jnp.float32), objective, size, stride, chunk)
