"""Turns a module and its variables into the functions that attacks and experiments take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError
from jax import Array
from jax.tree_util import Partial

from advfeat.models.base import TAPS
from advfeat.types import ModelFn

Variables = Mapping[str, Any]


def init(key: Array, model: nn.Module, input_shape: Sequence[int]) -> Variables:
    """Draws a network's variables ("params" and, if it has any, "batch_stats").

    Args:
      key: a typed key.
      model: from `create`, or any module called with `train=`.
      input_shape: `(H, W, C)` of one image.

    Raises:
      ValueError: if images of this size are too small for the network's strides.

    Example:
      >>> from advfeat.models import create
      >>> variables = init(jax.random.key(0), create("linear", num_classes=3), (2, 2, 1))
      >>> variables["params"]["classifier"]["kernel"].shape
      (4, 3)
    """
    draw = _draw if isinstance(key, jax.core.Tracer) else _compiled_draw
    return draw(key, model, tuple(input_shape))


def _draw(key: Array, model: nn.Module, input_shape: tuple[int, ...]) -> Variables:
    return model.init(key, jnp.zeros((1, *input_shape), jnp.float32), train=False)


# Compiled as a whole, once per architecture: op by op, a deep network takes many seconds.
# It runs once per network, so optimising its machine code (five times the compile time) never pays.
_compiled_draw = jax.jit(
    _draw, static_argnums=(1, 2), compiler_options={"xla_backend_optimization_level": 0}
)


def layer_names(model: nn.Module, input_shape: Sequence[int]) -> tuple[str, ...]:
    """Lists the layers that `model_fn` can return, first to last; nothing is computed.

    Args:
      model: from `create`.
      input_shape: `(H, W, C)` of one image.

    Example:
      >>> from advfeat.models import create
      >>> layer_names(create("cnn", num_classes=10), (8, 8, 1))
      ('block1', 'block2', 'block3', 'representation', 'logits')
    """
    found: tuple[str, ...] = ()

    def record(key: Array, x: Array) -> None:
        nonlocal found
        _, variables = model.init_with_output(key, x, train=False, mutable=True)
        # Read inside the trace: outside, jax returns the names sorted.
        found = tuple(variables.get(TAPS, {}))

    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    jax.eval_shape(record, jax.random.key(0), images)
    return found


def module_names(model: nn.Module, input_shape: Sequence[int]) -> tuple[str, ...]:
    """Lists the top-level modules with parameters in the order of their calls; nothing is computed.

    Args:
      model: from `create`, or any module called with `train=`.
      input_shape: `(H, W, C)` of one image.

    Example:
      >>> from advfeat.models import create
      >>> module_names(create("mlp", num_classes=10), (8, 8, 1))
      ('dense1', 'dense2', 'classifier')
    """
    called: list[str] = []

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path = context.module.path
        if path and path[0] not in called:
            called.append(path[0])
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    with nn.intercept_methods(note):
        shapes = jax.eval_shape(
            lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
        )
    return tuple(name for name in called if name in shapes["params"])


def model_fn(model: nn.Module, variables: Variables, *, layer: str = "logits") -> ModelFn:
    """Returns a network in evaluation mode as a function of ONE image, as attacks take it.

    Args:
      model: from `create`.
      variables: from `init` or a checkpoint.
      layer: one of `layer_names`.

    Returns:
      `[H, W, C]` in [0, 1] -> `[K]` logits, or the layer's activations. The function is a pytree
      over the variables: a jitted function that takes it as an argument is compiled once for all
      weights.

    Raises:
      ValueError: when called, if the network has no such layer.

    Example:
      >>> from advfeat.models import create
      >>> model = create("cnn", num_classes=10, width=4)
      >>> variables = init(jax.random.key(0), model, (8, 8, 1))
      >>> image = jnp.zeros((8, 8, 1))
      >>> model_fn(model, variables)(image).shape
      (10,)
      >>> model_fn(model, variables, layer="block2")(image).shape
      (4, 4, 8)
    """
    return Partial(OneExample(_Apply(model, layer)), _without_taps(variables))


@dataclass(frozen=True)
class _Apply:
    """`(variables, batch) -> activations`; equal modules compare equal, to avoid recompiling."""

    model: nn.Module
    layer: str

    def __call__(self, variables: Variables, x: Array) -> Array:
        if self.layer == "logits":
            return evaluated(self.model, variables, x)
        return tapped(self.model, variables, x, self.layer)[1]


def evaluated(model: nn.Module, variables: Variables, x: Array, **options: Any) -> Any:
    """Applies a module in evaluation mode.

    Raises:
      ValueError: for images that do not fit its weights, such as grey instead of colour ones.
    """
    try:
        return model.apply(variables, x, train=False, **options)
    except ScopeParamShapeError as error:
        raise ValueError(
            "the network was made for images of another size or number of channels than "
            f"{tuple(x.shape[1:])}"
        ) from error


def tapped(model: nn.Module, variables: Variables, x: Array, layer: str) -> tuple[Any, Any]:
    """Returns logits and a named layer's activations of a batch, from one forward pass.

    Raises:
      ValueError: for a layer that the network lacks; the message lists the available ones.
    """
    logits, state = evaluated(model, variables, x, mutable=[TAPS])
    taps = state.get(TAPS, {})
    if layer not in taps:
        raise unknown_layer(layer, taps)
    return logits, taps[layer][0]


def unknown_layer(layer: str, known: Iterable[str]) -> ValueError:
    """Returns the error for a layer that a network lacks."""
    there = ", ".join(known) or "none but logits: the module sows no intermediates"
    return ValueError(f"unknown layer {layer!r}; there are {there}")


@dataclass(frozen=True)
class OneExample:
    """Applies a batched function `(params, batch) -> batch` to one example, as a batch of one."""

    batched_fn: Callable[[Any, Array], Array]

    def __call__(self, params: Any, x: Array) -> Array:
        """`x` is one example, and so is the result."""
        return self.batched_fn(params, x[None])[0]


def _without_taps(variables: Variables) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if name != TAPS}
