"""Search for the weight of the score against the distance in attacks that minimise their sum.

Carlini and Wagner (2017), https://arxiv.org/abs/1608.04644, section V.A: the smallest constant that
still yields an adversarial example yields the nearest one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from advfeat.attacks.iterative import IterativeAttack
from advfeat.attacks.keeping import by_distance
from advfeat.attacks.oracles import with_confidence
from advfeat.types import Array, ModelFn, Oracle

RAISE = 10.0  # growth factor of the weight before the first success, as the authors have it


class Tradeoff(NamedTuple):
    """Weight of the score and the bracket of the smallest sufficient weight.

    Attributes:
      weight: `[]`, lambda, the paper's c.
      low: `[]`, largest weight that failed.
      high: `[]`, smallest weight that succeeded; infinite before the first success.
      reached: `[]` bool, whether the current weight has succeeded.
    """

    weight: Array
    low: Array
    high: Array
    reached: Array


def tradeoff(x0: Array, weight: Array) -> Tradeoff:
    """Returns the initial state, with the varying axes of `x0` that `shard_map` requires."""
    zero = jnp.full_like(x0, 0.0, shape=(), dtype=jnp.float32)
    return Tradeoff(
        zero + weight, zero, zero + jnp.inf, jnp.full_like(x0, False, shape=(), dtype=bool)
    )


def binary_searched(state: Tradeoff, success: Array, ended: Array) -> Tradeoff:
    """Advances a binary search over inner runs; sets a new weight when a run has `ended`.

    Args:
      state: state of the current run.
      success: `[]` bool, whether the point just evaluated is a success.
      ended: `[]` bool, whether it was the last point of the run.
    """
    reached = state.reached | success
    high = jnp.where(reached, state.weight, state.high)
    low = jnp.where(reached, state.low, state.weight)
    raised = jnp.where(jnp.isinf(high), RAISE * state.weight, 0.5 * (low + high))
    after = Tradeoff(raised, low, high, jnp.zeros_like(reached))
    during = state._replace(reached=reached)
    return Tradeoff(*(jnp.where(ended, new, old) for new, old in zip(after, during, strict=True)))


def dual_ascended(state: Tradeoff, success: Array, rate: Array) -> Tradeoff:
    """Takes one step of dual ascent: raises the weight after a failure, lowers it after a success.

    The weight is the multiplier of the constraint `success`. It moves on a logarithmic scale, since
    the scores of different networks differ by orders of magnitude.
    """
    factor = 1.0 + rate
    weight = jnp.where(success, state.weight / factor, state.weight * factor)
    return state._replace(weight=weight.astype(jnp.float32), reached=state.reached | success)


class PenaltyAttack(IterativeAttack):
    """Base class of attacks that minimise the distance plus a weighted hinge on the score.

    Inner runs of `length` steps each follow one another; a new weight begins with each.

    Attributes:
      initial_const: `[]` float32, (initial) weight of the hinge.
      confidence: `[]` float32, kappa: smallest score that counts as success.
      steps: moves of all inner runs together.
      length: moves of one inner run.
    """

    initial_const: Array
    confidence: Array
    length: int
    keep = staticmethod(by_distance)

    def oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Returns a white-box oracle whose success requires the confidence."""
        return with_confidence(super().oracle(model_fn, aim), self.confidence)

    def value_oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Returns a forward-only oracle whose success requires the confidence."""
        return with_confidence(super().value_oracle(model_fn, aim), self.confidence)

    def ended(self, step: Array) -> Array:
        """Returns whether an inner run, and not the last one, ends with this step: `[]` bool."""
        return (step % self.length == 0) & (step < self.steps)
