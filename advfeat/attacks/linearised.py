"""Shared parts of attacks that linearise the network and step to its decision boundary."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks import ascent
from advfeat.attacks.ascent import Run
from advfeat.attacks.stepwise import Stepwise
from advfeat.numerics import finite
from advfeat.objectives.losses import margin
from advfeat.threats.balls import ThreatModel
from advfeat.threats.hyperplane import to_hyperplane, unbounded_distance
from advfeat.threats.norms import Norm
from advfeat.types import Array, AttackResult, Best, Evaluation, ModelFn, with_key


class Linearisation(NamedTuple):
    """First-order model of the logit differences `z_k - z_y` around a point.

    Attributes:
      seen: evaluation of the point itself.
      leads: `[C]`, `z_k - z_y` of each class.
      slopes: `[C, H, W, C]`, gradients of `leads`.
    """

    seen: Evaluation
    leads: Array
    slopes: Array

    def along(self, index: Array) -> Evaluation:
        """Returns lead and slope of one class."""
        return Evaluation(self.leads[index], self.seen.success, self.slopes[index])


def judged(logits: Array, y: Any) -> Evaluation:
    """Evaluates a point: its margin, and whether it is misclassified."""
    return Evaluation(margin(logits, y).astype(jnp.float32), jnp.argmax(logits) != y, None)


def linearised(model_fn: ModelFn, x: Array, y: Any, classes: Any) -> Linearisation:
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
    leads = jnp.take(logits, chosen) - jnp.take(logits, y)
    return Linearisation(judged(logits, y), leads.astype(jnp.float32), slopes)


def nearest_boundary(norm: Norm, x: Array, around: Linearisation) -> Array:
    """Returns the index of the class whose linearised boundary is nearest inside the box.

    If no boundary meets the box, the nearest one ignoring the box. The papers always ignore the
    box and may therefore pick an unreachable class.
    """
    if len(around.leads) == 1:
        return jnp.zeros((), jnp.int32)

    def one(slope: Array, lead: Array) -> tuple[Array, Array, Array]:
        move = to_hyperplane(norm, x, slope, lead)
        length = norm.distance(jnp.zeros_like(move.step), move.step)
        return length, move.reached, unbounded_distance(norm, slope, lead)

    lengths, reached, unbounded = jax.vmap(one)(around.slopes, around.leads)
    boxed = jnp.where(reached, lengths, jnp.inf)
    return jnp.argmin(jnp.where(jnp.any(reached), boxed, unbounded))


class MinimumNorm(Stepwise):
    """Base class of attacks that search for the nearest adversarial example.

    Iterates may leave the ball of a finite eps, but the returned point lies within it.

    Attributes:
      threat: its norm is minimised; only points within its eps (possibly infinite) count.
    """

    threat: ThreatModel
    takes_label = True
    prefer = staticmethod(ascent.by_distance)

    def distance(self, x0: Array, x: Array) -> Array:
        """Returns the distance in the threat model's norm."""
        return self.threat.distance(x0, x)

    def noted(self, run: Run, x: Array, seen: Evaluation) -> Run:
        """Updates the best iterate with `x` if it lies within eps."""
        # No tolerance: at eps 0 only the example itself counts.
        allowed = self.distance(run.state.x0, x) <= self.threat.eps
        noted = run.note(x, seen, self.distance, self.prefer)
        best = jax.tree.map(lambda new, old: jnp.where(allowed, new, old), noted, run.best)
        return run._replace(best=best)

    def end(self, model_fn: ModelFn, run: Run) -> AttackResult:
        """Projects the final iterate onto the threat model and scores it: one forward pass."""
        x0, x = run.state.x0, run.state.x
        inside = self.distance(x0, x) <= self.threat.eps
        x = jnp.where(inside, x, self.threat.project(x0, x))
        y = run.aim[0]
        key = jax.random.fold_in(run.key, run.state.count)
        seen = judged(with_key(model_fn, key)(x), y)
        last = Best(x, seen.score, seen.success, self.distance(x0, x).astype(jnp.float32))
        best = self.noted(run, x, seen).best
        return AttackResult(best, last, run.queries + 1, run.gradients)
