"""How much an attack's score weighs against the distance, where it minimises a sum of the two.

Carlini and Wagner (2017), https://arxiv.org/abs/1608.04644, section V.A: the smaller the constant
that still leads to an adversarial example, the nearer that example.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from advfeat.types import Array, Evaluation, Key, Oracle

RAISE = 10.0  # the authors': by how much the weight grows before the first success


class Tradeoff(NamedTuple):
    """A weight on the score, and what is known of the smallest one that suffices.

    Attributes:
      weight: `[]`, lambda, or the paper's c.
      low: `[]`, the largest weight that was tried in vain.
      high: `[]`, the smallest one that led to a success; infinite before.
      reached: `[]` bool, whether the present weight has led to a success.
    """

    weight: Array
    low: Array
    high: Array
    reached: Array


def tradeoff(x0: Array, weight: Array) -> Tradeoff:
    """Before the first step; carries of the example's kind, as `shard_map` needs them."""
    zero = jnp.full_like(x0, 0.0, shape=(), dtype=jnp.float32)
    return Tradeoff(
        zero + weight, zero, zero + jnp.inf, jnp.full_like(x0, False, shape=(), dtype=bool)
    )


def searched(state: Tradeoff, success: Array, ended: Array) -> Tradeoff:
    """One step of a binary search over runs: where a run has `ended`, the next one's weight.

    Args:
      state: of the run so far.
      success: `[]` bool, of the point just seen.
      ended: `[]` bool, whether that was the run's last point.
    """
    reached = state.reached | success
    high = jnp.where(reached, state.weight, state.high)
    low = jnp.where(reached, state.low, state.weight)
    raised = jnp.where(jnp.isinf(high), RAISE * state.weight, 0.5 * (low + high))
    after = Tradeoff(raised, low, high, jnp.zeros_like(reached))
    during = state._replace(reached=reached)
    return Tradeoff(*(jnp.where(ended, new, old) for new, old in zip(after, during, strict=True)))


def alternated(state: Tradeoff, success: Array, rate: Array) -> Tradeoff:
    """One step of dual ascent: a larger weight while there is no success, a smaller one after.

    The multiplier of `success` as a constraint moves on a logarithmic scale, since networks'
    scores differ by orders of magnitude.
    """
    factor = 1.0 + rate
    weight = jnp.where(success, state.weight / factor, state.weight * factor)
    return state._replace(weight=weight.astype(jnp.float32), reached=state.reached | success)


def confident(oracle: Oracle, confidence: Array) -> Oracle:
    """An oracle whose success asks for a score of at least `confidence`, where that is above 0."""

    def judged(key: Key, x: Array) -> Evaluation:
        seen = oracle(key, x)
        enough = (seen.score >= confidence) | (confidence <= 0.0)
        return seen._replace(success=seen.success & enough)

    return judged
