"""Step rules: optax transformations that turn a gradient into a move.

The steepest direction of the threat model is part of the chain, so that momentum can precede it.
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
    # Not optax.scale, since the step size here is a traced float32 leaf, not a weak type.
    return optax.stateless(lambda update, _: update * step_size.astype(update.dtype))


def steepest(threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
    """Takes fixed-length steps along the norm's steepest direction, as in PGD (Madry et al.)."""
    return optax.chain(_direction(threat), _scale(step_size))


@dataclasses.dataclass(frozen=True)
class Momentum:
    """MI-FGSM step rule: momentum on the L1-normalised gradient, then the steepest direction.

    Dong et al. (2018), https://arxiv.org/abs/1710.06081, equations 6 and 7.

    Attributes:
      decay: momentum decay factor; 1 in the paper.
    """

    decay: float = 1.0

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """Chains normalisation, accumulation, direction and step size."""

        def normalise(gradient: Array, _: Any) -> Array:
            # Dividing by the largest magnitude first keeps the sum from overflowing.
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
    """Step rule from any optax optimiser, which minimises the loss `-score`.

    Attributes:
      make: step size `[]` -> optimiser, e.g. `optax.adam`.
    """

    make: Callable[..., optax.GradientTransformation] = optax.adam

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """Applies the optimiser to the negated gradient; the threat model only projects."""
        del threat
        descent = self.make(step_size)
        return optax.chain(optax.scale(-1.0), descent)


@dataclasses.dataclass(frozen=True)
class Filtered:
    """Step rule on a filtered gradient, which confines perturbations to the filter's passband.

    Attributes:
      rule: the inner step rule.
      filter: gradient `[H, W, C]` -> gradient, linear and symmetric. If it is a projection
        (`filters.chroma420`), steps along the gradient stay in its range; if it is a weighting
        (`filters.natural_spectrum`), components with low weights grow slowly.
    """

    rule: StepRule
    filter: Callable[[Array], Array]

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """Chains the filter and the rule."""
        return optax.chain(
            optax.stateless(lambda gradient, _: self.filter(gradient)),
            self.rule(threat, step_size),
        )


def filtered(rule: StepRule, filter: Callable[[Array], Array]) -> Filtered:
    """Returns a step rule on filtered gradients; see `Filtered`."""
    return Filtered(rule, filter)


@dataclasses.dataclass(frozen=True)
class Annealed:
    """Step rule whose moves decay to zero over the ascent on a cosine schedule.

    Attributes:
      rule: the inner step rule.
      steps: number of steps of the whole ascent.
    """

    rule: StepRule
    steps: int

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """Chains the rule and the schedule."""
        shrink = optax.cosine_decay_schedule(1.0, self.steps)
        return optax.chain(self.rule(threat, step_size), optax.scale_by_schedule(shrink))


def annealed(rule: StepRule, steps: int) -> Annealed:
    """Returns a step rule that converges; steps of constant length oscillate around the optimum.

    Raises:
      ValueError: for `steps` below 1.
    """
    check_positive(steps, name="steps")
    return Annealed(rule, steps)


class Space(Protocol):
    """Linear coordinates of an image, such as `parametrisations.fourier`; hashable."""

    def image(self, z: Array) -> Array:
        """Maps coordinates to an image."""

    def adjoint(self, gradient: Array) -> Array:
        """Maps a gradient in the image to a gradient in the coordinates."""


@dataclasses.dataclass(frozen=True)
class Within:
    """Step rule in other coordinates, in which its state (e.g. Adam's moments) lives as well.

    Attributes:
      rule: the inner step rule.
      space: the coordinates, of the image's shape.
    """

    rule: StepRule
    space: Space

    def __call__(self, threat: ThreatModel, step_size: Array) -> optax.GradientTransformation:
        """Chains the map into the coordinates, the rule, and the map back."""
        return optax.chain(
            optax.stateless(lambda gradient, _: self.space.adjoint(gradient)),
            self.rule(threat, step_size),
            optax.stateless(lambda move, _: self.space.image(move)),
        )


def within(rule: StepRule, space: Space) -> Within:
    """Returns a step rule in other coordinates, e.g. `within(from_optax(optax.adam), fourier())`.

    For steps of fixed length in pixels use `filtered(steepest, fourier())`.
    """
    return Within(rule, space)


def momentum(decay: float = 1.0) -> Momentum:
    """Returns the step rule of MI-FGSM; see `Momentum`.

    Raises:
      ValueError: for a decay outside [0, 1].
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay must lie in [0, 1], got {decay!r}")
    return Momentum(decay)


def from_optax(make: Callable[..., optax.GradientTransformation]) -> OptaxRule:
    """Returns a step rule from an optax optimiser factory.

    Pass the factory itself (`optax.adam`), not a new lambda on every call: step rules are compared
    by equality, and an unequal one triggers a recompilation.

    >>> from_optax(optax.adam) == from_optax(optax.adam)
    True
    """
    return OptaxRule(make)


def cosine(first: float | Array, last: float | Array, count: Array, steps: int) -> Array:
    """Computes a cosine schedule from `first` at count 0 to `last` at count `steps`.

    Loshchilov and Hutter (2017), https://arxiv.org/abs/1608.03983, equation 5, without restarts.

    >>> [float(cosine(1.0, 0.0, count, 4).round(2)) for count in jnp.arange(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    part = jnp.pi * jnp.asarray(count, jnp.float32) / steps
    return last + (first - last) * 0.5 * (1.0 + jnp.cos(part))


def initial_state(rule: StepRule, threat: ThreatModel, step_size: Array, x0: Array) -> Any:
    """Initialises the optimiser state with the varying axes of `x0` that `shard_map` requires."""
    with jax.numpy_dtype_promotion("standard"):
        state = rule(threat, step_size).init(x0)

    def carry(leaf: Array) -> Array:
        return jnp.full_like(x0, 0, shape=leaf.shape, dtype=leaf.dtype) + leaf

    return jax.tree.map(carry, state)


def moved(
    rule: optax.GradientTransformation, gradient: Array | None, state: Any, x: Array
) -> tuple[Array, Any]:
    """Applies a rule, with standard type promotion, which optax relies on."""
    with jax.numpy_dtype_promotion("standard"):
        return rule.update(gradient, state, x)  # type: ignore[return-value]
