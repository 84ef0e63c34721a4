"""Losses on the logits of one example; batches are a `jax.vmap` away."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from advfeat.types import Array


def cross_entropy(logits: Array, label: Array) -> Array:
    """Cross-entropy of the softmax, `-log softmax(logits)[label]`.

    Args:
      logits: `[K]`, unnormalised (not probabilities).
      label: `[]` integer in `[0, K)`.

    Returns:
      `[]`, in nats.

    >>> cross_entropy(jnp.zeros(4), jnp.array(1)).round(4)
    Array(1.3863, dtype=float32)
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def margin(logits: Array, label: Array) -> Array:
    """How far the best other class lies above `label`: `max_{i != label} z_i - z_label`.

    Positive exactly where the network is wrong. It is the loss of Carlini and Wagner (2017),
    https://arxiv.org/abs/1608.04644, without their clipping, and does not saturate as
    cross-entropy does.

    Args:
      logits: `[K]` with K >= 2.
      label: `[]` integer in `[0, K)`.

    Returns:
      `[]`, in units of the logits.

    >>> margin(jnp.array([1.0, 4.0, 2.0]), jnp.array(1))
    Array(-2., dtype=float32)
    """
    is_label = jnp.arange(logits.shape[-1]) == label
    best_other = jnp.max(jnp.where(is_label, -jnp.inf, logits))
    return best_other - jnp.take(logits, label)


def smoothed_cross_entropy(logits: Array, label: Array, *, smoothing: float) -> Array:
    """Cross-entropy against `(1 - smoothing)` on the label and `smoothing / K` on every class.

    Szegedy et al. (2016), https://arxiv.org/abs/1512.00567, section 7.

    Args:
      logits: `[K]`.
      label: `[]` integer in `[0, K)`.
      smoothing: in [0, 1); 0 is `cross_entropy`.

    Returns:
      `[]`, in nats.

    >>> smoothed_cross_entropy(jnp.zeros(4), jnp.array(1), smoothing=0.1).round(4)
    Array(1.3863, dtype=float32)
    """
    log_probabilities = jax.nn.log_softmax(logits)
    hit = jnp.take(log_probabilities, label)
    return -(1.0 - smoothing) * hit - smoothing * jnp.mean(log_probabilities)
