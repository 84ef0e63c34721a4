"""Counterfactuals of wrong predictions: features whose enhancement would correct them.

Selects the features of a layer that most favour the label over the prediction, and synthesises the
image in which only these features are deliberately enhanced, to test whether the prediction flips.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from advfeat.attacks.keeping import by_distance
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.checks import check_positive
from advfeat.numerics import finite
from advfeat.saliency.layers import Split
from advfeat.threats.balls import l2
from advfeat.types import Array, Key, Label, Number, Scored


class Features(NamedTuple):
    """Features of a layer that favour a label over a prediction.

    Attributes:
      units: strongest first.
      gains: first-order gain in the margin of label over prediction per `scale` of each unit.
      weights: `1 / scale` at these units and 0 elsewhere: the direction that enhances them.
    """

    units: Int[Array, " n"]
    gains: Float[Array, " n"]
    weights: Float[Array, " D"]


def supporting(
    network: Split,
    x: Float[Array, "*x"],
    label: Label,
    predicted: Label,
    scale: Float[Array, " D"],
    *,
    count: int = 2,
) -> Features:
    """Selects the features that most increase the margin of the label over the prediction.

    Args:
      network: from `models.split_fn` or `saliency.split`, at a layer of D units. Use
        `models.with_fake_relu(model)`, or inactive units cannot be enhanced later. For maps
        `[H, W, D]` a feature is a whole channel.
      x: ONE image.
      label: true class.
      predicted: predicted class.
      scale: positive, standard deviation of each unit over images.
      count: number of features.

    Raises:
      ValueError: for a scale of another shape, or more features than units.
    """
    check_positive(count, name="count")
    _check_split(network)
    activations = network.activations(x)
    units = activations.shape[-1]
    if scale.shape != (units,):
        raise ValueError(f"scale must have shape ({units},), got {scale.shape}")
    if count > units:
        raise ValueError(f"count must be at most {units}, the layer's units, got {count}")

    def margin(delta: Array) -> Array:
        logits = network.perturbed(x, delta)
        return logits[label] - logits[predicted]

    slope = finite(jax.grad(margin)(jnp.zeros_like(activations))).reshape(-1, units).sum(axis=0)
    gains, found = jax.lax.top_k(slope * scale, count)
    weights = jnp.zeros(units).at[found].set(1.0 / scale[found])
    return Features(found.astype(jnp.int32), gains, weights)


def _check_split(network: Any) -> None:
    if not hasattr(network, "both"):
        raise ValueError(
            "features of a layer need a network that lets it be reached: models.split_fn(model, "
            "variables, layer=NAME) or saliency.split(before, after)"
        )


@dataclasses.dataclass(frozen=True)
class Enhanced:
    """Weighted sum of activations; success is a prediction of the label.

    The aim is a pair: weights and label. The network is `models.split_fn`, which returns
    activations and logits from one forward pass.
    """

    def __call__(
        self, key: Key, model_fn: Any, x: Float[Array, "*x"], y: tuple[Float[Array, " D"], Label]
    ) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        weights, label = y
        _check_split(model_fn)
        activations, logits = model_fn.both(x)
        mean = jnp.mean(activations.reshape(-1, activations.shape[-1]), axis=0)
        return jnp.sum(mean * weights), jnp.argmax(logits) == label


def enhance(*, eps: Number = 4.0, steps: int = 80, step_size: Number = 0.1) -> GradientAttack:
    """Enhances given features until the label is predicted and keeps the nearest such image.

    The aim is `(weights, label)`, and the network comes from `models.split_fn` at the features'
    layer. Without any success, the iterate with the strongest features is kept.

    Args:
      eps: maximum L2 distance from the image.
      steps: number of steps of fixed length.
      step_size: length of a step.
    """
    return pgd(
        l2(eps),
        steps=steps,
        step_size=step_size,
        random_start=False,
        objective=Enhanced(),
        keep=by_distance,
    )
