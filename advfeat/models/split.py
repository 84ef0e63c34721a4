"""Networks with access to an inner layer, and networks with another activation function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax import Array

from advfeat.models.base import DELTAS, TAPS, Architecture
from advfeat.models.functions import Variables, evaluated, layer_names, tapped, unknown_layer
from advfeat.models.rectifiers import Relu, fake_relu, guided_relu
from advfeat.types import pytree, static


@pytree
class SplitFn:
    """A network in evaluation mode whose layer can be read and perturbed; see `split_fn`.

    Attributes:
      variables: weights and batch statistics.
      model: the module, static.
      layer: the layer's name, static.
    """

    variables: Mapping[str, Any]
    model: Architecture = static()
    layer: str = static()

    def __call__(self, x: Array) -> Array:
        """Maps ONE image `[H, W, C]` to logits `[K]`."""
        logits: Array = evaluated(self.model, self.variables, x[None])[0]
        return logits

    def activations(self, x: Array) -> Array:
        """Maps ONE image to the layer's activations."""
        return self.both(x)[0]

    def both(self, x: Array) -> tuple[Array, Array]:
        """Maps ONE image to the layer's activations and the logits, in one forward pass."""
        logits, activations = tapped(self.model, self.variables, x[None], self.layer)
        return activations[0], logits[0]

    def perturbed(self, x: Array, delta: Array) -> Array:
        """Returns the logits after adding `delta` to the layer's activations."""
        moved = {**self.variables, DELTAS: {self.layer: delta[None]}}
        logits: Array = tapped(self.model, moved, x[None], self.layer)[0][0]
        return logits


def split_fn(
    model: Architecture,
    variables: Variables,
    *,
    layer: str,
    input_shape: tuple[int, ...] | None = None,
) -> SplitFn:
    """Opens a network at one of its layers, for `saliency.grad_cam` and `saliency.layer_gradient`.

    Args:
      model: from `create`.
      variables: from `init` or a checkpoint.
      layer: one of `layer_names`.
      input_shape: `(H, W, C)`; if given, an unknown layer raises at once.

    Raises:
      ValueError: for a layer that the network lacks; the message lists the available ones.
    """
    if input_shape is not None and layer not in (known := layer_names(model, input_shape)):
        raise unknown_layer(layer, known)
    kept = {name: value for name, value in variables.items() if name not in (TAPS, DELTAS)}
    return SplitFn(kept, model, layer)


def with_relu(model: Architecture, relu: Relu) -> Architecture:
    """Returns the same network with another activation function; its weights stay valid.

    Args:
      model: from `create`.
      relu: `rectifiers.guided_relu`, `jax.nn.softplus` …

    Raises:
      ValueError: for a module without a configurable activation function.
    """
    return _ours(model).clone(relu=relu)


def with_fake_relu(model: Architecture) -> Architecture:
    """Returns the network with `rectifiers.fake_relu` at its representation, for visualisation.

    With it, gradients reach inactive units of the representation. As in the paper, only that layer
    is changed; if all were, the gradients would lose their direction.

    Raises:
      ValueError: for a module without a configurable activation function.
    """
    return _ours(model).clone(last_relu=fake_relu)


def _ours(model: Architecture) -> Architecture:
    if not isinstance(model, Architecture):
        raise ValueError(
            f"{type(model).__name__} does not let its rectifier be chosen: only the networks of "
            "advfeat.models do"
        )
    return model


def guided(model: Architecture) -> Architecture:
    """Returns the network with `rectifiers.guided_relu` throughout, for guided backpropagation."""
    return with_relu(model, guided_relu).clone(last_relu=None)
