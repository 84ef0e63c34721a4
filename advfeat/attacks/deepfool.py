"""DeepFool: repeated steps to the nearest linearised boundary until the prediction changes.

Moosavi-Dezfooli et al. (2016), "DeepFool: a simple and accurate method to fool deep neural
networks", https://arxiv.org/abs/1511.04599, algorithm 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks.iterative import AttackState, zero_like
from advfeat.attacks.linearised import MinimumNorm, linearise, nearest_boundary
from advfeat.checks import check_eps, check_norm, check_positive
from advfeat.numerics import over, scaled
from advfeat.objectives.classification import likely_target
from advfeat.threats.balls import ThreatModel
from advfeat.threats.norms import NORMS, Norm
from advfeat.types import Array, Evaluation, Key, ModelFn, pytree, static, with_key

LEAST_MOVE = 0.05  # minimum move, over the overshoot; by default 1e-3 of the perturbation


class DeepFoolState(NamedTuple):
    """State of DeepFool.

    Attributes:
      x: the iterate: the example plus the overshot perturbation, within the box.
      x0: the example.
      step: `[]` int32, steps taken.
      perturbation: like the example, sum of all moves, without overshoot.
    """

    x: Array
    x0: Array
    step: Array
    perturbation: Array


def _steepest(norm: Norm, x: Array, slope: Array) -> Array:
    """Returns the direction of steepest ascent of unit norm for a given slope.

    In L1 only one pixel moves: the steepest one that has not yet reached its face of the box. A
    saturated pixel would stall the attack, whereas in the other norms the remaining pixels move.
    """
    if norm.name != "l1":
        return norm.direction(x, slope)
    room = jnp.where(slope > 0, 1.0 - x, x)
    gain = jnp.where(room > 0, jnp.abs(slope), 0.0).ravel()
    chosen = jnp.arange(gain.size) == jnp.argmax(gain)
    return jnp.where(chosen.reshape(x.shape) & (room > 0), jnp.sign(slope), 0.0)


@pytree
class DeepFool(MinimumNorm):
    """DeepFool: an `AttackFn`. Make one with `deepfool`.

    Attributes:
      threat: its norm is minimised; only points within its eps (possibly infinite) count.
      overshoot: `[]` float32, relative enlargement of the perturbation.
      steps: number of moves.
      candidates: number of candidate classes.
    """

    threat: ThreatModel
    overshoot: Array
    steps: int = static()
    candidates: int = static()

    def first(self, key: Key, x0: Array, start: Array) -> DeepFoolState:
        """Returns the state at the start."""
        del key
        return DeepFoolState(start, x0, zero_like(x0), jnp.zeros_like(x0))

    def update(self, search: DeepFoolState, seen: Evaluation) -> DeepFoolState:
        """Moves to the linearised boundary of one class; an adversarial iterate stays put."""
        norm, x0, before, slope = self.threat.norm, search.x0, search.perturbation, seen.grad
        assert slope is not None
        # The boundary does not depend on the scale of the network.
        slope, largest = scaled(slope)
        towards = _steepest(norm, search.x, -jnp.sign(seen.score) * slope)
        rise = jnp.sum(jnp.abs(towards * slope))
        # If clipping shortens every move, moves would vanish short of the boundary.
        least = LEAST_MOVE * self.overshoot * norm.distance(jnp.zeros_like(before), before)
        length = over(jnp.abs(over(seen.score, largest)), rise) + least
        length = jnp.minimum(length, norm.diameter(x0.size))
        after = jnp.clip(x0 + before + length * towards, 0.0, 1.0) - x0
        x = jnp.clip(x0 + (1.0 + self.overshoot) * after, 0.0, 1.0)
        stays = seen.success | ~jnp.isfinite(rise * length)  # adversarial, or NaN outputs
        x, after = jnp.where(stays, search.x, x), jnp.where(stays, before, after)
        return DeepFoolState(x, x0, search.step + 1, after)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Starts at the example; the aim is the label."""
        del key, model_fn, index
        return x, (jnp.asarray(y),)

    def step(self, model_fn: ModelFn, state: AttackState) -> AttackState:
        """Linearises at the iterate and moves, unless the prediction has changed."""
        (y,), search = state.aim, state.search
        key = jax.random.fold_in(state.key, search.step)

        def classes(logits: Array) -> Array:
            count = min(self.candidates, logits.size - 1)
            return likely_target(logits, y, jnp.arange(count))

        linear = linearise(with_key(model_fn, key), search.x, y, classes)
        index = nearest_boundary(self.threat.norm, search.x, linear)
        return state._replace(
            search=self.update(search, linear.for_class(index)),
            best=self.better(state, search.x, linear.seen),
            queries=state.queries + 1,
            gradients=state.gradients + linear.differences.size,
        )


def deepfool(
    threat: ThreatModel,
    *,
    steps: int = 50,
    overshoot: float | Array = 0.02,
    candidates: int = 10,
) -> DeepFool:
    """Returns DeepFool, a fast minimum-norm attack: algorithm 2 (section 3.3 beyond L2).

    Each step moves to the nearest linearised class boundary. The accumulated perturbation is
    enlarged by the overshoot and clipped to the box; the search stops once the prediction changes.
    Later steps make up for what clipping removes, and the choice of the nearest boundary takes the
    box into account.

    Args:
      threat: L-infinity, L2 or L1. With an infinite eps every adversarial example counts; with a
        finite one only those within eps, which DeepFool, being fast but inexact, often just misses.
      steps: maximum number of moves. Few are needed, but the passes of all are spent.
      overshoot: `[]`, relative enlargement of the perturbation that makes it cross the boundary.
      candidates: number of classes to linearise, the most likely ones other than the label at each
        iterate, for one backward pass each; at most K - 1 are used.

    Returns:
      An `AttackFn` for ONE example. `best` is the first adversarial iterate, at distance 0 if the
      example is already misclassified. It spends `steps + 1` forward and
      `min(candidates, K - 1) * steps` backward passes.

    Raises:
      ValueError: for an unsupported norm, counts below 1, or a negative or NaN overshoot.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> attack = deepfool(advfeat.l2())
    >>> result = attack(jax.random.key(0), lambda x: x, jnp.array([0.7, 0.5]), 0)
    >>> result.best.x.round(3).tolist(), round(float(result.best.distance), 3)
    ([0.598, 0.602], 0.144)
    """
    check_norm(threat.norm.name, allowed=tuple(NORMS), attack="deepfool")
    check_positive(steps, name="steps")
    check_positive(candidates, name="candidates")
    check_eps(overshoot, name="overshoot")
    return DeepFool(
        threat=threat,
        overshoot=jnp.asarray(overshoot, jnp.float32),
        steps=steps,
        candidates=candidates,
    )
