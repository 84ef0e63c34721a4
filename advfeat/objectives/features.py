"""Scores that a picture ascends or differentiates: an output, a unit, a direction, a distance.

Objectives like those of `advfeat.objectives.classification`: `(model_fn, x, aim, key) ->
(score, success)` from ONE forward pass, frozen dataclasses that compare equal. What is looked at (a
class, a unit, a target representation) is the aim, so that a new one does not compile again.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from advfeat.objectives.losses import cross_entropy
from advfeat.threats.norms import L2, l2_length
from advfeat.types import Array, Key, ModelFn, Objective


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """The aim's output: logit of a class, or its log probability; success is its prediction.

    Attributes:
      log_probability: take log softmax rather than the logit itself.
    """

    takes_label: ClassVar[bool] = True
    log_probability: bool = False

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        logits = model_fn(x)
        values = jax.nn.log_softmax(logits) if self.log_probability else logits
        return _entry(values, y), jnp.argmax(logits) == y


@dataclasses.dataclass(frozen=True)
class Unit:
    """The aim's unit of a representation `[D]`, or the mean of its channel `[H, W, D]`.

    Success is that it is active at all.
    """

    takes_label: ClassVar[bool] = True

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        activations = model_fn(x)
        mean = jnp.mean(activations.reshape(-1, activations.shape[-1]), axis=0)
        found = _entry(mean, y)
        return found, found > 0


@dataclasses.dataclass(frozen=True)
class Direction:
    """The inner product of the activations with the aim, an array of their shape."""

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success (a positive product) at `x`, from one forward pass."""
        del key
        activations = model_fn(x)
        if jnp.shape(y) != activations.shape:
            raise ValueError(
                f"a direction must have the layer's shape {activations.shape}, got {jnp.shape(y)}"
            )
        score = jnp.sum(activations * y)
        return score, score > 0


@dataclasses.dataclass(frozen=True)
class Inversion:
    """How near the activations come to the aim: `-|r - r*| / |r*|`, 0 at best.

    Engstrom et al. (2019), https://arxiv.org/abs/1906.00945, equation 2, relative.

    Attributes:
      within: success is a relative distance of at most this.
    """

    within: float = 0.05

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        apart = _apart(model_fn(x), y) / jnp.maximum(l2_length(y), 1e-12)
        return -apart, apart <= self.within


@dataclasses.dataclass(frozen=True)
class Masked:
    """Descend the loss at a class while the pixels outside a mask stay as they are.

    Santurkar et al. (2019), https://arxiv.org/abs/1906.09453, appendix A. The aim is a triple:
    class `[]`, image `[H, W, C]`, mask `[H, W]` (1 where pixels may change).

    Attributes:
      weight: of the mean squared change outside the mask.
    """

    weight: float = 10.0

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        label, image, mask = y
        _check_mask(x, image, mask)
        logits = model_fn(x)
        kept = jnp.mean(((x - image) * (1.0 - mask)[:, :, None]) ** 2)
        return -cross_entropy(logits, label) - self.weight * kept, jnp.argmax(logits) == label


