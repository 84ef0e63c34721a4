"""Training on a data set that does not fit in memory, of which each process reads its share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from advfeat.edges import one_key
from advfeat.training import sharding
from advfeat.training.loop import Fit, descend, set_up
from advfeat.training.procedures import Procedure
from advfeat.training.state import TrainState
from advfeat.training.steps import PLAIN, as_unit, batch_step
from advfeat.types import Array, Key, LossFn, Metrics


class Batches(Protocol):
    """What `fit_stream` reads: `advfeat.data.stream` gives one.

    Attributes:
      steps_per_epoch: batches in an epoch.
      input_shape: `(H, W, C)` of an image.
      batch_size: examples in a batch, over all processes.
    """

    steps_per_epoch: int
    input_shape: tuple[int, int, int]
    batch_size: int

    def after(self, steps: int) -> Iterator[Any]:
        """The batches that come after so many of them, epoch upon epoch."""


@partial(jax.jit, static_argnames=("make_optimiser",), donate_argnames=("state",))
def stream_update(
    key: Key,
    state: TrainState,
    loss_fn: LossFn,
    batch: dict[str, Array],
    hyper: dict[str, Array],
    procedure: Procedure = PLAIN,
    *,
    make_optimiser: Callable[[dict[str, Array]], optax.GradientTransformation],
) -> tuple[TrainState, Metrics]:
    """`train_update` for a batch from outside, whose augmentation lies behind it."""
    batch = {**batch, "image": as_unit(batch["image"])}
    return batch_step(key, state, loss_fn, batch, hyper, procedure, make_optimiser)  # type: ignore[arg-type]


def fit_stream(
    key: Key,
    loss_fn: LossFn,
    variables: Any,
    batches: Batches,
    how: Fit,
    *,
    procedure: Procedure = PLAIN,
    mesh: Mesh | None = None,
    state: TrainState | None = None,
    seen: Mapping[str, np.ndarray] | None = None,
    look: Callable[[], bool] | None = None,
    on_chunk: Callable[[TrainState, dict[str, np.ndarray]], Any] | None = None,
    on_epoch: Callable[[int, TrainState, dict[str, float]], Any] | None = None,
) -> TrainState:
    """`fit` on a stream of batches, of which every process reads its own part.

    Order, crops and padding are the stream's; examples of weight 0 count for nothing. From a saved
    state it goes on with the batch that comes next, and ends bit for bit as an unbroken training.

    Args:
      key: a typed key; the attacks follow from it.
      loss_fn: as `fit` takes it.
      variables: the network's, before training.
      batches: the stream, without end or of as many epochs; opened with this process's index and
        their number where several train together.
      how: as `fit` takes it; batch size and augmentation are the stream's, and are not looked at.
      procedure: as `fit` takes it, and so are the others.
      mesh: as `fit` takes it; needed for several processes.
      state: as `fit` takes it.
      seen: as `fit` takes it.
      look: as `fit` takes it.
      on_chunk: as `fit` takes it.
      on_epoch: as `fit` takes it.

    Returns:
      The state after the last step.

    Raises:
      ValueError: for an objective that the procedure cannot take, or a batch that the devices
        cannot share.
      NotFinite: if the loss stops being a number.
    """
    steps = batches.steps_per_epoch
    shape = (batches.batch_size, *batches.input_shape)
    state, make, hyper = set_up(loss_fn, variables, how, procedure, steps, shape, state)
    key, done = one_key(key), int(state.step)
    if mesh is None:
        update = partial(stream_update, make_optimiser=make)
        put: Any = partial(jax.tree.map, jnp.asarray)
    else:
        sharding.check_divides(batches.batch_size, mesh)
        everywhere = sharding.replicate((state, key, loss_fn, hyper, procedure), mesh)
        state, key, loss_fn, hyper, procedure = everywhere
        update = sharding.sharded(stream_update, mesh, make_optimiser=make)
        put = partial(sharding.join_rows, mesh=mesh)
    read = batches.after(done)

    def inputs(epoch: int, begin: int) -> Iterator[Any]:
        del epoch, begin  # the stream knows where it is
        return map(put, read)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return update(key, state, loss_fn, batch, hyper, procedure)

    return descend(
        state, step, inputs, epochs=how.epochs, steps=steps, done=done, seen=seen, look=look,
        on_chunk=on_chunk, on_epoch=on_epoch,
    )  # fmt: skip
