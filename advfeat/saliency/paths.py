"""Gradients along a path from a baseline: integrated gradients and expected gradients.

Sundararajan et al. (2017), https://arxiv.org/abs/1703.01365; Erion et al. (2021),
https://arxiv.org/abs/1906.10670 (GradientSHAP is its unsmoothed relative).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.checks import check_positive
from advfeat.edges import on_one
from advfeat.objectives.features import class_score
from advfeat.saliency.gradient import score_gradient
from advfeat.types import Array, Key, ModelFn, Objective, with_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """The mean gradient on the way from a baseline, times the way; see `integrated_gradients`.

    Attributes:
      baseline: `[H, W, C]`, or a number for all pixels.
      objective: what is differentiated, static.
      steps: gradients on the way, static.
      chunk: of them at a time, static.
    """

    baseline: Array
    objective: Objective = dataclasses.field(metadata={"static": True})
    steps: int = dataclasses.field(metadata={"static": True})
    chunk: int = dataclasses.field(metadata={"static": True})

    def __call__(self, key: Key, model_fn: ModelFn, x: Array, y: Any) -> Array:
        """The attribution of ONE example; its sum is nearly the score's change on the way."""
        key, x, y = on_one(self, key, model_fn, x, y, box=False)
        start = jnp.broadcast_to(self.baseline, x.shape).astype(x.dtype)
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)
        padding = -self.steps % self.chunk
        # Padded by the last node, which is inside the line: at its ends there may be no gradient,
        # and 0 times NaN is NaN.
        shares = np.pad((nodes + 1) / 2, (0, padding), mode="edge").reshape(-1, self.chunk)
        parts = np.pad(weights / 2, (0, padding)).reshape(-1, self.chunk)

        def at(share: Array) -> Array:
            point = start + share * (x - start)
            return score_gradient(self.objective, key, model_fn, point, y)

        def add(total: Array, these: tuple[Array, Array]) -> tuple[Array, None]:
            share, part = these
            return total + jnp.tensordot(part, jax.vmap(at)(share).astype(wide), axes=1), None

        wide = jnp.promote_types(x.dtype, jnp.float32)  # what is added up
        given = jnp.asarray(shares, x.dtype), jnp.asarray(parts, wide)
        mean, _ = jax.lax.scan(add, jnp.zeros_like(x, dtype=wide), given)
        return (mean * (x - start)).astype(x.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ExpectedGradients:
    """Integrated gradients over random baselines, one random point each; see `expected_gradients`.

    Attributes:
      baselines: `[N, H, W, C]`.
      objective: what is differentiated, static.
      samples: draws, static.
      chunk: of them at a time, static.
    """

    baselines: Array
    objective: Objective = dataclasses.field(metadata={"static": True})
    samples: int = dataclasses.field(metadata={"static": True})
    chunk: int = dataclasses.field(metadata={"static": True})

    def __call__(self, key: Key, model_fn: ModelFn, x: Array, y: Any) -> Array:
        """The attribution of ONE example."""
        key, x, y = on_one(self, key, model_fn, x, y, box=False)
        if self.baselines.shape[1:] != x.shape:
            raise ValueError(
                f"baselines must be images of shape {x.shape}, got {self.baselines.shape[1:]}"
            )

        def at(index: Array) -> Array:
            key_row, key_share = jax.random.split(jax.random.fold_in(key, index))
            row = jax.random.randint(key_row, (), 0, self.baselines.shape[0])
            start = self.baselines[row].astype(x.dtype)
            point = start + jax.random.uniform(key_share, (), x.dtype) * (x - start)
            return score_gradient(self.objective, key, model_fn, point, y) * (x - start)

        def add(total: Array, first: Array) -> tuple[Array, None]:
            index = first + jnp.arange(self.chunk, dtype=jnp.uint32)
            maps = jax.vmap(at)(index)
            counts = (index < self.samples).reshape(-1, *[1] * x.ndim)
            return total + jnp.sum(jnp.where(counts, maps.astype(wide), 0.0), 0), None

        wide = jnp.promote_types(x.dtype, jnp.float32)  # what is added up
        firsts = jnp.arange(0, self.samples, self.chunk, dtype=jnp.uint32)
        total, _ = jax.lax.scan(add, jnp.zeros_like(x, dtype=wide), firsts)
        return (total / self.samples).astype(x.dtype)


def integrated_gradients(
    objective: Objective | None = None,
    *,
    baseline: float | Array = 0.0,
    steps: int = 32,
    chunk: int = 4,
) -> IntegratedGradients:
    """Integrated gradients along the straight line, by Gauss-Legendre quadrature.

    Args:
      objective: what is differentiated; by default the logit of the class `y`.
      baseline: where the line begins: a number for all pixels (black by default), or an image.
      steps: gradients on the line; the paper's 20 to 300 are those of a Riemann sum, of which the
        quadrature needs fewer: `completeness` says whether it has enough.
      chunk: gradients at a time. Memory grows with it, not with the steps.

    Returns:
      A method whose map sums to the score at the image less the score at the baseline.

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
    return IntegratedGradients(start, objective or class_score(), steps, min(chunk, steps))


def expected_gradients(
    baselines: Array,
    objective: Objective | None = None,
    *,
    samples: int = 100,
    chunk: int = 4,
) -> ExpectedGradients:
    """Expected gradients: integrated gradients whose baseline is a data set.

    Args:
      baselines: `[N, H, W, C]`, training images.
      objective: what is differentiated; by default the logit of the class `y`.
      samples: draws of a baseline and of a point on its line.
      chunk: of them at a time.

    Raises:
      ValueError: for no baseline, or samples or chunk below 1.
    """
    check_positive(samples, name="samples")
    check_positive(chunk, name="chunk")
    if jnp.ndim(baselines) < 2 or jnp.shape(baselines)[0] < 1:
        raise ValueError(
            f"baselines must be images [N, H, W, C], at least one, got {jnp.shape(baselines)}"
        )
    return ExpectedGradients(
        jnp.asarray(baselines, jnp.float32), objective or class_score(), samples,
        min(chunk, samples),
    )  # fmt: skip


def completeness(
    method: IntegratedGradients, key: Key, model_fn: ModelFn, x: Array, y: Any
) -> Array:
    """`[]`, by how much the map's sum misses the change of the score, as a share of that change.

    Args:
      method: from `integrated_gradients`.
      key: a typed key.
      model_fn: the network.
      x: ONE example.
      y: what the method's objective takes.
    """

    def score(point: Array) -> Array:
        return method.objective(with_key(model_fn, key), point, y, key)[0]

    start = jnp.broadcast_to(method.baseline, x.shape).astype(x.dtype)
    change = score(x) - score(start)
    missed = jnp.sum(method(key, model_fn, x, y)) - change
    return jnp.abs(missed) / jnp.maximum(jnp.abs(change), 1e-12)
