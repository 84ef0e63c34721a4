"""Distributed training: joins processes with `jax.distributed`, and exchanges values.

Every process runs the same command and finds the others through the launcher's environment
variables. Process 0 writes the run directory; the others only compute.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from advfeat.runs.launcher import launched, number


def join(ask: bool = False) -> int:
    """Joins the other processes, if any; call it before anything else uses a device.

    Args:
      ask: whether `jax.distributed.initialize` may search for a cluster if the environment names
        none (a TPU slice, Kubernetes).

    Returns:
      This process's index; 0 if it is alone.

    Raises:
      ValueError: for an inconsistent environment, or if a requested cluster is not found.
    """
    how = launched()
    if how is None and not ask:
        return 0
    # Needed for collectives between CPU processes; no effect elsewhere.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    options: dict[str, Any] = {}
    if how == "environment":  # JAX itself reads only the first of the three
        options["num_processes"] = number("JAX_NUM_PROCESSES")
        options["process_id"] = number("JAX_PROCESS_ID")
        options["cluster_detection_method"] = "deactivate"
    jax.distributed.initialize(**options)
    _State.joined = jax.process_count() > 1
    return jax.process_index()


class _State:
    joined = False


def leave() -> None:
    """Leaves the other processes, all of which must do so; this one continues alone."""
    if _State.joined:
        _State.joined = False
        jax.distributed.shutdown()


def alone() -> bool:
    """Returns whether no other process waits for this one: none exists, or it has left them."""
    return not _State.joined


def first() -> bool:
    """Returns whether this process is the one that writes and prints."""
    return jax.process_index() == 0 if _State.joined else True


def gather(good: bool) -> list[bool]:
    """Gathers a boolean from every process, in order; all must call it."""
    if alone():
        return [good]
    return np.asarray(multihost_utils.process_allgather(np.asarray(good))).tolist()


def wait(name: str) -> None:
    """Waits until all processes arrive."""
    if not alone():
        multihost_utils.sync_global_devices(name)


def tell_all(value: Any) -> Any:
    """Broadcasts process 0's JSON-serialisable value; the other processes' values are ignored."""
    text = json.dumps(value).encode() if first() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(size, np.uint8)
    if first():
        buffer[:] = np.frombuffer(text, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(buffer))))


def share_state(tree: Any) -> Any:
    """Broadcasts process 0's arrays bit for bit; the others pass arrays of the same structure."""

    def share(leaf: Any) -> np.ndarray:
        # As bytes: JAX broadcasts by adding zeros, and -0.0 + 0.0 is 0.0.
        host = np.array(leaf)
        flat = np.ascontiguousarray(host).reshape(-1).view(np.uint8)
        found = np.asarray(multihost_utils.broadcast_one_to_all(flat), np.uint8)
        return found.view(host.dtype).reshape(host.shape)

    return jax.tree.map(share, tree)
