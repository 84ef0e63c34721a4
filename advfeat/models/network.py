"""A network with its weights, and the specification to rebuild it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from advfeat.edges import output_of
from advfeat.models.functions import layer_names, model_fn
from advfeat.models.registry import create
from advfeat.models.split import SplitFn, guided, split_fn
from advfeat.types import ModelFn


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """The specification of a network, sufficient to rebuild it.

    Attributes:
      model: a name from `models.names()`.
      class_names: one per logit.
      input_shape: `(H, W, C)`.
      mean: per channel, in [0, 1].
      std: per channel.
      width: None means the architecture's default.
      bfloat16: whether it computes in bfloat16 (weights are float32 either way).
      options: the architecture's own options.
    """

    model: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    width: int | None = None
    bfloat16: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def build(self) -> Any:
        """Builds the flax module.

        Raises:
          ValueError: for an unknown model or option.
        """
        return create(
            self.model,
            num_classes=len(self.class_names),
            width=self.width,
            mean=self.mean,
            std=self.std,
            dtype=jnp.bfloat16 if self.bfloat16 else jnp.float32,
            **self.options,
        )


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its weights.

    Attributes:
      spec: how to rebuild the module.
      variables: weights and batch statistics.
      record: other facts stored by its run (training hyper-parameters, data set).
    """

    spec: NetworkSpec
    variables: Any
    record: dict[str, Any]

    def model_fn(self, layer: str = "logits") -> ModelFn:
        """Returns ONE example `[H, W, C]` -> logits `[K]`, or a named layer's activations."""
        return model_fn(self.spec.build(), self.variables, layer=layer)

    def guided_fn(self) -> ModelFn:
        """Returns the network with the gradient of guided backpropagation; see `models.guided`."""
        return model_fn(guided(self.spec.build()), self.variables)

    def split_fn(self, layer: str | None = None) -> SplitFn:
        """Returns the network split at a layer, as Grad-CAM needs it; see `models.split_fn`.

        Args:
          layer: a layer with spatial positions, by default the last one.

        Raises:
          ValueError: as for `spatial_layer`.
        """
        layer = self.spatial_layer(layer)
        return split_fn(self.spec.build(), self.variables, layer=layer)

    def spatial_layer(self, layer: str | None = None) -> str:
        """Returns the last layer with spatial positions, or checks that `layer` has them.

        Raises:
          ValueError: for a layer that the network lacks, or if it, or every layer, has no
            positions.
        """
        names = layer_names(self.spec.build(), self.spec.input_shape)
        for name in reversed(names) if layer is None else [layer]:
            if len(output_of(self.model_fn(name), self.spec.input_shape).shape) == 3:
                return name
        if layer is not None:
            raise ValueError(f"layer {layer!r} has no positions, which Grad-CAM needs")
        raise ValueError(f"{self.spec.model} has no layer with positions: Grad-CAM needs one")


def spec_of(fields: Mapping[str, Any]) -> NetworkSpec:
    """Converts a spec's JSON form, in which tuples are lists, to a `NetworkSpec`."""
    lists = ("class_names", "input_shape", "mean", "std")
    fixed: dict[str, Any] = {
        k: tuple(v) if k in lists and v is not None else v for k, v in fields.items()
    }
    return NetworkSpec(**fixed)
