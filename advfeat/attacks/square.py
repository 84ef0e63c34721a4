"""Square Attack: score-based random search over square windows.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049: algorithm 1, with algorithm 2 for
L-infinity and algorithm 3 for L2; for L1 the variant of algorithm 3 by Croce and Hein (2021),
https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.attacks import oracles, square_l2_l1
from advfeat.attacks.iterative import IterativeAttack, zero_like
from advfeat.checks import check_norm, check_positive, is_concrete
from advfeat.objectives.classification import untargeted
from advfeat.objectives.losses import margin
from advfeat.threats import norms
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Evaluation, Key, ModelFn, Objective, Oracle, pytree, static

# Candidates, of 10,000, after which the square's share p of the image is halved (section 4.1).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE = 10_000


def side(p: Array, count: Array, shape: tuple[int, ...], *, period: int, odd: bool) -> Array:
    """Returns the side of the square of candidate `count` (from 0).

    Args:
      p: `[]`, initial share of the image covered by the square.
      count: `[]` int32.
      shape: `[H, W, C]`.
      period: number of candidates that the whole schedule spans.
      odd: whether the side must be odd and at least 3, as for a bump.

    Returns:
      `[]` int32.

    >>> [int(side(jnp.float32(0.8), jnp.int32(n), (28, 28, 1), period=10_000, odd=False))
    ...  for n in (0, 11, 51, 4001)]
    [25, 18, 13, 2]
    """
    height, width = shape[:2]
    # Integer arithmetic: the first candidate that satisfies `count > halving` for each halving.
    changes = jnp.asarray([-(-(after + 1) * period // SCHEDULE) for after in HALVINGS])
    share = p * jax.lax.pow(jnp.full_like(p, 0.5), jnp.sum(count >= changes, dtype=jnp.int32))
    wanted = jnp.round(jnp.sqrt(share * height * width)).astype(jnp.int32)
    if odd:
        wanted = jnp.maximum(wanted, 3)
        wanted = wanted + (wanted + 1) % 2
    return jnp.clip(wanted, 1, min(height, width))


def _ends(eps: Array, x0: Array) -> tuple[Array, Array]:
    return jnp.maximum(x0 - eps, 0.0), jnp.minimum(x0 + eps, 1.0)


def _stripes(key: Key, threat: ThreatModel, x0: Array) -> Array:
    """Returns the L-infinity start: vertical stripes one pixel wide."""
    low, high = _ends(threat.eps, x0)
    return jnp.where(jax.random.bernoulli(key, 0.5, (1, *x0.shape[1:])), high, low)


def _recoloured(
    threat: ThreatModel, x0: Array, kept: Array, side: Array, draw: square_l2_l1.Draw
) -> Array:
    """Proposes an L-infinity candidate: sets each channel in a square to one end of its range.

    Algorithm 2. If that changes nothing, every channel goes to the other end instead (the authors
    redraw): on grey images this happens for a third of the draws late in the search.
    """
    low, high = _ends(threat.eps, x0)
    inside = square_l2_l1.window(x0.shape, square_l2_l1.corner(x0.shape, side, draw.place), side)
    up = (draw.sign < 0.5)[None, None, :]
    changes = jnp.any(inside & (jnp.where(up, high, low) != kept))
    return jnp.where(inside, jnp.where(up == changes, high, low), kept)


class SquareState(NamedTuple):
    """State of the random search.

    Attributes:
      x: the candidate to evaluate; at step 0 the example.
      x0: the example.
      step: `[]` int32, points evaluated.
      key: key of the proposals, folded with the step.
      kept: the best point so far, from which candidates are proposed; at step 0 the start.
      score: `[]`, score of `kept`; -inf before its evaluation.
      success: `[]` bool, whether `kept` is a success.
    """

    x: Array
    x0: Array
    step: Array
    key: Key
    kept: Array
    score: Array
    success: Array


@pytree
class SquareAttack(IterativeAttack):
    """Score-based random search: an `AttackFn`. Make one with `square`.

    Attributes:
      threat: the set of allowed inputs, in L-infinity, L2 or L1.
      p: `[]` float32, initial share of the image covered by the square.
      steps: moves per restart: to the start, then to each candidate.
      restarts: independent searches.
      rescale_schedule: whether the schedule of p spans `steps`.
      objective: what to ascend.
    """

    threat: ThreatModel
    p: Array
    steps: int = static()
    restarts: int = static()
    rescale_schedule: bool = static()
    objective: Objective = static()

    def first(self, key: Key, x0: Array, start: Array) -> SquareState:
        """Returns the state in which the example, then the start, are evaluated."""
        return SquareState(
            x=x0,
            x0=x0,
            step=zero_like(x0),
            # Distinct from the oracle's keys, which are the same key folded with the step.
            key=jax.random.fold_in(key, np.iinfo(np.int32).max),
            kept=start,
            score=jnp.full_like(x0, -jnp.inf, shape=(), dtype=jnp.float32),
            success=jnp.full_like(x0, False, shape=(), dtype=bool),
        )

    def update(self, search: SquareState, seen: Evaluation) -> SquareState:
        """Keeps the candidate if it succeeds or, without any success, scores higher.

        The search stops at the first success, as in the authors' code; an already misclassified
        example is returned unchanged.
        """
        kind = square_l2_l1.GEOMETRIES.get(self.threat.norm.name)
        propose = _recoloured if kind is None else partial(square_l2_l1.with_new_bump, kind)
        period = self.steps if self.rescale_schedule else SCHEDULE
        score = seen.score.astype(jnp.float32)
        # The start replaces the example even if it scores lower.
        rises = (score > search.score) & (search.step > 0)
        better = jnp.where(seen.success == search.success, rises, seen.success)
        better = better & ~jnp.isnan(score)
        kept = jnp.where(better, search.x, search.kept)
        success = jnp.where(better, seen.success, search.success)
        draw = square_l2_l1.draw(jax.random.fold_in(search.key, search.step), kept.shape[-1])
        size = side(self.p, search.step - 1, kept.shape, period=period, odd=kind is not None)
        candidate = propose(self.threat, search.x0, kept, size, draw).astype(kept.dtype)
        moves = (search.step > 0) & ~success
        return SquareState(
            x=jnp.where(moves, candidate, kept),
            x0=search.x0,
            step=search.step + 1,
            key=search.key,
            kept=kept,
            score=jnp.where(better, score, search.score),
            success=success,
        )

    def oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Returns a scores-only oracle: no gradient is ever computed."""
        return oracles.scores_only(self.objective, model_fn, aim)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Starts from vertical stripes (L-infinity) or a grid of bumps (L2, L1)."""
        del model_fn, index
        kind = square_l2_l1.GEOMETRIES.get(self.threat.norm.name)
        draw = _stripes if kind is None else partial(square_l2_l1.grid, kind=kind)
        return draw(key, self.threat, x).astype(x.dtype), y


def square(
    threat: ThreatModel,
    *,
    steps: int = 5000,
    restarts: int = 1,
    p: float | Array = 0.8,
    rescale_schedule: bool = False,
    objective: Objective = untargeted(margin),
) -> SquareAttack:
    """Returns Square Attack, a random search on scores alone, immune to gradient masking.

    Defaults are AutoAttack's. A restart spends `steps + 1` queries: the example itself (so that an
    already misclassified example is found at distance 0), the start, and `steps - 1` candidates.

    Args:
      threat: the set of allowed inputs, in L-infinity, L2 or L1.
      steps: moves per restart.
      restarts: independent searches; each example keeps its worst case.
      p: `[]`, initial share of the image covered by the square, in (0, 1]. The paper uses 0.05 for
        L-infinity and 0.1 for L2 on standard networks, 0.8 on robust ones.
      rescale_schedule: halve p at the paper's fractions of `steps`. Otherwise halve it after the
        paper's absolute numbers of candidates (of 10,000), even if `steps` is smaller.
      objective: what to ascend; by default the margin away from the label.

    Returns:
      An `AttackFn` for ONE example. It stops moving at the first success, whose score is therefore
      not the maximum.

    Raises:
      ValueError: for counts below 1, p outside (0, 1], or an unsupported norm.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> attack = square(advfeat.linf(0.1), steps=50)
    >>> network = lambda x: jnp.stack([jnp.sum(x[:2]), jnp.sum(x[2:])])
    >>> result = attack(jax.random.key(0), network, jnp.linspace(0.52, 0.5, 16).reshape(4, 4, 1), 0)
    >>> bool(result.best.success), int(result.queries), int(result.gradients)
    (True, 51, 0)
    """
    check_positive(steps, name="steps")
    check_positive(restarts, name="restarts")
    check_norm(threat.norm.name, allowed=tuple(norms.NORMS), attack="square")
    if is_concrete(p) and not 0.0 < float(p) <= 1.0:
        raise ValueError(f"p must lie in (0, 1], got {p!r}")
    return SquareAttack(
        threat=threat,
        p=jnp.asarray(p, jnp.float32),
        steps=steps,
        restarts=restarts,
        rescale_schedule=rescale_schedule,
        objective=objective,
    )
