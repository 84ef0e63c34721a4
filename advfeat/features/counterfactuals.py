"""Which features, made stronger, would turn a wrong prediction into the right label, and do they?

The counterfactual of a wrong prediction: the features of a layer that speak most for the label
against what was predicted, and the image in which they, and nothing else on purpose, are enhanced.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from advfeat.attacks.ascent import by_distance
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.checks import check_positive
from advfeat.numerics import finite
from advfeat.saliency.layers import Split
from advfeat.threats.balls import l2
from advfeat.types import Array, Key


class Features(NamedTuple):
    """Features of a layer that speak for a label against a prediction.

    Attributes:
      units: `[n]` int32, the strongest first.
      gains: `[n]`, what the margin of label over prediction gains, to first order, by one `scale`
        more of each.
      weights: `[D]`, `1 / scale` at these units, 0 elsewhere: the direction that enhances them.
    """

    units: Array
    gains: Array
    weights: Array


def supporting(
    network: Split, x: Array, label: Array, predicted: Array, scale: Array, *, count: int = 2
) -> Features:
    """The features that would help the label most.

    Args:
      network: from `models.split_fn` or `saliency.split`, at a layer of D units (of
        `models.with_fake_relu(model)`, or a unit that is off cannot be enhanced afterwards); for
        maps `[H, W, D]` a feature is a channel everywhere.
      x: ONE image.
      label: `[]`, what it is.
      predicted: `[]`, what the network says.
      scale: `[D]`, how much each unit varies (its standard deviation over images), positive.
      count: how many features.

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
    """Activations along given weights; success is that the label is predicted.

    The aim is a pair: weights `[D]` and label. The network is `models.split_fn`, which says both
    in one forward pass.
    """

    def __call__(self, model_fn: Any, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        weights, label = y
        _check_split(model_fn)
        activations, logits = model_fn.both(x)
        mean = jnp.mean(activations.reshape(-1, activations.shape[-1]), axis=0)
        return jnp.sum(mean * weights), jnp.argmax(logits) == label


def enhance(
    *, eps: float | Array = 4.0, steps: int = 80, step_size: float | Array = 0.1
) -> GradientAttack:
    """The smallest change on the way of some features at which the label is predicted.

    Its aim is `(weights, label)`; the network is from `models.split_fn` at the features' layer.
    What succeeded nearest to the image is kept; where nothing did, the most enhanced.

    Args:
      eps: how far from the image at most, L2.
      steps: of fixed length.
      step_size: their length.
    """
    return pgd(
        l2(eps), steps=steps, step_size=step_size, random_start=False, objective=Enhanced(),
        prefer=by_distance,
    )  # fmt: skip
