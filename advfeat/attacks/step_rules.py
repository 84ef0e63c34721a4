"""Step rules: how a gradient becomes a move. Each is an optax transformation.

The threat model's direction sits inside the chain, so that momentum may come before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from advfeat.checks import check_positive
from advfeat.numerics import scaled
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array

StepRule = Callable[[ThreatModel, Array], optax.GradientTransformation]
"""Threat model, step size `[]` -> transformation of the gradient of a score to ASCEND."""


def _direction(threat: ThreatModel) -> optax.GradientTransformation:
    return optax.stateless(lambda gradient, x: threat.direction(x, gradient))


def _scale(step_size: Array) -> optax.GradientTransformation:
    # optax.scale keeps weak types apart; the step size here is a traced float32 leaf.
    return optax.stateless(lambda update, _: update * step_size.astype(update.dtype))


def steepest(threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
    """A step of fixed length along the norm's steepest direction: PGD as Madry et al. write it."""
    return optax.chain(_direction(threat), _scale(step_size))


@dataclasses.dataclass(frozen=True)
class Momentum:
    """Momentum on the L1-normalised gradient, then the steepest direction (MI-FGSM).

    Dong et al. (2018), https://arxiv.org/abs/1710.06081, equations 6 and 7.

    Attributes:
      decay: how much of the past is kept; 1 is the paper's.
    """

    decay: float = 1.0

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """The chain: normalise, accumulate, direction, step."""

        def normalise(gradient: Array, _: Any) -> Array:
            # Dividing by the largest value first keeps the sum of gradients within the range.
            ratio, _ = scaled(gradient)
            return ratio / jnp.maximum(jnp.sum(jnp.abs(ratio)), 1.0)

        return optax.chain(
            optax.stateless(normalise),
            optax.trace(decay=self.decay),
            _direction(threat),
            _scale(step_size),
        )


@dataclasses.dataclass(frozen=True)
class OptaxRule:
    """Any optax optimiser as a step rule; it sees the gradient of the loss `-score`.

    Attributes:
      make: step size `[]` -> optimiser, e.g. `optax.adam`.
    """

    make: Callable[..., optax.GradientTransformation] = optax.adam

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """The optimiser on the negated gradient; the threat model only projects."""
        del threat
        descent = self.make(step_size)
        return optax.chain(optax.scale(-1.0), descent)


@dataclasses.dataclass(frozen=True)
class Filtered:
    """A step rule that sees a filtered gradient, so that perturbations keep to what it lets pass.

    Attributes:
      rule: what moves.
      filter: gradient `[H, W, C]` -> gradient, linear and symmetric. Where it is a projection
        (`filters.chroma420`), steps along the gradient stay in its range; where it only weighs
        (`filters.natural_spectrum`), what it weighs low grows slowly.
    """

    rule: StepRule
    filter: Callable[[Array], Array]

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """The filter, then the rule."""
        return optax.chain(
            optax.stateless(lambda gradient, _: self.filter(gradient)),
            self.rule(threat, step_size),
        )


def filtered(rule: StepRule, filter: Callable[[Array], Array]) -> Filtered:
    """A step rule whose gradient passes a filter first; see `Filtered`."""
    return Filtered(rule, filter)


@dataclasses.dataclass(frozen=True)
class Annealed:
    """A step rule whose moves shrink to nothing over the ascent, on a cosine.

    Attributes:
      rule: what moves.
      steps: of the whole ascent.
    """

    rule: StepRule
    steps: int

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """The rule, then the schedule."""
        shrink = optax.cosine_decay_schedule(1.0, self.steps)
        return optax.chain(self.rule(threat, step_size), optax.scale_by_schedule(shrink))


def annealed(rule: StepRule, steps: int) -> Annealed:
    """A step rule that comes to rest: steps of one length circle around what they seek.

    Raises:
      ValueError: for a number of steps below 1.
    """
    check_positive(steps, name="steps")
    return Annealed(rule, steps)


class Space(Protocol):
    """Linear coordinates of an image, such as `spaces.fourier`; hashable."""

    def image(self, z: Array) -> Array:
        """Coordinates -> image."""

    def adjoint(self, gradient: Array) -> Array:
        """Gradient with respect to the image -> with respect to the coordinates."""


@dataclasses.dataclass(frozen=True)
class Within:
    """A step rule that moves in other coordinates; its state (Adam's moments) is of those.

    Attributes:
      rule: what moves.
      space: the coordinates; of the image's shape.
    """

    rule: StepRule
    space: Space

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """Into the coordinates, the rule, and back."""
        return optax.chain(
            optax.stateless(lambda gradient, _: self.space.adjoint(gradient)),
            self.rule(threat, step_size),
            optax.stateless(lambda move, _: self.space.image(move)),
        )


def within(rule: StepRule, space: Space) -> Within:
    """A step rule in other coordinates: `within(from_optax(optax.adam), spaces.fourier())`.

    For steps of a fixed length in pixels, `filtered(steepest, spaces.fourier())`.
    """
    return Within(rule, space)


def momentum(decay: float = 1.0) -> Momentum:
    """The step rule of MI-FGSM; see `Momentum`.

    Raises:
      ValueError: for a decay outside [0, 1].
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay must lie in [0, 1], got {decay!r}")
    return Momentum(decay)


def from_optax(make: Callable[..., optax.GradientTransformation]) -> OptaxRule:
    """A step rule out of an optax optimiser's factory.

    Pass the factory itself (`optax.adam`), not a fresh lambda on every call: step rules are
    compared by equality, and an unequal one compiles anew.

    >>> from_optax(optax.adam) == from_optax(optax.adam)
    True
    """
    return OptaxRule(make)


def cosine(first: float | Array, last: float | Array, count: Array, steps: int) -> Array:
    """`[]`, a step size that falls from `first` at count 0 to `last` at count `steps`.

    Half a period of the cosine: Loshchilov and Hutter (2017), https://arxiv.org/abs/1608.03983,
    equation 5, without restarts.

    >>> [float(cosine(1.0, 0.0, count, 4).round(2)) for count in jnp.arange(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    part = jnp.pi * jnp.asarray(count, jnp.float32) / steps
    return last + (first - last) * 0.5 * (1.0 + jnp.cos(part))


def initial_state(rule: StepRule, threat: ThreatModel, step_size: Array, x0: Array) -> Any:
    """The optimiser's state with carries of the example's kind, as `shard_map` needs them."""
    with jax.numpy_dtype_promotion("standard"):
        state = rule(threat, step_size).init(x0)

    def carry(leaf: Array) -> Array:
        return jnp.full_like(x0, 0, shape=leaf.shape, dtype=leaf.dtype) + leaf

    return jax.tree.map(carry, state)


def moved(
    rule: optax.GradientTransformation, gradient: Array | None, state: Any, x: Array
) -> tuple[Array, Any]:
    """A rule's move and its next state; optax promotes types itself, however strict JAX is."""
    with jax.numpy_dtype_promotion("standard"):
        return rule.update(gradient, state, x)  # type: ignore[return-value]
