"""FAB: minimum-norm attack along the network's linearised decision boundaries.

Croce and Hein (2020), "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary
Attack", https://arxiv.org/abs/1907.02044, algorithm 1; the targeted form is AutoAttack's,
https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks.iterative import AttackState, zero_like
from advfeat.attacks.keeping import by_distance, choose, none_yet
from advfeat.attacks.linearised import MinimumNorm, evaluate_margin, linearise, nearest_boundary
from advfeat.checks import check_norm, check_positive, check_share, is_concrete
from advfeat.numerics import over, scaled
from advfeat.objectives.classification import likely_target
from advfeat.threats.balls import ThreatModel
from advfeat.threats.hyperplane import to_hyperplane
from advfeat.threats.norms import NORMS, Norm
from advfeat.types import (
    Array,
    AttackResult,
    Best,
    Evaluation,
    Key,
    ModelFn,
    pytree,
    static,
    with_key,
)

SEARCHES = 3  # evaluations of the final search, as in the paper
TOWARDS_FOUND = 0.1  # offset of the final search towards the adversarial end, over the bracket
START_RADIUS = {"linf": 0.3, "l2": 1.0, "l1": 5.0}  # the authors' values for an infinite eps


class FABState(NamedTuple):
    """State of FAB.

    Attributes:
      x: the iterate.
      x0: the example.
      step: `[]` int32, steps taken.
      nearest: the nearest adversarial example so far, also beyond eps.
    """

    x: Array
    x0: Array
    step: Array
    nearest: Best


def _random_start(key: Key, norm: Norm, eps: Array, x0: Array) -> Array:
    """Draws a point at distance eps / 2 from the example, then clips it to the box."""
    if norm.name == "linf":
        noise = jax.random.uniform(key, x0.shape, x0.dtype, -1.0, 1.0)
    else:
        noise = jax.random.normal(key, x0.shape, x0.dtype)
    radius = 0.5 * jnp.where(jnp.isfinite(eps), eps, START_RADIUS[norm.name]).astype(x0.dtype)
    length = norm.distance(jnp.zeros_like(noise), noise)
    return jnp.clip(x0 + radius * noise / jnp.where(length > 0, length, 1.0), 0.0, 1.0)


@pytree
class FastAdaptiveBoundary(MinimumNorm):
    """FAB: an `AttackFn`. Make one with `fab` or `fab_targeted`.

    Attributes:
      threat: its norm is minimised; only points within its eps (possibly infinite) count.
      alpha_max: `[]` float32, largest weight of the projection that starts at the example.
      eta: `[]` float32, factor by which a step overshoots the boundary.
      beta: `[]` float32, factor that pulls an adversarial iterate back towards the example.
      steps: moves per round.
      restarts: independent starts, per target if targeted.
      targets: number of target classes, one per round; 0 for all classes at every step.
      start_queries: 1 if targeted (to rank the classes), else 0.
    """

    threat: ThreatModel
    alpha_max: Array
    eta: Array
    beta: Array
    steps: int = static()
    restarts: int = static()
    targets: int = static()
    start_queries: int = static()

    def first(self, key: Key, x0: Array, start: Array) -> FABState:
        """Returns the state at the start, before any adversarial example."""
        del key
        return FABState(start, x0, zero_like(x0), none_yet(x0, start))

    def update(self, search: FABState, seen: Evaluation) -> FABState:
        """Moves towards the linearised boundary of one class by equation 9."""
        norm, x, x0, slope = self.threat.norm, search.x, search.x0, seen.grad
        assert slope is not None
        slope, largest = scaled(slope)  # keeps the next product from overflowing
        value = over(seen.score, largest)
        value0 = value + jnp.sum(slope * (x0 - x))
        # One vmap over both projections (iterate, example) halves the program to compile.
        here, there = jax.vmap(lambda z, lead: to_hyperplane(norm, z, slope, lead).step)(
            jnp.stack([x, x0]), jnp.stack([value, value0])
        )
        near, far = (norm.distance(jnp.zeros_like(x), step) for step in (here, there))
        both = near + far
        alpha = jnp.minimum(near / jnp.where(both > 0, both, 1.0), self.alpha_max)
        moved = (1.0 - alpha) * (x + self.eta * here) + alpha * (x0 + self.eta * there)
        return search._replace(x=jnp.clip(moved, 0.0, 1.0), step=search.step + 1)

    def start(
        self, key: Key, model_fn: ModelFn, x: Array, y: Any, index: Array
    ) -> tuple[Array, Any]:
        """Starts at the example, then at random points; the aim is (label, target of the round)."""
        restart, target = index, jnp.asarray(y)
        key_model, key_start = jax.random.split(key)
        if self.targets:
            logits = with_key(model_fn, key_model)(x)
            if self.targets > logits.size - 1:
                raise ValueError(
                    f"targets must be at most {logits.size - 1} for {logits.size} classes, "
                    f"got {self.targets}"
                )
            restart = index // self.targets
            target = likely_target(logits, y, index % self.targets)
        start = x
        if self.restarts > 1:
            drawn = _random_start(key_start, self.threat.norm, self.threat.eps, x)
            start = jnp.where(restart > 0, drawn, x)
        return start, (jnp.asarray(y), target)

    def noted(self, state: AttackState, x: Array, seen: Evaluation) -> AttackState:
        """Records a point: as the best one, and as the nearest adversarial one at any distance."""
        search = state.search
        found = Best(x, seen.score, seen.success, self.distance(search.x0, x).astype(jnp.float32))
        nearest = choose(by_distance, found, search.nearest)
        return state._replace(
            search=search._replace(nearest=nearest), best=self.better(state, x, seen)
        )

    def step(self, model_fn: ModelFn, state: AttackState) -> AttackState:
        """Linearises at the iterate, moves, and steps back if the new iterate is adversarial."""
        y, target = state.aim
        keys = jax.random.split(jax.random.fold_in(state.key, state.search.step))

        def classes(logits: Array) -> Array:
            every = jnp.arange(logits.size - 1)
            return target[None] if self.targets else every + (every >= y).astype(every.dtype)

        linear = linearise(with_key(model_fn, keys[0]), state.search.x, y, classes)
        state = self.noted(state, state.search.x, linear.seen)
        index = nearest_boundary(self.threat.norm, state.search.x, linear)
        search = self.update(state.search, linear.for_class(index))
        seen = evaluate_margin(with_key(model_fn, keys[1])(search.x), y)
        state = self.noted(state._replace(search=search), search.x, seen)
        back = search.x0 + self.beta * (search.x - search.x0)
        return state._replace(
            search=state.search._replace(x=jnp.where(seen.success, back, search.x)),
            queries=state.queries + 2,
            gradients=state.gradients + linear.differences.size,
        )

    def finish(self, model_fn: ModelFn, state: AttackState) -> AttackResult:
        """Runs the final search from the nearest adversarial example towards the example."""
        return super().finish(model_fn, self._search(model_fn, state))

    def _search(self, model_fn: ModelFn, state: AttackState) -> AttackState:
        """Runs regula falsi on the segment, on the logit difference of the class found at its end.

        It aims slightly beyond the estimated boundary, because a point short of it is useless.
        """
        (y, _), x0, found = state.aim, state.search.x0, state.search.nearest.x
        model_fn = with_key(model_fn, jax.random.fold_in(state.key, state.search.step))

        def narrow(_: int, carry: tuple[AttackState, Array, Array, Array, Array]) -> Any:
            state, low, high, logits_low, logits_high = carry
            other = likely_target(logits_high, y, jnp.zeros_like(y))
            lead_low, lead_high = (z[other] - z[y] for z in (logits_low, logits_high))
            rise = lead_high - lead_low
            is_bracket = (lead_low <= 0) & (lead_high > 0)
            root = jnp.where(is_bracket, -lead_low / jnp.where(is_bracket, rise, 1.0), 0.5)
            part = root + TOWARDS_FOUND * (1.0 - root)
            middle = low + part.astype(low.dtype) * (high - low)
            x = jnp.clip(x0 + middle * (found - x0), 0.0, 1.0)
            logits = model_fn(x)
            seen = evaluate_margin(logits, y)
            is_outer = seen.success
            return (
                self.noted(state, x, seen),
                jnp.where(is_outer, low, middle),
                jnp.where(is_outer, middle, high),
                jnp.where(is_outer, logits_low, logits),
                jnp.where(is_outer, logits, logits_high),
            )

        low, high = (jnp.full_like(x0, end, shape=()) for end in (0.0, 1.0))
        carry = (state, low, high, model_fn(x0), model_fn(found))
        state = jax.lax.fori_loop(0, SEARCHES, narrow, carry)[0]
        return state._replace(queries=state.queries + 2 + SEARCHES)


def _fab(
    threat: ThreatModel,
    *,
    steps: int,
    restarts: int,
    targets: int,
    alpha_max: float | Array,
    eta: float | Array,
    beta: float | Array,
) -> FastAdaptiveBoundary:
    check_norm(threat.norm.name, allowed=tuple(NORMS), attack="fab")
    check_positive(steps, name="steps")
    check_positive(restarts, name="restarts")
    check_share(alpha_max, name="alpha_max")
    check_share(beta, name="beta")
    if is_concrete(eta) and not 1.0 <= float(eta) < jnp.inf:
        raise ValueError(f"eta must be a number >= 1, got {float(eta):g}")
    return FastAdaptiveBoundary(
        threat=threat,
        alpha_max=jnp.asarray(alpha_max, jnp.float32),
        eta=jnp.asarray(eta, jnp.float32),
        beta=jnp.asarray(beta, jnp.float32),
        steps=steps,
        restarts=restarts,
        targets=targets,
        start_queries=1 if targets else 0,
    )


def fab(
    threat: ThreatModel,
    *,
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float | Array = 0.1,
    eta: float | Array = 1.05,
    beta: float | Array = 0.9,
) -> FastAdaptiveBoundary:
    """Returns FAB, the fast adaptive boundary attack (minimum norm): algorithm 1.

    A step linearises the network, selects the class with the nearest linearised boundary, and
    projects both iterate and example onto that boundary within the box. It moves to a weighted mean
    of the two projections (equation 9) and, if that is adversarial, back towards the example.
    Finally it tries three more points between the example and the nearest adversarial example.

    **Every step costs K - 1 backward passes** for K classes. They run in parallel and need about
    eight arrays of the image's shape per class and image of the batch, besides the network's own
    memory. That is 38 GB for 8 images of 224 x 224 x 3 and 1000 classes: use `fab_targeted` there.

    Args:
      threat: L-infinity, L2 or L1. An infinite eps searches for the nearest adversarial example
        anywhere in the box; with a finite one only points within eps count, though iterates may
        leave the ball.
      steps: moves per restart.
      restarts: number of starts: the example itself, then random points at distance eps / 2 (half
        of 0.3, 1 or 5 in L-infinity, L2 or L1 if eps is infinite).
      alpha_max: `[]`, largest weight of the example's own projection, in [0, 1].
      eta: `[]`, overshoot factor of the projections, at least 1.
      beta: `[]`, where to continue between the example (0) and an adversarial iterate (1).

    Returns:
      An `AttackFn` for ONE example. `best` is the nearest adversarial example found, at distance 0
      if the example is already misclassified. Per restart it spends `2 * steps + 6` forward and
      `(K - 1) * steps` backward passes.

    Raises:
      ValueError: for an unsupported norm, counts below 1, or an alpha_max, eta or beta out of
        range.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> attack = fab(advfeat.l2(), steps=10)
    >>> result = attack(jax.random.key(0), lambda x: x, jnp.array([0.7, 0.5]), 0)
    >>> result.best.x.round(3).tolist(), round(float(result.best.distance), 3)
    ([0.6, 0.6], 0.141)
    """
    return _fab(
        threat,
        steps=steps,
        restarts=restarts,
        targets=0,
        alpha_max=alpha_max,
        eta=eta,
        beta=beta,
    )


def fab_targeted(
    threat: ThreatModel,
    *,
    steps: int = 100,
    targets: int = 9,
    restarts: int = 1,
    alpha_max: float | Array = 0.1,
    eta: float | Array = 1.05,
    beta: float | Array = 0.9,
) -> FastAdaptiveBoundary:
    """Returns FAB-T, targeted FAB, which follows one class boundary per round as in AutoAttack.

    It needs one backward pass per step for any number of classes. It takes the label, and any
    other prediction is a success: the target of a round, the (1 + index)-th most likely class other
    than the label, only selects the boundary to follow.

    Args:
      threat: as `fab`.
      steps: moves per target and restart.
      targets: number of classes to try; at most K - 1.
      restarts: as `fab`, per target; every target gets its first start before any its second.
      alpha_max: as `fab`.
      eta: as `fab`.
      beta: as `fab`.

    Returns:
      An `AttackFn` for ONE example, as `fab`. Per target and restart it spends `2 * steps + 7`
      forward and `steps` backward passes.

    Raises:
      ValueError: as `fab`; while tracing, for more than K - 1 targets.

    Example:

    >>> import jax, jax.numpy as jnp, advfeat
    >>> attack = fab_targeted(advfeat.linf(), steps=10, targets=2)
    >>> result = attack(jax.random.key(0), lambda x: x, jnp.array([0.7, 0.5, 0.1]), 0)
    >>> result.best.x.round(3).tolist(), int(result.gradients)
    ([0.6, 0.6, 0.1], 20)
    """
    check_positive(targets, name="targets")
    return _fab(
        threat,
        steps=steps,
        restarts=restarts,
        targets=targets,
        alpha_max=alpha_max,
        eta=eta,
        beta=beta,
    )
