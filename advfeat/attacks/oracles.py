"""Oracles: how an attack sees the network at a point."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from advfeat.numerics import finite
from advfeat.types import Array, Evaluation, Key, ModelFn, Objective, Oracle, with_key


def white_box(objective: Objective, model_fn: ModelFn, y: Any) -> Oracle:
    """Returns the white-box oracle: one forward and one backward pass per evaluation.

    Infinite and NaN entries of the gradient are set to 0 here, on behalf of every attack.
    """

    def oracle(key: Key, x: Array) -> Evaluation:
        def score_fn(point: Array) -> tuple[Array, Array]:
            return objective(key, with_key(model_fn, key), point, y)

        (score, success), gradient = jax.value_and_grad(score_fn, has_aux=True)(x)
        return Evaluation(score, success, finite(gradient))

    return oracle


def scores_only(objective: Objective, model_fn: ModelFn, y: Any) -> Oracle:
    """Returns the black-box oracle: one forward pass, no gradient."""

    def oracle(key: Key, x: Array) -> Evaluation:
        score, success = objective(key, with_key(model_fn, key), x, y)
        return Evaluation(score, success, None)

    return oracle


def averaged(oracle: Oracle, draws: int) -> Oracle:
    """Averages an oracle over random draws; success means success in more than half of them.

    Draws are evaluated sequentially, so memory does not grow with their number.
    """
    if draws == 1:
        return oracle

    def mean(key: Key, x: Array) -> Evaluation:
        seen = jax.lax.map(lambda k: oracle(k, x), jax.random.split(key, draws))
        score, grad = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), (seen.score, seen.grad))
        return Evaluation(score, 2 * jnp.sum(seen.success) > draws, grad)

    return mean


def with_confidence(oracle: Oracle, confidence: Array) -> Oracle:
    """Wraps an oracle so that success requires a score >= `confidence` if that is positive."""

    def demanding(key: Key, x: Array) -> Evaluation:
        seen = oracle(key, x)
        enough = (seen.score >= confidence) | (confidence <= 0.0)
        return seen._replace(success=seen.success & enough)

    return demanding
