"""Faithfulness of saliency maps: insertion, deletion, infidelity and sensitivity.

Petsiuk et al. (2018), https://arxiv.org/abs/1806.07421; Yeh et al. (2019),
https://arxiv.org/abs/1901.09392.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from advfeat.checks import check_positive
from advfeat.edges import on_one
from advfeat.numerics import scaled
from advfeat.objectives.features import class_score
from advfeat.saliency.types import Saliency
from advfeat.threats.norms import l2_length
from advfeat.types import Array, Key, Label, ModelFn


def curve(
    model_fn: ModelFn,
    x: Float[Array, "H W C"],
    other: Float[Array, "H W C"],
    ranking: Float[Array, "H W"],
    y: Label,
    *,
    steps: int = 32,
) -> Float[Array, " {steps}+1"]:
    """Traces the class probability as pixels of `x` are replaced by `other`, most important first.

    Deletion replaces the image by grey (or another substrate); insertion replaces the substrate by
    the image, `curve(model_fn, blurred, image, ...)`.

    Args:
      model_fn: the network.
      x: ONE image, start of the curve.
      other: end of the curve.
      ranking: importance; larger values are replaced earlier.
      y: the class.
      steps: number of intervals of the curve.

    Returns:
      The probabilities, from no pixel to all: `ceil(index * H * W / steps)` pixels are
      replaced at each index.

    Raises:
      ValueError: for a ranking of another shape, or steps below 1.
    """
    check_positive(steps, name="steps")
    if ranking.shape != x.shape[:2]:
        raise ValueError(f"ranking must have shape {x.shape[:2]}, got {ranking.shape}")
    # Rank of each pixel; ties are broken by position.
    before = jnp.argsort(jnp.argsort(-ranking.ravel())).reshape(ranking.shape)
    # Integer arithmetic: the product of a rounded share and the size may exceed the exact count.
    counts = [-(-index * ranking.size // steps) for index in range(steps + 1)]

    def at(count: Array) -> Array:
        gone = before < count
        mixed = jnp.where(gone[:, :, None], other, x)
        return jax.nn.softmax(model_fn(mixed))[y]

    return jax.lax.map(at, jnp.asarray(counts, jnp.int32))


def curve_area(values: Float[Array, " n"]) -> Float[Array, ""]:
    """Computes the area under a curve of values over [0, 1] by the trapezoidal rule.

    >>> float(curve_area(jnp.array([1.0, 0.5, 0.0])))
    0.5
    """
    return jnp.mean((values[1:] + values[:-1]) / 2)


def infidelity(
    key: Key,
    attribution: Float[Array, "*x"],
    model_fn: ModelFn,
    x: Float[Array, "*x"],
    y: Label,
    *,
    sigma: float = 0.2,
    samples: int = 100,
) -> Float[Array, ""]:
    """Computes the infidelity of a map (definition 2.1) under Gaussian noise, at its best scale.

    Measures how badly the map predicts the effect of noise on the logit. As in the authors' work,
    the map may be off by a factor, which is fitted by least squares so that maps in different units
    are comparable.

    Args:
      key: a typed key.
      attribution: in units of logit per pixel (a gradient).
      model_fn: the network.
      x: ONE image.
      y: the class.
      sigma: standard deviation of the noise.
      samples: number of draws.

    Returns:
      The mean squared error over the mean squared change of the logit: 0 for a perfect
      prediction, 1 for an uninformative map.
    """
    check_positive(samples, name="samples")
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma!r}")
    key, x, y = on_one(key, class_score(), model_fn, x, y, box=False)
    if attribution.shape != x.shape:
        raise ValueError(f"attribution must have shape {x.shape}, got {attribution.shape}")
    here = model_fn(x)[y]

    def at(index: Array) -> tuple[Array, Array]:
        noise = sigma * jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        return jnp.sum(noise * attribution), here - model_fn(x - noise)[y]

    foretold, seen = jax.lax.map(at, jnp.arange(samples, dtype=jnp.uint32), batch_size=10)
    # Normalised, so that even a tiny scale of the map or the network does not matter.
    foretold, seen = scaled(foretold)[0], scaled(seen)[0]
    scale = jnp.sum(foretold * seen) / jnp.maximum(jnp.sum(foretold**2), 1e-30)
    return jnp.mean((scale * foretold - seen) ** 2) / jnp.maximum(jnp.mean(seen**2), 1e-30)


def max_sensitivity(
    key: Key,
    method: Saliency,
    model_fn: ModelFn,
    x: Float[Array, "*x"],
    y: Any,
    *,
    radius: float = 0.02,
    samples: int = 10,
) -> Float[Array, ""]:
    """Computes the maximum sensitivity of a map to small noise (definition 2.3), relative to it.

    Args:
      key: a typed key; the method uses the same draws for all images.
      method: the saliency method.
      model_fn: the network.
      x: ONE image.
      y: the class.
      radius: radius of the uniform noise, per pixel.
      samples: number of draws; the worst one counts.

    Returns:
      The largest `|map(x + noise) - map(x)| / |map(x)|`; NaN for a zero map.
    """
    check_positive(samples, name="samples")
    if not radius > 0:
        raise ValueError(f"radius must be above 0, got {radius!r}")
    key, x, y = on_one(key, method, model_fn, x, y, box=False)
    key_method, key_noise = jax.random.split(key)

    def at(index: Array) -> Array:
        draw = jax.random.fold_in(key_noise, index)
        noise = jax.random.uniform(draw, x.shape, x.dtype, -radius, radius)
        return method(key_method, model_fn, x + jnp.where(index < samples, noise, 0.0), y)

    # The image itself is part of the same loop, so that the method is compiled only once.
    maps = jax.lax.map(at, jnp.arange(samples + 1, dtype=jnp.uint32)).reshape(samples + 1, -1)
    here = maps[-1]
    moved = jax.vmap(l2_length)(maps[:-1] - here[None])
    length = l2_length(here)
    return jnp.where(length > 0, jnp.max(moved) / jnp.where(length > 0, length, 1.0), jnp.nan)
