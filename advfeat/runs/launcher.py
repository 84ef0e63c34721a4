"""Reads from the environment how a process was launched; imports nothing slow."""

from __future__ import annotations

import os

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
        count, index = number("JAX_NUM_PROCESSES"), number("JAX_PROCESS_ID")
        if not 0 <= index < count:
            raise ValueError(f"JAX_PROCESS_ID={index} must lie in [0, {count})")
        return "environment" if count > 1 else None
    if all(os.environ.get(name) for name in _SLURM):
        return "slurm" if number("SLURM_NTASKS") > 1 else None
    if os.environ.get(_OPEN_MPI):
        return "openmpi" if number(_OPEN_MPI) > 1 else None
    return None


def number(name: str) -> int:
    """Reads a whole number from the environment.

    Raises:
      ValueError: naming the variable and its value.
    """
    try:
        return int(os.environ[name])
    except ValueError:
        raise ValueError(f"{name}={os.environ[name]}: must be a whole number") from None
