"""Ensembles: several networks as one model."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from advfeat.types import Array, ModelFn, as_model_fn


def _mean_log_probabilities(model_fns: tuple[ModelFn, ...], x: Array) -> Array:
    return jnp.mean(jnp.stack([jax.nn.log_softmax(fn(x)) for fn in model_fns]), axis=0)


def ensemble(*model_fns: ModelFn) -> ModelFn:
    """Combines networks into one whose logits are their mean log-probabilities.

    Args:
      *model_fns: networks with the same classes, each for ONE example.

    Returns:
      A `ModelFn`, a pytree over all weights. A single network is returned as it is.

    Raises:
      ValueError: if no network is given.

    >>> double = ensemble(lambda x: x, lambda x: 3 * x)
    >>> double(jnp.array([1.0, 1.0])).round(3)
    Array([-0.693, -0.693], dtype=float32)
    """
    if not model_fns:
        raise ValueError("model_fns must hold at least one network, got none")
    if len(model_fns) == 1:
        return model_fns[0]
    together = tuple(as_model_fn(fn) for fn in model_fns)
    return jax.tree_util.Partial(_mean_log_probabilities, together)
