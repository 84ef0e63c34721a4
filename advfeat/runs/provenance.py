"""Where a result came from: revision of the source, versions, devices, and what it cost."""

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
    """Name the source that is running.

    Returns:
        The git commit when the package is imported from a checkout of its own repository,
        followed by ``-dirty`` when tracked files differ from it; otherwise (installed from a
        wheel, no git on this machine) the package's version, as in ``advfeat 0.1.0``.

    Example:
        >>> len(revision()) > 0
        True
    """
    root = pathlib.Path(__file__).resolve().parents[2]
    # An installed copy may lie inside somebody else's repository (a virtual environment in a
    # checkout): only a repository whose top is our own source tree speaks for this code.
    top = _git(root, "rev-parse", "--show-toplevel")
    if top and pathlib.Path(top).resolve() == root:
        commit = _git(root, "rev-parse", "HEAD")
        if commit:
            return commit + ("-dirty" if _git(root, "status", "--porcelain", "-uno") else "")
    return f"advfeat {_version('advfeat') or 'of unknown version'}"


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide the numbers; None where absent.

    Example:
        >>> versions()["python"] == platform.python_version()
        True
    """
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def devices() -> dict[str, Any]:
    """The accelerators JAX sees and the host it runs on.

    Returns:
        ``{"platform", "kinds", "count", "cpus", "system"}``; ``kinds`` is sorted and has no
        repetitions, ``cpus`` is the number of cores this process may use.
    """
    import jax

    found = jax.devices()
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "platform": found[0].platform,
        "kinds": sorted({device.device_kind for device in found}),
        "count": len(found),
        "cpus": len(affinity(0)) if affinity else os.cpu_count(),
        "system": platform.platform(),
    }


def peak_memory_bytes() -> int | None:
    """The most resident memory this process has held, in bytes; None where unknown.

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
    """Output of a git command, or None when git is missing or has nothing to say."""
    # Inside a git hook GIT_DIR and its kin name the repository of the hook, not of `root`.
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
