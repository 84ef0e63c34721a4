"""Shared parts of attacks that linearise the network and step to its decision boundary."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks.iterative import AttackState, IterativeAttack
from advfeat.attacks.keeping import by_distance
from advfeat.numerics import finite
from advfeat.objectives.losses import margin
from advfeat.threats.hyperplane import to_hyperplane, unbounded_distance
from advfeat.threats.norms import Norm
from advfeat.types import Array, AttackResult, Best, Evaluation, ModelFn, with_key


class Linearisation(NamedTuple):
    """First-order model of the logit differences `z_k - z_y` around a point.

    Attributes:
      seen: evaluation of the point itself.
      differences: `[C]`, `z_k - z_y` of each class.
      slopes: `[C, H, W, C]`, gradients of `differences`.
    """

    seen: Evaluation
    differences: Array
    slopes: Array

    def for_class(self, index: Array) -> Evaluation:
        """Returns lead and slope of one class."""
        return Evaluation(self.differences[index], self.seen.success, self.slopes[index])


def evaluate_margin(logits: Array, y: Any) -> Evaluation:
    """Evaluates a point: its margin, and whether it is misclassified."""
    return Evaluation(margin(logits, y).astype(jnp.float32), jnp.argmax(logits) != y, None)


def linearise(model_fn: ModelFn, x: Array, y: Any, classes: Any) -> Linearisation:
    """Linearises the network at `x` with one forward pass and one backward pass per class.

    Args:
      model_fn: the network.
      x: the point.
      y: `[]`, the label.
      classes: logits `[K]` -> `[C]` integers, the classes to linearise.
    """
    logits, pullback = jax.vjp(model_fn, x)
    chosen = classes(logits)
    one_hot = jax.nn.one_hot(jnp.append(chosen, y), logits.size, dtype=logits.dtype)
    slopes = finite(jax.vmap(lambda row: pullback(row - one_hot[-1])[0])(one_hot[:-1]))
    differences = jnp.take(logits, chosen) - jnp.take(logits, y)
    return Linearisation(evaluate_margin(logits, y), differences.astype(jnp.float32), slopes)


def nearest_boundary(norm: Norm, x: Array, linear: Linearisation) -> Array:
    """Returns the index of the class whose linearised boundary is nearest inside the box.

    If no boundary meets the box, the nearest one ignoring the box. The papers always ignore the
    box and may therefore pick an unreachable class.
    """
    if len(linear.differences) == 1:
        return jnp.zeros((), jnp.int32)

    def one(slope: Array, lead: Array) -> tuple[Array, Array, Array]:
        move = to_hyperplane(norm, x, slope, lead)
        length = norm.distance(jnp.zeros_like(move.step), move.step)
        return length, move.reached, unbounded_distance(norm, slope, lead)

    lengths, reached, unbounded = jax.vmap(one)(linear.slopes, linear.differences)
    boxed = jnp.where(reached, lengths, jnp.inf)
    return jnp.argmin(jnp.where(jnp.any(reached), boxed, unbounded))


class MinimumNorm(IterativeAttack):
    """Base class of attacks that search for the nearest adversarial example.

    Iterates may leave the ball of a finite eps, but the returned point lies within it.

    Attributes:
      threat: its norm is minimised; only points within its eps (possibly infinite) count.
    """

    takes_label = True
    keep = staticmethod(by_distance)

    def better(self, state: AttackState, x: Array, seen: Evaluation) -> Best:
        """Returns the best iterate so far, given a point just evaluated, if it lies within eps."""
        # No tolerance: at eps 0 only the example itself counts.
        allowed = self.distance(state.search.x0, x) <= self.threat.eps
        best = super().better(state, x, seen)
        return jax.tree.map(lambda new, old: jnp.where(allowed, new, old), best, state.best)

    def finish(self, model_fn: ModelFn, state: AttackState) -> AttackResult:
        """Projects the final iterate onto the threat model and scores it: one forward pass."""
        x0, x = state.search.x0, state.search.x
        inside = self.distance(x0, x) <= self.threat.eps
        x = jnp.where(inside, x, self.threat.project(x0, x))
        key = jax.random.fold_in(state.key, state.search.step)
        seen = evaluate_margin(with_key(model_fn, key)(x), state.aim[0])
        best, last = self.better(state, x, seen), self.record(x0, x, seen)
        return AttackResult(best, last, state.queries + 1, state.gradients)
