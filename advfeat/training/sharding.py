"""Data-parallel training: the rows of a batch over the devices, the state on every one of them.

One program runs on all devices of all processes; XLA puts in the sums over devices. So a loss or
the statistics of a batch normalisation are those of the whole batch, not of a device's share.
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
    """Devices in a row, among which the rows of a batch are shared.

    Args:
      devices: by default all of all processes.
    """
    found = jax.devices() if devices is None else list(devices)
    # Under the Explicit axes that are the default elsewhere, indexing of sharded logits raises.
    return Mesh(np.asarray(found), (AXIS,), axis_types=(AxisType.Auto,))


def check_divides(batch_size: int, mesh: Mesh) -> None:
    """Raises unless a batch can be shared evenly.

    Raises:
      ValueError: naming both numbers.
    """
    if batch_size % mesh.size:
        raise ValueError(
            f"a batch of {batch_size} examples cannot be shared by {mesh.size} devices: "
            f"choose a multiple of {mesh.size}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies host or device arrays that every process has alike onto all devices."""
    whole = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, (jax.Array, np.ndarray)):
            return leaf  # a number, which every process has alike
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        host = np.array(leaf)  # a copy: what is donated later must not be the caller's memory
        return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

    return jax.tree.map(put, tree)


def share_rows(rows: np.ndarray, mesh: Mesh) -> jax.Array:
    """Shares an array `[B, …]`, which every process has alike, by its first axis."""
    by_row = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.make_array_from_callback(rows.shape, by_row, lambda index: rows[index])


def join_rows(tree: Any, mesh: Mesh) -> Any:
    """Makes arrays `[B, …]` of the shares `[B / processes, …]` that the processes have."""
    by_row = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(by_row, leaf), tree)


def local(tree: Any) -> Any:
    """Arrays that are alike on all devices, on one of this process: for what it does alone."""

    def take(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
            return jnp.asarray(np.array(leaf))
        return leaf

    return jax.tree.map(take, tree)


@cache
def sharded(update: Any, mesh: Mesh, **static: Any) -> Any:
    """A compiled update of a state, for rows that are shared.

    State and metrics come out whole on every device. Cached, since a new function would be compiled
    anew.

    Args:
      update: `(key, state, ...) -> (state, metrics)`, compiled for one device.
      mesh: the devices.
      **static: its static arguments.
    """
    step: Any = inspect.unwrap(update)
    return jax.jit(
        partial(step, **static),
        donate_argnums=(1,),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
