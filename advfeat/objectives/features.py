"""Feature scores for visualisation and saliency: a logit, a unit, a direction, a distance.

Objectives like those of `advfeat.objectives.classification`: `(model_fn, x, aim, key) ->
(score, success)` from ONE forward pass, as frozen dataclasses that compare by value. The class,
unit or target representation is passed as the aim, so that changing it does not recompile.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from advfeat.objectives.losses import cross_entropy
from advfeat.threats.norms import L2, l2_length
from advfeat.types import Array, Key, ModelFn, Objective, Scored


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """Logit or log-probability of the aim, a class; success is its prediction.

    Attributes:
      log_probability: use log softmax instead of the raw logit.
    """

    takes_label: ClassVar[bool] = True
    log_probability: bool = False

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        logits = model_fn(x)
        values = jax.nn.log_softmax(logits) if self.log_probability else logits
        return _entry(values, y), jnp.argmax(logits) == y


@dataclasses.dataclass(frozen=True)
class Unit:
    """Activation of the aim, a unit of `[D]` or the spatial mean of a channel of `[H, W, D]`.

    Success means that the activation is positive.
    """

    takes_label: ClassVar[bool] = True

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        activations = model_fn(x)
        mean = jnp.mean(activations.reshape(-1, activations.shape[-1]), axis=0)
        found = _entry(mean, y)
        return found, found > 0


@dataclasses.dataclass(frozen=True)
class Direction:
    """Inner product of the activations with the aim, an array of the same shape."""

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success (a positive product) at `x`, from one forward pass."""
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
    """Negative relative distance of the activations to the aim: `-|r - r*| / |r*|`, at most 0.

    Engstrom et al. (2019), https://arxiv.org/abs/1906.00945, equation 2, divided by `|r*|`.

    Attributes:
      within: largest relative distance that counts as success.
    """

    within: float = 0.05

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        apart = _apart(model_fn(x), y) / jnp.maximum(l2_length(y), 1e-12)
        return -apart, apart <= self.within


@dataclasses.dataclass(frozen=True)
class Masked:
    """Descends the loss at a class and penalises changes outside a mask.

    Santurkar et al. (2019), https://arxiv.org/abs/1906.09453, appendix A. The aim is a triple:
    class `[]`, image `[H, W, C]`, mask `[H, W]` (1 where pixels may change).

    Attributes:
      weight: weight of the mean squared change outside the mask.
    """

    weight: float = 10.0

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        label, image, mask = y
        _check_mask(x, image, mask)
        logits = model_fn(x)
        kept = jnp.mean(((x - image) * (1.0 - mask)[:, :, None]) ** 2)
        return -cross_entropy(logits, label) - self.weight * kept, jnp.argmax(logits) == label


