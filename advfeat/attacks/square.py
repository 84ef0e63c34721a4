"""Square Attack: random search that needs scores only, one square window at a time.

Andriushchenko et al. (2020), https://arxiv.org/abs/1912.00049: algorithm 1, with algorithm 2 for
L-infinity and algorithm 3 for L2; for L1 the relative of algorithm 3 of Croce and Hein (2021),
https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.attacks import ascent, square_l2_l1
from advfeat.attacks.ascent import Ascent
from advfeat.attacks.stepwise import Stepwise
from advfeat.checks import check_norm, check_positive, is_concrete
from advfeat.objectives.classification import untargeted
from advfeat.objectives.losses import margin
from advfeat.threats import norms
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, Evaluation, Key, ModelFn, Objective, Oracle

# The square's share p of the image is halved after so many candidates of 10,000 (section 4.1).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE = 10_000


def side(p: Array, count: Array, shape: tuple[int, ...], *, period: int, odd: bool) -> Array:
    """The side of the square of candidate `count` (from 0).

    Args:
      p: `[]`, the square's share of the image at first.
      count: `[]` int32.
      shape: `[H, W, C]`.
      period: the number of candidates that the whole schedule is spread over.
      odd: whether the side must be odd and at least 3, as a bump's.

    Returns:
      `[]` int32.

    >>> [int(side(jnp.float32(0.8), jnp.int32(n), (28, 28, 1), period=10_000, odd=False))
    ...  for n in (0, 11, 51, 4001)]
    [25, 18, 13, 2]
    """
    height, width = shape[:2]
    # In whole numbers: the first candidate after each of the schedule's `count > halving`.
    changes = jnp.asarray([-(-(after + 1) * period // SCHEDULE) for after in HALVINGS])
    share = p * jax.lax.pow(jnp.full_like(p, 0.5), jnp.sum(count >= changes, dtype=jnp.int32))
    wanted = jnp.round(jnp.sqrt(share * height * width)).astype(jnp.int32)
    if odd:
        wanted = jnp.maximum(wanted, 3)
        wanted = wanted + (wanted + 1) % 2
    return jnp.clip(wanted, 1, min(height, width))


def _ends(eps: Array, x0: Array) -> tuple[Array, Array]:
    return jnp.maximum(x0 - eps, 0.0), jnp.minimum(x0 + eps, 1.0)


def _stripes(threat: ThreatModel, key: Key, x0: Array) -> Array:
    """Vertical stripes of one pixel: where the search begins in L-infinity."""
    low, high = _ends(threat.eps, x0)
    return jnp.where(jax.random.bernoulli(key, 0.5, (1, *x0.shape[1:])), high, low)


def _recoloured(
    threat: ThreatModel, x0: Array, kept: Array, side: Array, draw: square_l2_l1.Draw
) -> Array:
    """A candidate in L-infinity: in a square, each channel goes to one end of its range.

    Algorithm 2. Where that changes nothing, every channel goes to the other end (the authors draw
    again): late in the search that is so for a third of the draws on grey images.
    """
    low, high = _ends(threat.eps, x0)
    inside = square_l2_l1.window(x0.shape, square_l2_l1.corner(x0.shape, side, draw.place), side)
    up = (draw.sign < 0.5)[None, None, :]
    changes = jnp.any(inside & (jnp.where(up, high, low) != kept))
    return jnp.where(inside, jnp.where(up == changes, high, low), kept)


class SquareState(NamedTuple):
    """State of the random search.

    Attributes:
      x: the candidate, to be evaluated; at count 0 the example.
      x0: the example.
      count: `[]` int32, points evaluated.
      key: of the proposals, folded with the count.
      kept: the point that candidates are made from, the best so far; at count 0 the start.
      score: `[]`, of `kept`; -inf before it was evaluated.
      success: `[]` bool, of `kept`.
    """

    x: Array
    x0: Array
    count: Array  # type: ignore[assignment]  # hides tuple.count, which nobody wants here
    key: Key
    kept: Array
    score: Array
    success: Array


def random_search(threat: ThreatModel, p: Array, *, period: int) -> Ascent:
    """The kernel: look at the example, then the start, then a candidate per step.

    A candidate is kept if it succeeds or, failing that, scores higher. Once a point succeeds the
    search stays there, as the authors' code leaves an image that is fooled: an example that is
    misclassified already is returned as it is.

    Args:
      threat: the set of allowed inputs.
      p: `[]`, the square's share of the image at first.
      period: the number of candidates that the schedule of p is spread over.
    """
    kind = square_l2_l1.KINDS.get(threat.norm.name)
    propose = _recoloured if kind is None else partial(square_l2_l1.bumped, kind)

    def init(key: Key, x0: Array, start: Array) -> SquareState:
        return SquareState(
            x=x0,
            x0=x0,
            count=jnp.full_like(x0, 0, shape=(), dtype=jnp.int32),
            # Out of the way of the oracle's keys, which are the same key folded with the count.
            key=jax.random.fold_in(key, np.iinfo(np.int32).max),
            kept=start,
            score=jnp.full_like(x0, -jnp.inf, shape=(), dtype=jnp.float32),
            success=jnp.full_like(x0, False, shape=(), dtype=bool),
        )

    def update(state: SquareState, seen: Evaluation) -> SquareState:
        score = seen.score.astype(jnp.float32)
        # The example is no rung of the ladder: the start is kept even if it scores less.
        rises = (score > state.score) & (state.count > 0)
        better = jnp.where(seen.success == state.success, rises, seen.success)
        better = better & ~jnp.isnan(score)
        kept = jnp.where(better, state.x, state.kept)
        success = jnp.where(better, seen.success, state.success)
        draw = square_l2_l1.draw(jax.random.fold_in(state.key, state.count), kept.shape[-1])
        size = side(p, state.count - 1, kept.shape, period=period, odd=kind is not None)
        candidate = propose(threat, state.x0, kept, size, draw).astype(kept.dtype)
        moves = (state.count > 0) & ~success
        return SquareState(
            x=jnp.where(moves, candidate, kept),
            x0=state.x0,
            count=state.count + 1,
            key=state.key,
            kept=kept,
            score=jnp.where(better, score, state.score),
            success=success,
        )

    return Ascent(init, update)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)  # jax.jit(attack) hashes it; arrays do not
class SquareAttack(Stepwise):
    """Random search by scores: an `AttackFn`. Make one with `square`.

    Attributes:
      threat: the set of allowed inputs, in L-infinity, L2 or L1.
      p: `[]` float32, the square's share of the image at first.
      steps: moves per restart: to the start, then to each candidate.
      rounds: restarts.
      rescale_schedule: whether the schedule of p is spread over `steps`.
      objective: what to ascend.
    """

    threat: ThreatModel
    p: Array
    steps: int = dataclasses.field(metadata={"static": True})
    rounds: int = dataclasses.field(metadata={"static": True})
    rescale_schedule: bool = dataclasses.field(metadata={"static": True})
    objective: Objective = dataclasses.field(metadata={"static": True})

    def kernel(self, x0: Array) -> Ascent:
        """Random search, with the schedule of p."""
        del x0
        period = self.steps if self.rescale_schedule else SCHEDULE
        return random_search(self.threat, self.p, period=period)

    def distance(self, x0: Array, x: Array) -> Array:
        """In the threat model's norm."""
        return self.threat.distance(x0, x)

    def oracle(self, model_fn: ModelFn, aim: Any) -> Oracle:
        """Scores only: no gradient is ever computed."""
        return ascent.scores_only(self.objective, model_fn, aim)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Vertical stripes, or a grid of bumps."""
        del model_fn, index
        kind = square_l2_l1.KINDS.get(self.threat.norm.name)
        draw = _stripes if kind is None else partial(square_l2_l1.grid, kind)
        return draw(self.threat, key, x).astype(x.dtype), y


def square(
    threat: ThreatModel,
    *,
    steps: int = 5000,
    restarts: int = 1,
    p: float | Array = 0.8,
    rescale_schedule: bool = False,
    objective: Objective | None = None,
) -> SquareAttack:
    """Square Attack: random search that sees scores only, and so no masked gradients.

    The defaults are AutoAttack's. `steps + 1` queries per restart: the example itself, which costs
    one and notices at distance 0 what is misclassified already, the start, `steps - 1` candidates.

    Args:
      threat: the set of allowed inputs, in L-infinity, L2 or L1.
      steps: moves per restart.
      restarts: independent searches; each example keeps its worst.
      p: `[]`, the square's share of the image at first, in (0, 1]. The paper takes 0.05 for
        L-infinity and 0.1 for L2 on ordinary networks, 0.8 on robust ones.
      rescale_schedule: halve p at the paper's fractions of `steps`; otherwise after as many
        candidates as in its 10,000, however few `steps` there are.
      objective: what to ascend; by default the margin away from the label.

    Returns:
      An `AttackFn` for ONE example. It stops moving at the first success, whose score is therefore
      not the highest there is.

    Raises:
      ValueError: for counts below 1, p outside (0, 1], or another norm.

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
        rounds=restarts,
        rescale_schedule=rescale_schedule,
        objective=untargeted(margin) if objective is None else objective,
    )
