"""Train steps: one pure step, and the compiled update that the loop runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advfeat.transforms import Transform
from advfeat.types import Array, Batch, Key, LossFn, Metrics


class TrainState(NamedTuple):
    """Everything a training needs to go on: the step counts, so keys and order follow from it.

    Attributes:
      params: weights, float32.
      model_state: what else the network keeps, such as batch statistics.
      opt_state: the optimiser's.
      step: `[]` int32, updates made.
    """

    params: Any
    model_state: Any
    opt_state: Any
    step: Array


def initial(variables: Any, optimiser: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    Args:
      variables: a network's, with `params` and possibly more collections.
      optimiser: whose state to make.
    """
    rest = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    return TrainState(params, rest, optimiser.init(params), jnp.zeros((), jnp.int32))


def train_step(
    loss_fn: LossFn, optimiser: optax.GradientTransformation
) -> Callable[[Key, TrainState, Batch], tuple[TrainState, Metrics]]:
    """One update, a pure function for any train loop.

    Args:
      loss_fn: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.
      optimiser: an optax transformation.

    Returns:
      `(key, state, batch) -> (state, metrics)`; the key is folded with the step here.
    """

    def step(key: Key, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def objective(params: Any) -> tuple[Array, tuple[Any, Metrics]]:
            return loss_fn(jax.random.fold_in(key, state.step), params, state.model_state, batch)

        gradient, (model_state, metrics) = jax.grad(objective, has_aux=True)(state.params)
        update, opt_state = optimiser.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, update)
        return TrainState(params, model_state, opt_state, state.step + 1), metrics

    return step


def as_unit(image: Array) -> Array:
    """8-bit pixels to [0, 1] float32; floating-point ones are there already."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255.0
    return image.astype(jnp.float32)


@partial(jax.jit, static_argnames=("make_optimiser", "augment"), donate_argnames=("state",))
def train_update(
    key: Key,
    state: TrainState,
    loss_fn: LossFn,
    data: tuple[Array, Array, Array],
    rows: Array,
    hyper: dict[str, Array],
    *,
    make_optimiser: Callable[[dict[str, Array]], optax.GradientTransformation],
    augment: Transform,
) -> tuple[TrainState, Metrics]:
    """One update on rows of a data set on the device, compiled once for all of a kind.

    Data, objective and hyper-parameters are arguments. It is not a scan over many steps: on CPU the
    gradients of an ordinary convolution are many times slower inside a loop (`models.layers`), and
    dispatching a step takes a fraction of a millisecond.

    Args:
      key: a typed key, the training's own.
      state: where to begin; its memory is reused.
      loss_fn: the objective, a pytree.
      data: images `[N, H, W, C]` (uint8, or float32 in [0, 1]), labels `[N]`, ids `[N]`.
      rows: `[B]` int32, which examples the step takes.
      hyper: traced numbers that `make_optimiser` takes.
      make_optimiser: hyper -> optimiser, static.
      augment: `(key, image) -> image`, static.

    Returns:
      The new state, and metrics.
    """
    images, labels, ids = data
    key_augment, key_step = jax.random.split(key)
    root = jax.random.fold_in(key_augment, state.step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, ids[rows])
    batch = {
        "image": jax.vmap(augment)(keys, as_unit(images[rows])),
        "label": labels[rows],
        "id": ids[rows],
        "weight": jnp.ones(rows.shape, jnp.float32),
    }
    return train_step(loss_fn, make_optimiser(hyper))(key_step, state, batch)