@dataclasses.dataclass(frozen=True)
class Painted:
    """Ascend a unit of a representation while the pixels outside a mask stay as they are.

    The aim is a triple: unit, image, mask, as for `Masked`.

    Attributes:
      share: of the activation in the score.
      weight: of the mean squared change outside the mask.
    """

    share: float = 0.1
    weight: float = 90.0

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success (the unit is active) at `x`, from one forward pass."""
        which, image, mask = y
        _check_mask(x, image, mask)
        value, active = Unit()(model_fn, x, which, key)
        kept = jnp.mean(((x - image) * (1.0 - mask)[:, :, None]) ** 2)
        return self.share * value - self.weight * kept, active


@dataclasses.dataclass(frozen=True)
class Reach:
    """`min(unit - level, 0)`: what has been added is added. Success is having got there.

    Attributes:
      level: of activation.
    """

    level: float = 1.0

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        value, _ = Unit()(model_fn, x, y, key)
        return jnp.minimum(value - self.level, 0.0), value >= self.level


@dataclasses.dataclass(frozen=True)
class Departure:
    """How far the activations go from the aim: `|r - r*|`, 0 at first; success is any distance."""

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        apart = _apart(model_fn(x), y)
        return apart, apart > 0


@dataclasses.dataclass(frozen=True)
class Diverse:
    """An objective of several images at once that also asks them to differ.

    `x` is `[n, H, W, C]`, one image per row; the aim is that of one image. Olah et al. (2017),
    https://distill.pub/2017/feature-visualization, "Diversity": the Gram matrices of the
    activations (which channels fire together) are to point in different directions.

    Attributes:
      objective: of each image; it calls the network once, with the image itself.
      weight: of the mean cosine between two images' Gram matrices.
    """

    objective: Objective
    weight: float = 1.0

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success (all of them) at `x`, from one forward pass of each image."""
        activations = jax.vmap(model_fn)(x)
        scores, successes = jax.vmap(
            lambda found: self.objective(lambda _: found, x[0], y, key)
        )(activations)
        flat = activations.reshape(len(x), -1, activations.shape[-1])
        gram = jnp.einsum("npi,npj->nij", flat, flat).reshape(len(x), -1)
        unit = jax.vmap(L2.direction)(gram, gram)
        cosines = unit @ unit.T
        others = 1.0 - jnp.eye(len(x))
        alike = jnp.sum(cosines * others) / jnp.maximum(jnp.sum(others), 1.0)
        return jnp.mean(scores) - self.weight * alike, jnp.all(successes)


def _entry(values: Array, index: Any) -> Array:
    """`[]`, `values[index]`; NaN outside, where indexing would take the last one."""
    place = jnp.asarray(index)
    inside = (place >= 0) & (place < values.shape[0])
    return jnp.where(inside, jnp.asarray(values)[place], jnp.nan)


def _check_mask(x: Array, image: Array, mask: Array) -> None:
    """Raises for shapes that would broadcast to something else."""
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask must have shape {x.shape[:2]}, got {mask.shape}")
    if image.shape != x.shape:
        raise ValueError(f"image must have shape {x.shape}, got {image.shape}")


def _apart(activations: Array, aim: Array) -> Array:
    if activations.shape != jnp.shape(aim):
        raise ValueError(
            f"the aim must have the activations' shape {activations.shape}, got {jnp.shape(aim)}"
        )
    return l2_length(activations - aim)


def class_score(*, log_probability: bool = False) -> ClassScore:
    """The score of a class, which the decks' saliency differentiates.

    >>> score, success = class_score()(lambda x: x, jnp.array([2.0, 0.5]), 1, jax.random.key(0))
    >>> float(score), bool(success)
    (0.5, False)
    """
    return ClassScore(log_probability)


def unit() -> Unit:
    """The activation of one unit or channel of a layer: the network is `model_fn(..., layer=)`."""
    return Unit()


def direction() -> Direction:
    """The activations along a direction; a sum of units with weights is one."""
    return Direction()


def inversion(*, within: float = 0.05) -> Inversion:
    """How near the representation is to a given one."""
    return Inversion(within)


def departure() -> Departure:
    """How far a representation can be moved; the square root has no slope at the aim itself."""
    return Departure()


def diverse(objective: Objective, *, weight: float = 1.0) -> Diverse:
    """Several images of one unit that differ from each other; start them as `[n, H, W, C]`.

    The network must be a pytree over its weights, as `models.model_fn` makes it.

    >>> two = diverse(unit(), weight=2.0)
    >>> x = jnp.array([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])  # of unit 0, and of unit 1
    >>> float(two(lambda image: image, x, 0, jax.random.key(0))[0])
    0.5
    """
    return Diverse(objective, weight)


def reach(*, level: float = 1.0) -> Reach:
    """A unit made as active as `level`, and no more: feature addition.

    >>> score, reached = reach(level=2.0)(lambda x: x, jnp.array([0.5, 3.0]), 0, jax.random.key(0))
    >>> float(score), bool(reached)
    (-1.5, False)
    """
    return Reach(level)


def masked(*, weight: float = 10.0) -> Masked:
    """The objective of inpainting: a class, and the rest of the image as it is."""
    return Masked(weight)


def painted(*, share: float = 0.1, weight: float = 90.0) -> Painted:
    """The objective of painting with features inside a mask."""
    return Painted(share, weight)
