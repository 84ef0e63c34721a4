"""The provenance of a result: source revision, versions, devices and cost."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

PACKAGES = ("advfeat", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def revision() -> str:
    """Identifies the running source code.

    Returns:
      The git commit if the package is imported from a checkout of its own repository, followed by
      `-dirty` if tracked files are modified; otherwise (installed from a wheel, or no git on this
      machine) the package's version, as in `advfeat 0.1.0`.

    Example:
      >>> len(revision()) > 0
      True
    """
    root = pathlib.Path(__file__).resolve().parents[2]
    # An installed copy may lie inside another repository (a virtual environment in a checkout):
    # only a repository whose root is our own source tree describes this code.
    top = _git(root, "rev-parse", "--show-toplevel")
    if top and pathlib.Path(top).resolve() == root:
        commit = _git(root, "rev-parse", "HEAD")
        if commit:
            return commit + ("-dirty" if _git(root, "status", "--porcelain", "-uno") else "")
    return f"advfeat {_version('advfeat') or 'of unknown version'}"


def versions() -> dict[str, str | None]:
    """Returns versions of Python and of the packages that affect the numbers; None if absent.

    Example:
      >>> versions()["python"] == platform.python_version()
      True
    """
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def cores() -> int:
    """Returns the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def devices() -> dict[str, Any]:
    """Describes the accelerators that JAX sees, and the host.

    Returns:
      `{"platform", "kinds", "count", "cpus", "system"}`; `kinds` is sorted without duplicates,
      `cpus` is the number of cores available to this process.
    """
    import jax

    found = jax.devices()
    return {
        "platform": found[0].platform,
        "kinds": sorted({device.device_kind for device in found}),
        "count": len(found),
        "cpus": cores(),
        "system": platform.platform(),
    }


def peak_memory_bytes() -> int | None:
    """Returns this process's peak resident memory in bytes; None if unknown.

    Example:
      >>> (peak_memory_bytes() or 1) > 0
      True
    """
    try:
        import resource
    except ImportError:  # Windows has no getrusage
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere but on macOS


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: pathlib.Path, *arguments: str) -> str | None:
    """Returns the output of a git command; None if git is missing or prints nothing."""
    # Inside a git hook, GIT_DIR and related variables name the hook's repository, not `root`.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
