"""Layer attribution: layer gradients and Grad-CAM.

Selvaraju et al. (2017), https://arxiv.org/abs/1610.02391.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float

from advfeat.edges import on_one
from advfeat.numerics import finite
from advfeat.objectives.features import class_score
from advfeat.types import Array, Key, ModelFn, Objective, as_model_fn, pytree, static


class Split(Protocol):
    """A network that exposes a layer: `models.split_fn`, or `split` of two functions."""

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, " K"]:
        """Maps ONE example to logits."""

    def activations(self, x: Float[Array, "*x"]) -> Float[Array, "*layer"]:
        """Maps ONE example to the activations of the layer."""

    def both(self, x: Float[Array, "*x"]) -> tuple[Float[Array, "*layer"], Float[Array, " K"]]:
        """Returns activations and logits, from one forward pass."""

    def perturbed(self, x: Float[Array, "*x"], delta: Float[Array, "*layer"]) -> Float[Array, " K"]:
        """Returns the logits after adding `delta` to the activations of the layer."""


@pytree
class Composed:
    """Composition of two functions around a layer; make one with `split`."""

    before: ModelFn
    after: ModelFn

    def __call__(self, x: Float[Array, "*x"]) -> Float[Array, " K"]:
        """Maps ONE example to logits."""
        return self.after(self.before(x))

    def activations(self, x: Float[Array, "*x"]) -> Float[Array, "*layer"]:
        """Returns the activations between the two functions."""
        return self.before(x)

    def both(self, x: Float[Array, "*x"]) -> tuple[Float[Array, "*layer"], Float[Array, " K"]]:
        """Returns the activations between the two functions, and the logits."""
        between = self.before(x)
        return between, self.after(between)

    def perturbed(self, x: Float[Array, "*x"], delta: Float[Array, "*layer"]) -> Float[Array, " K"]:
        """Returns the logits after adding `delta` between the two functions."""
        return self.after(self.before(x) + delta)


def split(before: ModelFn, after: ModelFn) -> Composed:
    """Composes the functions before and after a layer, for attribution at that layer.

    Args:
      before: ONE example -> activations.
      after: activations -> logits `[K]`.
    """
    return Composed(as_model_fn(before), as_model_fn(after))


def _parts(
    key: Key, objective: Objective, network: Any, x: Float[Array, "*x"], y: Any
) -> tuple[Float[Array, "*layer"], Float[Array, "*layer"]]:
    """Returns the activations of a layer and the gradient of the score with respect to them."""
    if not hasattr(network, "perturbed"):
        raise ValueError(
            "a map of a layer needs a network that lets it be reached: models.split_fn(model, "
            "variables, layer=NAME) or saliency.split(before, after)"
        )
    activations = network.activations(x)

    def score(delta: Array) -> Array:
        return objective(key, lambda point: network.perturbed(point, delta), x, y)[0]

    return activations, finite(jax.grad(score)(jnp.zeros_like(activations)))


@pytree
class LayerGradient:
    """Gradient of the score at a layer, shaped like its activations. Make with `layer_gradient`."""

    objective: Objective = static()

    def __call__(
        self, key: Key, model_fn: Any, x: Float[Array, "*x"], y: Any
    ) -> Float[Array, "*layer"]:
        """Computes the gradient for ONE example."""
        key, x, y = on_one(key, self, model_fn, x, y, box=False)
        return _parts(key, self.objective, model_fn, x, y)[1]


@pytree
class GradCam:
    """Activations weighted by the mean gradient of each channel; make one with `grad_cam`."""

    objective: Objective = static()
    rectify: bool = static()

    def __call__(
        self, key: Key, model_fn: Any, x: Float[Array, "H W C"], y: Any
    ) -> Float[Array, "H W"]:
        """Computes the map, upsampled bilinearly to the size of the image."""
        key, x, y = on_one(key, self, model_fn, x, y, box=False)
        activations, found = _parts(key, self.objective, model_fn, x, y)
        if activations.ndim != 3:
            raise ValueError(
                f"Grad-CAM needs a layer with activations [H, W, D], got {activations.shape}"
            )
        weights = jnp.mean(found, axis=(0, 1))
        coarse = activations @ weights
        coarse = jax.nn.relu(coarse) if self.rectify else coarse
        return jax.image.resize(coarse, x.shape[:2], "bilinear")


def layer_gradient(objective: Objective = class_score()) -> LayerGradient:
    """Returns the gradient of a score at a layer.

    Args:
      objective: objective to differentiate; by default the logit of the class `y`.

    Returns:
      A method for networks from `models.split_fn` or `split`.

    >>> double = split(lambda x: 2 * x, lambda a: a**2)
    >>> layer_gradient()(jax.random.key(0), double, jnp.array([1.0, 3.0]), 1).tolist()
    [0.0, 12.0]
    """
    return LayerGradient(objective)


def grad_cam(objective: Objective = class_score(), *, rectify: bool = True) -> GradCam:
    """Returns Grad-CAM at the layer where the network is split.

    Args:
      objective: objective to differentiate; by default the logit of the class `y`.
      rectify: keep only positive evidence for the class, as the paper does.

    Returns:
      A method for networks from `models.split_fn` or `split`; its map is `[H, W]`.
    """
    return GradCam(objective, rectify)
