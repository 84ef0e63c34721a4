"""Data-parallel training: batches sharded over the devices, the state replicated on each.

One program runs on all devices of all processes, and XLA inserts the cross-device reductions. So
losses and batch-normalisation statistics are those of the whole batch, not of a device's share.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a one-dimensional mesh of devices over which the rows of a batch are sharded.

    Args:
      devices: by default all devices of all processes.
    """
    found = jax.devices() if devices is None else list(devices)
    # Indexing sharded logits raises under Explicit axes, the default elsewhere.
    return Mesh(np.asarray(found), (AXIS,), axis_types=(AxisType.Auto,))


def check_divides(batch_size: int, mesh: Mesh) -> None:
    """Checks that the devices divide the batch evenly.

    Raises:
      ValueError: naming both numbers.
    """
    if batch_size % mesh.size:
        raise ValueError(
            f"a batch of {batch_size} examples cannot be shared by {mesh.size} devices: "
            f"choose a multiple of {mesh.size}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Replicates arrays (host or device), identical in every process, onto all devices."""
    whole = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, (jax.Array, np.ndarray)):
            return leaf  # a number, identical in every process
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        host = np.array(leaf)  # a copy: donation must not free the caller's memory
        return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

    return jax.tree.map(put, tree)


def share_rows(rows: np.ndarray, mesh: Mesh) -> jax.Array:
    """Shards an array `[B, …]`, identical in every process, along its first axis."""
    by_row = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.make_array_from_callback(rows.shape, by_row, lambda index: rows[index])


def join_rows(tree: Any, mesh: Mesh) -> Any:
    """Assembles global arrays `[B, …]` from the processes' shares `[B / processes, …]`."""
    by_row = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(by_row, leaf), tree)


def local(tree: Any) -> Any:
    """Copies replicated arrays to one device of this process, for work that it does alone."""

    def take(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
            return jnp.asarray(np.array(leaf))
        return leaf

    return jax.tree.map(take, tree)


@cache
def sharded(update: Any, mesh: Mesh, **static: Any) -> Any:
    """Compiles an update of a state for sharded rows.

    State and metrics are replicated on every device. Cached, since a new function would be
    recompiled.

    Args:
      update: `(key, state, ...) -> (state, metrics)`, jitted for one device.
      mesh: the devices.
      **static: its static arguments.
    """
    step: Any = inspect.unwrap(update)
    return jax.jit(
        partial(step, **static),
        donate_argnums=(1,),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
