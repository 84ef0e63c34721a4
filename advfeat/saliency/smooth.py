"""SmoothGrad: averages the maps of any method under noise, in memory independent of N.

Smilkov et al. (2017), https://arxiv.org/abs/1706.03825; the squared mean and the variance are those
of Hooker et al. (2019), https://arxiv.org/abs/1806.10758, and Adebayo et al. (2018),
https://arxiv.org/abs/1810.03307.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from advfeat.checks import check_between, check_positive
from advfeat.edges import on_one
from advfeat.saliency.gradient import gradient
from advfeat.saliency.types import Saliency
from advfeat.types import Array, Key, ModelFn, Number, pytree, static

HOW = ("mean", "squared", "variance")


@pytree
class Smooth:
    """Average of a method over noisy copies of the image; make one with `smoothgrad`.

    Attributes:
      method: the method to average.
      sigma: standard deviation of the noise, in units of [0, 1] pixels.
      samples: number of copies, static.
      how: one of `HOW`, static.
      chunk: copies evaluated at a time, static.
    """

    method: Saliency
    sigma: Float[Array, ""]
    samples: int = static()
    how: str = static()
    chunk: int = static()

    def __call__(
        self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any
    ) -> Float[Array, "*map"]:
        """Computes the map of ONE example."""
        key, x, y = on_one(key, self, model_fn, x, y, box=False)

        def at(index: Array) -> Array:
            key_noise, key_method = jax.random.split(jax.random.fold_in(key, index))
            noise = self.sigma * jax.random.normal(key_noise, x.shape, x.dtype)
            return self.method(key_method, model_fn, x + noise, y)

        # Accumulate in float32 at least: in half precision the fiftieth copy would add nothing.
        wide = jnp.promote_types(x.dtype, jnp.float32)
        # Sums of squares lose precision to cancellation, so they are shifted by a first map.
        shape = jax.eval_shape(at, jnp.uint32(0)).shape  # of a map, which may differ from the image
        plain = jnp.zeros_like(x, shape=shape, dtype=wide)
        centre = at(jnp.uint32(0)).astype(wide) if self.how == "variance" else plain

        def add(sums: tuple[Array, Array], first: Array) -> tuple[tuple[Array, Array], None]:
            index = first + jnp.arange(self.chunk, dtype=jnp.uint32)
            maps = jax.vmap(at)(index).astype(wide) - centre[None]
            counts = (index < self.samples).reshape(-1, *[1] * len(shape))
            maps = jnp.where(counts, maps, 0.0)
            return (sums[0] + jnp.sum(maps, 0), sums[1] + jnp.sum(maps**2, 0)), None

        none = jnp.zeros_like(centre)
        firsts = jnp.arange(0, self.samples, self.chunk, dtype=jnp.uint32)
        (total, squares), _ = jax.lax.scan(add, (none, none), firsts)
        mean, square = total / self.samples, squares / self.samples
        if self.how == "mean":
            return mean.astype(x.dtype)
        if self.how == "squared":
            return square.astype(x.dtype)
        variance = jnp.maximum(square - mean**2, 0.0) * (self.samples / (self.samples - 1))
        return variance.astype(x.dtype)


def smoothgrad(
    method: Saliency | None = None,
    *,
    samples: int = 50,
    sigma: Number = 0.15,
    how: str = "mean",
    chunk: int = 4,
) -> Smooth:
    """Returns SmoothGrad of any method.

    Args:
      method: the method to average; by default the gradient of the class score.
      samples: N; 50 in the paper.
      sigma: standard deviation of the Gaussian noise, in units of [0, 1] pixels; the paper uses 10
        to 20 % of the range. Noisy images are not clipped, as in the paper.
      how: "mean" (signed, as in the paper's equation), "squared" (SmoothGrad squared) or "variance"
        (VarGrad, with the unbiased estimator).
      chunk: copies evaluated at a time. Memory grows with it, not with N. Small chunks fit the
        caches of a CPU; use larger ones for single images on an accelerator.

    Returns:
      A method. Copies have independent keys, so the map depends on the chunk only through the
      order of summation.

    Raises:
      ValueError: for N or chunk below 1, VarGrad of one copy, a negative sigma, or an unknown
        `how`.

    On a linear network every copy has the same gradient:

    >>> weights = jnp.array([[1.0, -2.0], [0.0, 3.0]])
    >>> method = smoothgrad(samples=7, sigma=0.3)
    >>> method(jax.random.key(0), lambda x: weights @ x, jnp.ones(2), 0).tolist()
    [1.0, -2.0]
    """
    check_positive(samples, name="samples")
    check_positive(chunk, name="chunk")
    check_between(sigma, name="sigma", high=jnp.inf, closed=(True, False))
    if how not in HOW:
        raise ValueError(f"how must be one of {', '.join(HOW)}, got {how!r}")
    if how == "variance" and samples < 2:
        raise ValueError(f"samples must be at least 2 for a variance, got {samples}")
    return Smooth(
        method or gradient(), jnp.asarray(sigma, jnp.float32), samples, how, min(chunk, samples)
    )
