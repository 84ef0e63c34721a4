"""Training on streamed data that does not fit in memory; every process reads its own share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from advfeat import devices
from advfeat.edges import one_key
from advfeat.images.augmentation import TRANSFORMS, Transform
from advfeat.keys import stream
from advfeat.training.apart import apart_update, is_apart
from advfeat.training.hooks import Hooks, Saved
from advfeat.training.loop import TrainConfig, descend, set_up
from advfeat.training.procedures import Procedure
from advfeat.training.state import TrainState
from advfeat.training.steps import PLAIN, augmented, batch_step
from advfeat.types import Array, Key, LossFn, Metrics


class Batches(Protocol):
    """A stream of batches for `fit_stream`, such as one from `advfeat.data.stream`."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of an image."""

    @property
    def batch_size(self) -> int:
        """Examples per batch, over all processes."""

    def after(self, steps: int) -> Iterator[Any]:
        """Iterates over the batches after the first `steps`, epoch upon epoch."""


@partial(jax.jit, static_argnames=("make_optimiser", "augment"), donate_argnames=("state",))
def stream_update(
    key: Key,
    state: TrainState,
    loss_fn: LossFn,
    batch: dict[str, Array],
    hyper: dict[str, Array],
    procedure: Procedure = PLAIN,
    *,
    make_optimiser: Callable[[dict[str, Array]], optax.GradientTransformation],
    augment: Transform,
) -> tuple[TrainState, Metrics]:
    """Makes one step on a streamed batch, whose crops the stream has drawn already."""
    drawn = augmented(stream(one_key(key), "augment"), state.step, batch, augment)
    return batch_step(key, state, loss_fn, drawn, hyper, procedure, make_optimiser)


def fit_stream(
    key: Key,
    loss_fn: LossFn,
    variables: Any,
    batches: Batches,
    config: TrainConfig,
    *,
    procedure: Procedure = PLAIN,
    mesh: Mesh | None = None,
    resume: Saved | None = None,
    hooks: Hooks = Hooks(),
) -> TrainState:
    """Trains like `fit`, on a stream of batches of which every process reads its own part.

    The stream determines order, crops and padding; its images are augmented as `config` says.
    Examples of weight 0 have no effect. Resumed from a saved state, the training continues with the
    next batch and ends bit for bit like an uninterrupted one.

    Args:
      key: a typed key; the attacks follow from it.
      loss_fn: as `fit` takes it.
      variables: of the network, before training.
      batches: the stream, endless or at least `config.epochs` long; each of several processes opens
        it with its own index and their number.
      config: as `fit` takes it; the batch size is the stream's, and ignored here.
      procedure: as `fit` takes it.
      mesh: as `fit` takes it; required with several processes.
      resume: as `fit` takes it.
      hooks: as `fit` takes them.

    Returns:
      The state after the last step.

    Raises:
      ValueError: for an objective that the procedure does not support, or a batch size that the
        devices do not divide.
      NotFinite: if the loss becomes NaN or infinite.
    """
    steps = batches.steps_per_epoch
    shape = (batches.batch_size, *batches.input_shape)
    state, make, hyper = set_up(loss_fn, variables, config, procedure, steps, shape, resume)
    key, done, augment = one_key(key), int(state.step), TRANSFORMS[config.augment]
    chosen = mesh is not None
    mesh = mesh if mesh is not None else devices.training_mesh(batches.batch_size)
    if not chosen and is_apart(loss_fn, batches.batch_size):
        keys: Any = (stream(key, "augment"), key)
        update: Any = partial(apart_update, make_optimiser=make, augment=augment)
        put: Any = dict
    elif mesh.size == 1 and not chosen:
        keys, update = key, partial(stream_update, make_optimiser=make, augment=augment)
        put = partial(jax.tree.map, jnp.asarray)
    else:
        devices.check_divides(batches.batch_size, mesh)
        everywhere = devices.replicate((state, key, loss_fn, hyper, procedure), mesh)
        state, keys, loss_fn, hyper, procedure = everywhere
        update = devices.sharded(stream_update, mesh, make_optimiser=make, augment=augment)
        put = partial(devices.join_rows, mesh=mesh)
    read = batches.after(done)

    def inputs(epoch: int, begin: int) -> Iterator[Any]:
        del epoch, begin  # the stream keeps its own position
        return map(put, read)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return update(keys, state, loss_fn, batch, hyper, procedure)

    state = descend(
        state,
        step,
        inputs,
        epochs=config.epochs,
        steps=steps,
        done=done,
        seen=resume.seen if resume else {},
        hooks=hooks,
    )
    return state if chosen else devices.home(state)