@dataclasses.dataclass(frozen=True)
class Painted:
    """Ascends a unit of a representation and penalises changes outside a mask.

    The aim is a triple: unit, image, mask, as for `Masked`.

    Attributes:
      share: weight of the activation in the score.
      weight: weight of the mean squared change outside the mask.
    """

    share: float = 0.1
    weight: float = 90.0

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success (the unit is active) at `x`, from one forward pass."""
        which, image, mask = y
        _check_mask(x, image, mask)
        value, active = Unit()(key, model_fn, x, which)
        kept = jnp.mean(((x - image) * (1.0 - mask)[:, :, None]) ** 2)
        return self.share * value - self.weight * kept, active


@dataclasses.dataclass(frozen=True)
class Reach:
    """Activation capped at a level: `min(unit - level, 0)`. Success means reaching the level.

    Attributes:
      level: activation to reach.
    """

    level: float = 1.0

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        value, _ = Unit()(key, model_fn, x, y)
        return jnp.minimum(value - self.level, 0.0), value >= self.level


@dataclasses.dataclass(frozen=True)
class FeatureDistance:
    """Distance of the activations from the aim, `|r - r*|`; any positive distance is success."""

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        apart = _apart(model_fn(x), y)
        return apart, apart > 0


@dataclasses.dataclass(frozen=True)
class Diverse:
    """Applies an objective to several images at once and rewards diversity among them.

    There is one image per row of `x`; all images share one aim. The diversity term is that
    of Olah et al. (2017), https://distill.pub/2017/feature-visualization, "Diversity": it
    penalises similar Gram matrices of the activations (which channels are active together).

    Attributes:
      objective: objective of each image; it calls the network once, on the image itself.
      weight: weight of the mean cosine between the Gram matrices of two images.
    """

    objective: Objective
    weight: float = 1.0

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, " n *x"], y: Any) -> Scored:
        """Returns score and success (of all images) at `x`, from one forward pass per image."""
        activations = jax.vmap(model_fn)(x)
        scores, successes = jax.vmap(lambda found: self.objective(key, lambda _: found, x[0], y))(
            activations
        )
        flat = activations.reshape(len(x), -1, activations.shape[-1])
        gram = jnp.einsum("npi,npj->nij", flat, flat).reshape(len(x), -1)
        unit = jax.vmap(L2.direction)(gram, gram)
        cosines = unit @ unit.T
        others = 1.0 - jnp.eye(len(x))
        alike = jnp.sum(cosines * others) / jnp.maximum(jnp.sum(others), 1.0)
        return jnp.mean(scores) - self.weight * alike, jnp.all(successes)


def _entry(values: Float[Array, " K"], index: Any) -> Float[Array, ""]:
    """Returns `values[index]`, or NaN for an index out of range, which JAX would clamp."""
    place = jnp.asarray(index)
    inside = (place >= 0) & (place < values.shape[0])
    return jnp.where(inside, jnp.asarray(values)[place], jnp.nan)


def _check_mask(x: Array, image: Array, mask: Array) -> None:
    """Raises for shapes that would broadcast unintentionally."""
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
    """Returns the score of a class, the default that saliency methods differentiate.

    >>> score, success = class_score()(jax.random.key(0), lambda x: x, jnp.array([2.0, 0.5]), 1)
    >>> float(score), bool(success)
    (0.5, False)
    """
    return ClassScore(log_probability)


def unit() -> Unit:
    """Returns the activation score of a unit or channel; the network is `model_fn(..., layer=)`."""
    return Unit()


def direction() -> Direction:
    """Returns the score of a direction in activation space, i.e. of a weighted sum of units."""
    return Direction()


def inversion(*, within: float = 0.05) -> Inversion:
    """Returns the objective of representation inversion: match a given representation."""
    return Inversion(within)


def feature_distance() -> FeatureDistance:
    """Returns the objective that moves a representation away; its gradient is 0 at the aim."""
    return FeatureDistance()


def diverse(objective: Objective, *, weight: float = 1.0) -> Diverse:
    """Returns an objective that draws several distinct images; start from `[n, H, W, C]`.

    The network must be a pytree over its weights, as `models.model_fn` makes it.

    >>> two = diverse(unit(), weight=2.0)
    >>> x = jnp.array([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])  # of unit 0, and of unit 1
    >>> float(two(jax.random.key(0), lambda image: image, x, 0)[0])
    0.5
    """
    return Diverse(objective, weight)


def reach(*, level: float = 1.0) -> Reach:
    """Returns the objective of feature addition: raise a unit to `level`, and no further.

    >>> score, reached = reach(level=2.0)(jax.random.key(0), lambda x: x, jnp.array([0.5, 3.0]), 0)
    >>> float(score), bool(reached)
    (-1.5, False)
    """
    return Reach(level)


def masked(*, weight: float = 10.0) -> Masked:
    """Returns the objective of inpainting: a class inside the mask, no change outside it."""
    return Masked(weight)


def painted(*, share: float = 0.1, weight: float = 90.0) -> Painted:
    """Returns the objective of feature painting: a unit inside the mask, no change outside it."""
    return Painted(share, weight)
