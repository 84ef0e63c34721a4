"""Whether a map says what the network uses: insertion, deletion, infidelity and sensitivity.

Petsiuk et al. (2018), https://arxiv.org/abs/1806.07421; Yeh et al. (2019),
https://arxiv.org/abs/1901.09392.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from advfeat.checks import check_positive
from advfeat.edges import on_one
from advfeat.numerics import scaled
from advfeat.objectives.features import class_score
from advfeat.saliency.types import Saliency
from advfeat.threats.norms import l2_length
from advfeat.types import Array, Key, ModelFn


def curve(
    model_fn: ModelFn, x: Array, other: Array, ranking: Array, y: Any, *, steps: int = 32
) -> Array:
    """The class's probability while pixels of `x` give way to `other`, the most important first.

    Deletion is `x` giving way to grey (or to another substrate); insertion is the substrate giving
    way to the image, `curve(model_fn, blurred, image, ...)`.

    Args:
      model_fn: the network, logits `[K]`.
      x: ONE image `[H, W, C]`, where the curve begins.
      other: like `x`, where it ends.
      ranking: `[H, W]`, the larger, the earlier.
      y: the class.
      steps: intervals of the curve.

    Returns:
      `[steps + 1]` probabilities, from no pixel to all of them: `ceil(index * H * W / steps)` have
      given way at each.

    Raises:
      ValueError: for a ranking of another shape, or steps below 1.
    """
    check_positive(steps, name="steps")
    if ranking.shape != x.shape[:2]:
        raise ValueError(f"ranking must have shape {x.shape[:2]}, got {ranking.shape}")
    # How many pixels come before each one; of equal ones the first comes first.
    before = jnp.argsort(jnp.argsort(-ranking.ravel())).reshape(ranking.shape)
    # Whole numbers: the product of a rounded share and the size may lie above the one meant.
    counts = [-(-index * ranking.size // steps) for index in range(steps + 1)]

    def at(count: Array) -> Array:
        gone = before < count
        mixed = jnp.where(gone[:, :, None], other, x)
        return jax.nn.softmax(model_fn(mixed))[y]

    return jax.lax.map(at, jnp.asarray(counts, jnp.int32))


def curve_area(values: Array) -> Array:
    """`[]`, the area under a curve of `[n]` values over [0, 1], by trapezoids.

    >>> float(curve_area(jnp.array([1.0, 0.5, 0.0])))
    0.5
    """
    return jnp.mean((values[1:] + values[:-1]) / 2)


def infidelity(
    attribution: Array,
    key: Key,
    model_fn: ModelFn,
    x: Array,
    y: Any,
    *,
    sigma: float = 0.2,
    samples: int = 100,
) -> Array:
    """How badly a map foretells what noise does to the logit: definition 2.1, at its best scale.

    The perturbation is Gaussian noise. A map may be off by a factor, as the authors let it: the
    best one is found by least squares, so that maps of different units can be compared.

    Args:
      attribution: like `x`, in units of logit per pixel (a gradient).
      key: a typed key.
      model_fn: the network.
      x: ONE image.
      y: the class.
      sigma: standard deviation of the noise.
      samples: draws.

    Returns:
      `[]`, the mean squared error over the mean squared change of the logit: 0 foretells all of it,
      1 nothing.
    """
    check_positive(samples, name="samples")
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma!r}")
    key, x, y = on_one(class_score(), key, model_fn, x, y, box=False)
    if attribution.shape != x.shape:
        raise ValueError(f"attribution must have shape {x.shape}, got {attribution.shape}")
    here = model_fn(x)[y]

    def at(index: Array) -> tuple[Array, Array]:
        noise = sigma * jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        return jnp.sum(noise * attribution), here - model_fn(x - noise)[y]

    foretold, seen = jax.lax.map(at, jnp.arange(samples, dtype=jnp.uint32), batch_size=10)
    # Neither the map's nor the network's scale matters, however small.
    foretold, seen = scaled(foretold)[0], scaled(seen)[0]
    scale = jnp.sum(foretold * seen) / jnp.maximum(jnp.sum(foretold**2), 1e-30)
    return jnp.mean((scale * foretold - seen) ** 2) / jnp.maximum(jnp.mean(seen**2), 1e-30)


def max_sensitivity(
    method: Saliency,
    key: Key,
    model_fn: ModelFn,
    x: Array,
    y: Any,
    *,
    radius: float = 0.02,
    samples: int = 10,
) -> Array:
    """How far a map moves when the image hardly does: definition 2.3, relative to the map.

    Args:
      method: of which the map is.
      key: a typed key; the method's own draws are the same for all images.
      model_fn: the network.
      x: ONE image.
      y: the class.
      radius: of the uniform noise, per pixel.
      samples: draws, of which the worst counts.

    Returns:
      `[]`, the largest `|map(x + noise) - map(x)| / |map(x)|`; NaN for a map of zeros, which has
      no length to compare with.
    """
    check_positive(samples, name="samples")
    if not radius > 0:
        raise ValueError(f"radius must be above 0, got {radius!r}")
    key, x, y = on_one(method, key, model_fn, x, y, box=False)
    key_method, key_noise = jax.random.split(key)

    def at(index: Array) -> Array:
        draw = jax.random.fold_in(key_noise, index)
        noise = jax.random.uniform(draw, x.shape, x.dtype, -radius, radius)
        return method(key_method, model_fn, x + jnp.where(index < samples, noise, 0.0), y)

    # The image itself goes last, so that the method is compiled once.
    maps = jax.lax.map(at, jnp.arange(samples + 1, dtype=jnp.uint32)).reshape(samples + 1, -1)
    here = maps[-1]
    moved = jax.vmap(l2_length)(maps[:-1] - here[None])
    length = l2_length(here)
    return jnp.where(length > 0, jnp.max(moved) / jnp.where(length > 0, length, 1.0), jnp.nan)
