"""DeepFool: from one linearised boundary to the next until the prediction changes.

Moosavi-Dezfooli et al. (2016), "DeepFool: a simple and accurate method to fool deep neural
networks", https://arxiv.org/abs/1511.04599, algorithm 2.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks.ascent import Ascent, Run
from advfeat.attacks.linearised import MinimumNorm, linearised, nearest_boundary
from advfeat.checks import check_eps, check_norm, check_positive
from advfeat.numerics import over, scaled
from advfeat.objectives.classification import likely_target
from advfeat.threats.balls import ThreatModel
from advfeat.threats.norms import NORMS, Norm
from advfeat.types import Array, Evaluation, Key, ModelFn, with_key

LEAST_MOVE = 0.05  # of a move, as a share of the overshoot; 1e-3 of the perturbation by default


class DeepFoolState(NamedTuple):
    """State of DeepFool.

    Attributes:
      x: the iterate: the example plus the perturbation, overshot, within the box.
      x0: the example.
      count: `[]` int32, steps taken.
      perturbation: like the example, the sum of all moves, without overshoot.
    """

    x: Array
    x0: Array
    count: Array  # type: ignore[assignment]  # hides tuple.count, which nobody wants here
    perturbation: Array


def _steepest(norm: Norm, x: Array, slope: Array) -> Array:
    """The direction of unit norm along which a function of this slope rises most.

    In L1 that is one pixel, the steepest that is not at its face of the box yet: there it would
    stay, step after step, whereas in the other norms the rest still move.
    """
    if norm.name != "l1":
        return norm.direction(x, slope)
    room = jnp.where(slope > 0, 1.0 - x, x)
    gain = jnp.where(room > 0, jnp.abs(slope), 0.0).ravel()
    chosen = jnp.arange(gain.size) == jnp.argmax(gain)
    return jnp.where(chosen.reshape(x.shape) & (room > 0), jnp.sign(slope), 0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)  # jax.jit(attack) hashes it; arrays do not
class DeepFool(MinimumNorm):
    """DeepFool: an `AttackFn`. Make one with `deepfool`.

    Attributes:
      threat: its norm is minimised; its eps bounds what counts, infinity included.
      overshoot: `[]` float32, by which share the perturbation is enlarged.
      steps: moves.
      candidates: how many classes are looked at.
    """

    threat: ThreatModel
    overshoot: Array
    steps: int = dataclasses.field(metadata={"static": True})
    candidates: int = dataclasses.field(metadata={"static": True})

    def kernel(self, x0: Array) -> Ascent:
        """From the value and slope of a class's lead to the next iterate; a success stays."""
        norm = self.threat.norm

        def init(key: Key, x0: Array, start: Array) -> DeepFoolState:
            del key
            count = jnp.full_like(x0, 0, shape=(), dtype=jnp.int32)
            return DeepFoolState(start, x0, count, jnp.zeros_like(x0))

        def update(state: DeepFoolState, seen: Evaluation) -> DeepFoolState:
            x0, before, slope = state.x0, state.perturbation, seen.grad
            assert slope is not None
            # A boundary is where it is whatever the network's scale.
            slope, largest = scaled(slope)
            towards = _steepest(norm, state.x, -jnp.sign(seen.score) * slope)
            rise = jnp.sum(jnp.abs(towards * slope))
            # Where the box takes a share of every move, they would fade before the boundary.
            least = LEAST_MOVE * self.overshoot * norm.distance(jnp.zeros_like(before), before)
            length = over(jnp.abs(over(seen.score, largest)), rise) + least
            length = jnp.minimum(length, norm.diameter(x0.size))
            after = jnp.clip(x0 + before + length * towards, 0.0, 1.0) - x0
            x = jnp.clip(x0 + (1.0 + self.overshoot) * after, 0.0, 1.0)
            stays = seen.success | ~jnp.isfinite(rise * length)  # fooled, or a network of NaN
            x, after = jnp.where(stays, state.x, x), jnp.where(stays, before, after)
            return DeepFoolState(x, x0, state.count + 1, after)

        return Ascent(init, update)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """The example; the aim is the label."""
        del key, model_fn, index
        return x, (jnp.asarray(y),)

    def step(self, model_fn: ModelFn, run: Run) -> Run:
        """Linearises where the run stands and moves, unless the prediction has changed."""
        (y,) = run.aim
        key = jax.random.fold_in(run.key, run.state.count)

        def classes(logits: Array) -> Array:
            count = min(self.candidates, logits.size - 1)
            return likely_target(logits, y, jnp.arange(count))

        around = linearised(with_key(model_fn, key), run.state.x, y, classes)
        run = self.noted(run, run.state.x, around.seen)
        index = nearest_boundary(self.threat.norm, run.state.x, around)
        return run._replace(
            state=self.kernel(run.state.x0).update(run.state, around.along(index)),
            queries=run.queries + 1,
            gradients=run.gradients + around.leads.size,
        )


def deepfool(
    threat: ThreatModel,
    *,
    steps: int = 50,
    overshoot: float | Array = 0.02,
    candidates: int = 10,
) -> DeepFool:
    """A near adversarial example by DeepFool, algorithm 2 (section 3.3 for norms other than L2).

    Each step goes to the nearest linearised boundary of a class; the steps add up, are enlarged by
    the overshoot and brought into the box, and end once the prediction has changed. What the box
    takes from a step is left to the next ones; which boundary is nearest takes it into account.

    Args:
      threat: L-infinity, L2 or L1. An infinite eps takes the adversarial example wherever it is; a
        finite one only within eps, where DeepFool, which is quick and not exact, often just misses.
      steps: moves at most; few are needed, but the passes of all are spent.
      overshoot: `[]`, by which share the perturbation is enlarged, so as to cross the boundary.
      candidates: how many classes other than the label, the most likely ones at each iterate, are
        looked at; one backward pass each. All of them where there are fewer.

    Returns:
      An `AttackFn` for ONE example; `best` is the first adversarial iterate, at distance 0 where
      the example is one itself. It spends `steps + 1` forward and `min(candidates, K - 1) * steps`
      backward passes.

    Raises:
      ValueError: for another norm, counts below 1, or an overshoot that is negative or NaN.

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
