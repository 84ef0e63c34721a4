"""Simulates the sample complexity of robustness in two models.

Schmidt et al. (2018), https://arxiv.org/abs/1804.11285.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat import stats
from advfeat.keys import stream
from advfeat.stats import Estimate
from advfeat.theory import bernoulli, gaussian
from advfeat.types import Key

GOAL = 0.01
"""The target error of the paper's theorems."""
Errors = Mapping[int, Mapping[str, np.ndarray]]
"""Number of examples and name of an error -> the error of every draw."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """One of the models with its parameters.

    Attributes:
      dim: d.
      scale: the Gaussian model's noise, or the Bernoulli model's bias.
      eps: L-infinity eps of the adversary.
      counts: numbers of training examples.
      draws: number of draws of the model and its training examples.
    """

    dim: int
    scale: float
    eps: float
    counts: tuple[int, ...]
    draws: int


def gaussian_model(*, dim: int, noise: float, eps: float, draws: int) -> Model:
    """Returns a Gaussian model with growing numbers of training examples.

    They double from one to the number from which the paper's upper bound guarantees `GOAL` (at
    least 16, at most 2^13).
    """
    enough = float(gaussian.upper_bound_count(dim, noise, eps, GOAL))
    top = int(np.ceil(np.log2(np.clip(enough, 16, 2**13))))
    counts = tuple(2**k for k in range(top + 1))
    return Model(dim=dim, scale=noise, eps=eps, counts=counts, draws=draws)


def bernoulli_model(
    *,
    dim: int = 400,
    eps: float = 0.2,
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    draws: int = 20,
) -> Model:
    """Returns a Bernoulli model in which one example gives a standard error of about `GOAL`.

    By default of a size at which every error is computed exactly in seconds.
    """
    return Model(dim=dim, scale=0.78 * dim**-0.25, eps=eps, counts=counts, draws=draws)


@functools.partial(jax.jit, static_argnames="dim")
def _gaussian_draws(
    keys: jax.Array, dim: int, noise: jax.Array, eps: jax.Array, count: jax.Array
) -> dict[str, jax.Array]:
    """Returns the errors for one number of examples, `[draws]` each."""

    def one(key: jax.Array) -> dict[str, jax.Array]:
        key_mean, key_draw, key_least = jax.random.split(key, 3)
        mean = gaussian.draw_mean(key_mean, dim)
        weights = gaussian.draw_estimator(key_draw, mean, noise, count)
        # The upper bounds assume means of length sqrt(d).
        fixed = gaussian.draw_mean(key_mean, dim, fixed_length=True)
        bounded = gaussian.draw_estimator(key_draw, fixed, noise, count)
        return {
            "standard": gaussian.robust_error(weights, mean, noise, 0.0),
            "robust": gaussian.robust_error(weights, mean, noise, eps),
            "least": gaussian.least_error(key_least, dim, noise, count, eps),
            "fixed_standard": gaussian.robust_error(bounded, fixed, noise, 0.0),
            "fixed_robust": gaussian.robust_error(bounded, fixed, noise, eps),
        }

    return jax.vmap(one)(keys)


def gaussian_errors(key: Key, model: Model) -> Errors:
    """Draws the Gaussian model and computes its errors: what `simulate_gaussian` takes long for.

    Args:
      key: a typed key.
      model: its parameters.

    Returns:
      By number of examples and name, the error of every draw, `[draws]`.
    """
    noise, eps = jnp.float32(model.scale), jnp.float32(model.eps)
    found = {}
    for count in model.counts:
        keys = jax.random.split(stream(key, f"gaussian/{count}"), model.draws)
        drawn = _gaussian_draws(keys, model.dim, noise, eps, jnp.float32(count))
        found[count] = {name: np.asarray(errors) for name, errors in drawn.items()}
    return found


def simulate_gaussian(key: Key, model: Model, *, errors: Errors | None = None) -> dict[str, Any]:
    """Simulates the Gaussian model of Schmidt et al.

    Args:
      key: a typed key.
      model: its parameters.
      errors: of `gaussian_errors` with the same key and model, if they were computed before.

    Returns:
      For each number of examples, under "by_count", the error of the linear classifier from the
      examples' mean: "standard", "robust" (against eps), and "least", that of the best classifier;
      each an `Estimate` over draws, beside the paper's lower and upper bounds. "count_for_goal":
      by error, the earliest and latest number at which it may be `GOAL`.
    """
    noise, eps, dim = jnp.float32(model.scale), jnp.float32(model.eps), model.dim
    errors = gaussian_errors(key, model) if errors is None else errors
    by_count = []
    for count in model.counts:
        found = errors[count]
        upper = {
            "standard": float(gaussian.upper_bound(dim, noise, count, 0.0)),
            "robust": float(gaussian.upper_bound(dim, noise, count, eps)),
        }
        exceeded = {
            name: int((found[f"fixed_{name}"] > bound + 1e-6).sum())
            for name, bound in upper.items()
        }
        by_count.append(
            {
                "count": count,
                **{name: _rate(found[name]) for name in ("standard", "robust", "least")},
                "lower_bound": float(gaussian.lower_bound(dim, noise, count, eps)),
                "upper_bound": upper,
                "draws_above_upper_bound": exceeded,
            }
        )
    return {
        "dim": dim,
        "noise": model.scale,
        "eps": model.eps,
        "draws": model.draws,
        "by_count": by_count,
        "lower_bound_count": float(gaussian.lower_bound_count(dim, noise, eps)),
        "upper_bound_count": float(gaussian.upper_bound_count(dim, noise, eps, GOAL)),
        "failure_probability": float(gaussian.failure_probability(dim, noise)),
        "count_for_goal": {
            name: _first(by_count, name) for name in ("standard", "robust", "least")
        },
    }


@functools.partial(jax.jit, static_argnames=("dim", "count"))
def _bernoulli_draw(
    key: jax.Array, dim: int, bias: jax.Array, eps: jax.Array, count: int
) -> dict[str, jax.Array]:
    key_signs, key_draw = jax.random.split(key)
    signs = bernoulli.draw_signs(key_signs, dim)
    weights = bernoulli.draw_estimator(key_draw, signs, bias, count)
    error = functools.partial(bernoulli.robust_error, weights, signs, bias, count=count)
    return {
        "standard": error(eps=0.0),
        "robust": error(eps=eps),
        "threshold": error(eps=eps, threshold=True),
    }


def bernoulli_errors(key: Key, model: Model) -> Errors:
    """Draws the Bernoulli model and computes its errors: what `simulate_bernoulli` takes long for.

    Args:
      key: a typed key.
      model: its parameters.

    Returns:
      By number of examples and name, the error of every draw, `[draws]`.
    """
    bias, eps = jnp.float32(model.scale), jnp.float32(model.eps)
    found = {}
    for count in model.counts:
        keys = jax.random.split(stream(key, f"bernoulli/{count}"), model.draws)
        # One by one: batching would turn the convolutions' shifts into gathers.
        drawn = [_bernoulli_draw(k, model.dim, bias, eps, count) for k in keys]
        found[count] = {name: np.array([float(each[name]) for each in drawn]) for name in drawn[0]}
    return found


def simulate_bernoulli(key: Key, model: Model, *, errors: Errors | None = None) -> dict[str, Any]:
    """Simulates the Bernoulli model of Schmidt et al.

    Args:
      key: a typed key.
      model: its parameters; "scale" is the bias of a coordinate.
      errors: of `bernoulli_errors` with the same key and model, if they were computed before.

    Returns:
      For each number of examples, under "by_count", the exact error of the linear classifier, as
      an `Estimate` over draws: "standard", "robust" (against eps), and "threshold", after a
      threshold on every coordinate. "count_for_goal" as for `simulate_gaussian`.
    """
    errors = bernoulli_errors(key, model) if errors is None else errors
    by_count = [
        {"count": count, **{name: _rate(found) for name, found in errors[count].items()}}
        for count in model.counts
    ]
    return {
        "dim": model.dim,
        "bias": model.scale,
        "eps": model.eps,
        "draws": model.draws,
        "by_count": by_count,
        "one_example_bound": float(bernoulli.one_example_bound(model.dim, model.scale)[0]),
        "count_for_goal": {
            name: _first(by_count, name) for name in ("standard", "robust", "threshold")
        },
    }


def _rate(errors: Any) -> Estimate:
    """Averages exact errors, one per draw, with an interval over draws."""
    return stats.mean(np.asarray(errors, np.float64), limits=stats.SHARE).in_unit("rate")


def _first(by_count: list[dict[str, Any]], name: str) -> dict[str, int | None]:
    """Finds the number of examples from which the mean error is at most `GOAL`.

    The first mean at most `GOAL` would be selected by its own value. Instead, "earliest" is the
    first number for which it is possible, "latest" the first for which it is decided, by
    simultaneous intervals.
    """
    found = stats.together({part["count"]: part[name] for part in by_count})

    def first(end: str) -> int | None:
        ends = {count: getattr(value, end) for count, value in found.items()}
        return next((n for n, bound in ends.items() if bound is not None and bound <= GOAL), None)

    return {"earliest": first("low"), "latest": first("high")}
