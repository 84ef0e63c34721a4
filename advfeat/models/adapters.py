"""Adapts networks from other libraries to what attacks take: a function of ONE image `[H, W, C]`.

Each adapter returns a `jax.tree_util.Partial` over the weights. It is a pytree as an argument of a
jitted function, and its other contents compare by value, so new weights in the same architecture
never recompile. A network whose pixels are not in [0, 1] needs its normalisation moved inside
first, for instance with `from_function`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import linen, nnx
from jax import Array
from jax.tree_util import Partial

from advfeat.models.functions import OneExample
from advfeat.types import ModelFn

Options = tuple[tuple[str, Any], ...]
"""Keyword arguments in hashable form."""


def from_linen(module: linen.Module, variables: Any, **apply_kwargs: Any) -> ModelFn:
    """Adapts a flax linen module that takes batches.

    Args:
      module: `module.apply(variables, batch, **apply_kwargs)` is logits `[B, K]`.
      variables: its collections, `{"params": ...}` and perhaps `"batch_stats"`.
      **apply_kwargs: hashable arguments that put the module in evaluation mode, such as
        `train=False`, or `method="features"` to call another of its methods.

    Returns:
      `[H, W, C] -> [K]`.

    Example:
      >>> import jax
      >>> net = linen.Sequential([lambda x: x.reshape(x.shape[0], -1), linen.Dense(10)])
      >>> variables = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
      >>> from_linen(net, variables)(jnp.zeros((4, 4, 3))).shape
      (10,)
    """
    return Partial(OneExample(_Linen(module, _options(apply_kwargs))), variables)


def from_nnx(module: nnx.Module) -> ModelFn:
    """Adapts a flax nnx module that takes batches; a copy is put in evaluation mode.

    Args:
      module: `module(batch)` is logits `[B, K]`. The copy is switched by `eval()`: dropout off,
        batch normalisation on its running averages.

    Returns:
      `[H, W, C] -> [K]`.

    Example:
      >>> net = nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0))
      >>> from_nnx(net)(jnp.zeros((4, 4, 3))).shape
      (4, 4, 8)
    """
    copy = nnx.clone(module)
    copy.eval()
    graph, state = nnx.split(copy)
    return Partial(OneExample(_Nnx(graph)), state)


def from_function(fn: Callable, params: Any = None, *, batched: bool = True) -> ModelFn:
    """Adapts any function written in JAX.

    Args:
      fn: `fn(params, x)`, or `fn(x)` without `params`. Reuse one function object: a new lambda per
        call recompiles.
      params: a pytree of arrays. Arrays that `fn` closes over are compiled in as constants.
      batched: whether `fn` takes `[B, H, W, C]` or one `[H, W, C]`.

    Returns:
      `[H, W, C] -> [K]`.

    Example:
      >>> weights = jnp.ones((12, 10))
      >>> def logits(w, x):
      ...     return x.reshape(x.shape[0], -1) @ w
      >>> from_function(logits, weights)(jnp.ones((2, 2, 3)))[0].item()
      12.0
    """
    call = _Function(fn, params is not None)
    return Partial(OneExample(call) if batched else call, params)


def from_equinox(module: Any, state: Any = None, *, channels_first: bool = True) -> ModelFn:
    """Adapts an equinox module that takes one example; it is put in inference mode.

    Args:
      module: `module(x)` is logits `[K]`; with a state, `module(x, state)` is logits and state.
      state: the `equinox.nn.State` of a module with batch normalisation.
      channels_first: whether the module wants `[C, H, W]`, as equinox's convolutions do.

    Returns:
      `[H, W, C] -> [K]`.

    Raises:
      ImportError: if equinox is not installed.

    Example:
      >>> import jax, pytest
      >>> eqx = pytest.importorskip("equinox")
      >>> net = eqx.nn.Sequential(
      ...     [eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(48, 10, key=jax.random.key(0))])
      >>> from_equinox(net)(jnp.zeros((4, 4, 3))).shape
      (10,)
    """
    import equinox

    weights, static = equinox.partition(equinox.nn.inference_mode(module), equinox.is_array)
    return Partial(_Equinox(static, channels_first), (weights, state))


def from_haiku(transformed: Any, params: Any, state: Any = None, **apply_kwargs: Any) -> ModelFn:
    """Adapts a haiku network that takes batches.

    Args:
      transformed: from `hk.transform`, or `hk.transform_with_state` if there is a `state`.
      params: its parameters.
      state: its state (running averages), read but never updated.
      **apply_kwargs: hashable arguments that put the network in evaluation mode, such as
        `is_training=False`.

    Returns:
      `[H, W, C] -> [K]`.

    Example:
      >>> import jax, pytest
      >>> hk = pytest.importorskip("haiku")
      >>> net = hk.transform(lambda x: hk.Linear(10)(hk.Flatten()(x)))
      >>> params = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
      >>> from_haiku(net, params)(jnp.zeros((4, 4, 3))).shape
      (10,)
    """
    call = _Haiku(transformed.apply, state is not None, _options(apply_kwargs))
    return Partial(OneExample(call), (params, state))


def _options(kwargs: dict[str, Any]) -> Options:
    for name, value in kwargs.items():
        try:
            hash(value)
        except TypeError:
            raise ValueError(f"{name} must be hashable, got a {type(value).__name__}") from None
    return tuple(sorted(kwargs.items()))


@dataclass(frozen=True)
class _Linen:
    module: linen.Module
    options: Options

    def __call__(self, variables: Any, x: Array) -> Array:
        logits: Any = self.module.apply(variables, x, **dict(self.options))
        return logits


@dataclass(frozen=True)
class _Nnx:
    graph: Any

    def __call__(self, state: Any, x: Array) -> Array:
        return nnx.merge(self.graph, state)(x)


@dataclass(frozen=True)
class _Function:
    fn: Callable
    takes_params: bool

    def __call__(self, params: Any, x: Array) -> Array:
        return self.fn(params, x) if self.takes_params else self.fn(x)


@dataclass(frozen=True)
class _Equinox:
    static: Any
    channels_first: bool

    def __call__(self, arrays: tuple[Any, Any], x: Array) -> Array:
        import equinox

        weights, state = arrays
        module = equinox.combine(weights, self.static)
        x = jnp.moveaxis(x, -1, 0) if self.channels_first else x
        return module(x) if state is None else module(x, state)[0]


@dataclass(frozen=True)
class _Haiku:
    apply: Callable
    has_state: bool
    options: Options

    def __call__(self, arrays: tuple[Any, Any], x: Array) -> Array:
        params, state = arrays
        if self.has_state:
            return self.apply(params, state, None, x, **dict(self.options))[0]
        return self.apply(params, None, x, **dict(self.options))
