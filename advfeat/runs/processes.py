"""Distributed training: joins processes with `jax.distributed`, and exchanges values.

Every process runs the same command and finds the others through the launcher's environment
variables. Process 0 writes the run directory; the others only compute.
"""

from __future__ import annotations

import json
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_OPEN_MPI = "OMPI_COMM_WORLD_SIZE"


def launched() -> str | None:
    """Returns how this process was launched as one of several, or None.

    Returns:
      "environment" (`JAX_COORDINATOR_ADDRESS` and its two companions), "slurm" (a step of `srun`
      with more than one task), "openmpi", or None. On TPU slices and Kubernetes the environment
      does not tell whether a training should span the processes; there, `join(True)` asks JAX.

    Raises:
      ValueError: if some but not all of the three variables are set, or one is not a number.
    """
    given = [name for name in _EXPLICIT if os.environ.get(name)]
    if given and len(given) < len(_EXPLICIT):
        missing = ", ".join(name for name in _EXPLICIT if name not in given)
        raise ValueError(f"{', '.join(given)} without {missing}: all three or none")
    if given:
        count, index = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")
        if not 0 <= index < count:
            raise ValueError(f"JAX_PROCESS_ID={index} must lie in [0, {count})")
        return "environment" if count > 1 else None
    if all(os.environ.get(name) for name in _SLURM):
        return "slurm" if _number("SLURM_NTASKS") > 1 else None
    if os.environ.get(_OPEN_MPI):
        return "openmpi" if _number(_OPEN_MPI) > 1 else None
    return None


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise ValueError(f"{name}={os.environ[name]}: must be a whole number") from None


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
        options["num_processes"] = _number("JAX_NUM_PROCESSES")
        options["process_id"] = _number("JAX_PROCESS_ID")
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
