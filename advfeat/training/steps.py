"""Train steps: a pure step and the compiled update that the loop runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advfeat.edges import on_training_batch, one_key
from advfeat.images.augmentation import Transform
from advfeat.training.losses.base import TrainingObjective
from advfeat.training.padding import filled
from advfeat.training.procedures import Procedure, plain
from advfeat.training.state import TrainState
from advfeat.training.warmup import scaled
from advfeat.types import Array, Batch, Key, LossFn, Metrics

PLAIN = plain()


def initial(
    variables: Any,
    optimiser: optax.GradientTransformation,
    procedure: Procedure = PLAIN,
    *,
    shape: tuple[int, ...] | None = None,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      variables: of a network, with `params` and possibly other collections.
      optimiser: its state is initialised for the parameters.
      procedure: its carried state is initialised, too.
      shape: `(B, H, W, C)` of a batch, for procedures that carry one.
    """
    rest = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    extra = procedure.init(params, rest, shape)
    return TrainState(params, rest, optimiser.init(params), jnp.zeros((), jnp.int32), extra)


def train_step(
    loss_fn: LossFn, optimiser: optax.GradientTransformation, procedure: Procedure = PLAIN
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns one train step as a pure function for any training loop.

    Args:
      loss_fn: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.
      optimiser: an optax transformation.
      procedure: how a step uses them, such as `plain()`, `awp()`, `ema(free(threat))`.

    Returns:
      `(key, state, batch, share=1.0) -> (state, metrics)`. The key is folded with the step here.
      Rows of weight 0 have no effect, whatever they contain (nor on batch statistics, if those
      are `flax.linen.BatchNorm`'s). `share` is the finished share of the training, for procedures
      that need it (the start of `swa`, the warm-up of `awp`).

    Raises:
      ValueError: for an objective that the procedure does not support.
    """
    procedure.check(loss_fn)

    def step(
        key: Key, state: TrainState, batch: Batch, share: float | Array = 1.0
    ) -> tuple[TrainState, Metrics]:
        if isinstance(loss_fn, TrainingObjective):
            on_training_batch(batch)
        root = jax.random.fold_in(one_key(key), state.step)
        return procedure.step(
            root, loss_fn, optimiser, state, filled(batch), jnp.asarray(share, jnp.float32)
        )

    return step


def as_unit(image: Array) -> Array:
    """Converts 8-bit pixels to float32 in [0, 1]; floating-point pixels are only cast."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255.0
    return image.astype(jnp.float32)


@partial(jax.jit, static_argnames=("make_optimiser", "augment"), donate_argnames=("state",))
def train_update(
    key: Key,
    state: TrainState,
    loss_fn: LossFn,
    data: tuple[Array, Array, Array],
    rows: Array | None,
    hyper: dict[str, Array],
    procedure: Procedure = PLAIN,
    *,
    make_optimiser: Callable[[dict[str, Array]], optax.GradientTransformation],
    augment: Transform,
) -> tuple[TrainState, Metrics]:
    """Makes one step on rows of a data set on the device; compiled once per configuration.

    Data, objective and hyper-parameters are traced arguments. The update is not a scan over many
    steps: on CPU, gradients of an ordinary convolution are many times slower inside a loop
    (`models.layers`), and dispatching a step takes a fraction of a millisecond.

    Args:
      key: a typed key of the whole training.
      state: the state to update; its memory is donated.
      loss_fn: the objective, a pytree.
      data: images `[N, H, W, C]` (uint8, or float32 in [0, 1]), labels `[N]`, ids `[N]`.
      rows: `[B]` int32, the examples of this step; None if `data` holds these alone.
      hyper: traced numbers: those that `make_optimiser` takes, `steps` (of the whole training) and,
        with an eps warm-up, its share of the training as `eps_warmup`.
      procedure: how a step uses objective and optimiser, a pytree.
      make_optimiser: `hyper -> optimiser`, static.
      augment: `(key, image) -> image`, static.

    Returns:
      The new state and the metrics.
    """
    images, labels, ids = data if rows is None else (leaf[rows] for leaf in data)
    key_augment, key_step = jax.random.split(one_key(key))
    given = {"image": images, "label": labels, "id": ids}
    batch = augmented(key_augment, state.step, given, augment)
    return batch_step(key_step, state, loss_fn, batch, hyper, procedure, make_optimiser)


def augmented(key: Key, step: Array, given: Any, augment: Transform) -> Batch:
    """Returns a batch with augmented images, which draw from the step and the example's id."""
    root = jax.random.fold_in(key, step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, given["id"])
    return weighted({**given, "image": jax.vmap(augment)(keys, as_unit(given["image"]))})


def weighted(batch: Any) -> Batch:
    """Returns a batch with weights: 1, if it has none.

    They are NumPy's, concrete while a step is traced, so that nothing is masked.
    """
    if "weight" in batch:
        return batch  # type: ignore[no-any-return]
    return {**batch, "weight": np.ones(batch["id"].shape, np.float32)}


def batch_step(
    key: Key,
    state: TrainState,
    loss_fn: LossFn,
    batch: Batch,
    hyper: dict[str, Array],
    procedure: Procedure,
    make_optimiser: Callable[[dict[str, Array]], optax.GradientTransformation],
) -> tuple[TrainState, Metrics]:
    """Makes one step on a given batch; arguments as for `train_update`."""
    loss_fn, procedure, share = risen(state.step, loss_fn, hyper, procedure)
    return train_step(loss_fn, make_optimiser(hyper), procedure)(key, state, batch, share)


def risen(
    step: Array, loss_fn: LossFn, hyper: dict[str, Array], procedure: Procedure
) -> tuple[LossFn, Procedure, Array]:
    """Returns objective and procedure at a step of the warm-up, and the finished share."""
    share = step.astype(jnp.float32) / hyper["steps"]
    if "eps_warmup" in hyper:
        rise = jnp.minimum(share / hyper["eps_warmup"], 1.0)
        loss_fn, procedure = scaled((loss_fn, procedure), rise)
    return loss_fn, procedure, share
