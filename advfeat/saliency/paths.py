"""Path attribution from a baseline: integrated gradients and expected gradients.

Sundararajan et al. (2017), https://arxiv.org/abs/1703.01365; Erion et al. (2021),
https://arxiv.org/abs/1906.10670 (GradientSHAP is its unsmoothed variant).
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
from advfeat.saliency.gradient import score_gradient
from advfeat.types import Array, Key, ModelFn, Number, Objective, pytree, static, with_key


@pytree
class IntegratedGradients:
    """Mean gradient along the line from a baseline, times the displacement.

    Make one with `integrated_gradients`.

    Attributes:
      baseline: an image, or a number for all pixels.
      objective: objective to differentiate, static.
      steps: number of gradients along the line, static.
      chunk: gradients computed at a time, static.
    """

    baseline: Float[Array, "*x"]
    objective: Objective = static()
    steps: int = static()
    chunk: int = static()

    def __call__(
        self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any
    ) -> Float[Array, "*x"]:
        """Attributes the score of ONE example; the sum is close to the change of the score."""
        key, x, y = on_one(key, self, model_fn, x, y, box=False)
        start = jnp.broadcast_to(self.baseline, x.shape).astype(x.dtype)
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)
        padding = -self.steps % self.chunk
        # Padded with the last node, an inner point: at the ends of the line the gradient may be
        # NaN, and 0 times NaN is NaN.
        shares = np.pad((nodes + 1) / 2, (0, padding), mode="edge").reshape(-1, self.chunk)
        parts = np.pad(weights / 2, (0, padding)).reshape(-1, self.chunk)

        def at(share: Array) -> Array:
            point = start + share * (x - start)
            return score_gradient(key, self.objective, model_fn, point, y)

        def add(total: Array, these: tuple[Array, Array]) -> tuple[Array, None]:
            share, part = these
            return total + jnp.tensordot(part, jax.vmap(at)(share).astype(wide), axes=1), None

        wide = jnp.promote_types(x.dtype, jnp.float32)  # accumulate in float32 at least
        given = jnp.asarray(shares, x.dtype), jnp.asarray(parts, wide)
        mean, _ = jax.lax.scan(add, jnp.zeros_like(x, dtype=wide), given)
        return (mean * (x - start)).astype(x.dtype)


@pytree
class ExpectedGradients:
    """Integrated gradients over random baselines, with one random point on each line.

    Make one with `expected_gradients`.

    Attributes:
      baselines: images.
      objective: objective to differentiate, static.
      samples: number of draws, static.
      chunk: draws computed at a time, static.
    """

    baselines: Float[Array, " N *x"]
    objective: Objective = static()
    samples: int = static()
    chunk: int = static()

    def __call__(
        self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any
    ) -> Float[Array, "*x"]:
        """Attributes the score of ONE example."""
        key, x, y = on_one(key, self, model_fn, x, y, box=False)
        if self.baselines.shape[1:] != x.shape:
            raise ValueError(
                f"baselines must be images of shape {x.shape}, got {self.baselines.shape[1:]}"
            )

        def at(index: Array) -> Array:
            key_row, key_share = jax.random.split(jax.random.fold_in(key, index))
            row = jax.random.randint(key_row, (), 0, self.baselines.shape[0])
            start = self.baselines[row].astype(x.dtype)
            point = start + jax.random.uniform(key_share, (), x.dtype) * (x - start)
            return score_gradient(key, self.objective, model_fn, point, y) * (x - start)

        def add(total: Array, first: Array) -> tuple[Array, None]:
            index = first + jnp.arange(self.chunk, dtype=jnp.uint32)
            maps = jax.vmap(at)(index)
            counts = (index < self.samples).reshape(-1, *[1] * x.ndim)
            return total + jnp.sum(jnp.where(counts, maps.astype(wide), 0.0), 0), None

        wide = jnp.promote_types(x.dtype, jnp.float32)  # accumulate in float32 at least
        firsts = jnp.arange(0, self.samples, self.chunk, dtype=jnp.uint32)
        total, _ = jax.lax.scan(add, jnp.zeros_like(x, dtype=wide), firsts)
        return (total / self.samples).astype(x.dtype)


def integrated_gradients(
    objective: Objective = class_score(),
    *,
    baseline: Number | Float[Array, "*x"] = 0.0,
    steps: int = 32,
    chunk: int = 4,
) -> IntegratedGradients:
    """Returns integrated gradients along a straight line, by Gauss-Legendre quadrature.

    Args:
      objective: objective to differentiate; by default the logit of the class `y`.
      baseline: start of the line: a number for all pixels (black by default), or an image.
      steps: number of gradients. The paper's 20 to 300 are for a Riemann sum; quadrature needs
        fewer. `saliency.completeness` measures whether they suffice for a network.
      chunk: gradients computed at a time. Memory grows with it, not with `steps`.

    Returns:
      A method whose map sums to the score at the image minus the score at the baseline.

    Raises:
      ValueError: for steps or chunk below 1, or a baseline that is not finite.

    >>> method = integrated_gradients(steps=3)
    >>> found = method(jax.random.key(0), lambda x: x**3, jnp.array([2.0, 1.0]), 0)
    >>> found.round(4).tolist()
    [8.0, 0.0]
    """
    check_positive(steps, name="steps")
    check_positive(chunk, name="chunk")
    if not np.isfinite(np.asarray(baseline)).all():
        raise ValueError("baseline must be finite")
    start = jnp.asarray(baseline, jnp.float32)
    return IntegratedGradients(start, objective, steps, min(chunk, steps))


def expected_gradients(
    baselines: Float[Array, " N *x"],
    objective: Objective = class_score(),
    *,
    samples: int = 100,
    chunk: int = 4,
) -> ExpectedGradients:
    """Returns expected gradients: integrated gradients averaged over a data set of baselines.

    Args:
      baselines: training images.
      objective: objective to differentiate; by default the logit of the class `y`.
      samples: number of draws of a baseline and a point on its line.
      chunk: draws computed at a time.

    Raises:
      ValueError: for an empty set of baselines, or samples or chunk below 1.
    """
    check_positive(samples, name="samples")
    check_positive(chunk, name="chunk")
    if jnp.ndim(baselines) < 2 or jnp.shape(baselines)[0] < 1:
        raise ValueError(
            f"baselines must be images [N, H, W, C], at least one, got {jnp.shape(baselines)}"
        )
    return ExpectedGradients(
        jnp.asarray(baselines, jnp.float32),
        objective,
        samples,
        min(chunk, samples),
    )


def completeness(
    key: Key, method: IntegratedGradients, model_fn: ModelFn, x: Float[Array, "*x"], y: Any
) -> Float[Array, ""]:
    """Computes the completeness error: map sum against score change, relative to that change.

    Args:
      key: a typed key.
      method: from `integrated_gradients`.
      model_fn: the network.
      x: ONE example.
      y: aim of the method's objective.
    """

    def score(point: Array) -> Array:
        return method.objective(key, with_key(model_fn, key), point, y)[0]

    start = jnp.broadcast_to(method.baseline, x.shape).astype(x.dtype)
    change = score(x) - score(start)
    missed = jnp.sum(method(key, model_fn, x, y)) - change
    return jnp.abs(missed) / jnp.maximum(jnp.abs(change), 1e-12)
