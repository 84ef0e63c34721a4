"""Starts an experiment from the command line."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from advfeat.runs import command
from advfeat.runs.cache import cache_dir
from advfeat.runs.launcher import launched
from advfeat.runs.provenance import cores

CACHE_BYTES = 2 << 30
"""Compiled programs that are kept; the least recently used ones go first."""


def start(package: str, config_class: Any, doc: str | None, *, distributed: bool = False) -> None:
    """Checks the flags before any slow import, then runs the experiment.

    Args:
      package: the experiment's package, whose `work.run` is called.
      config_class: its config.
      doc: its help text.
      distributed: whether it takes several processes.
    """
    config = command.check(config_class, doc)
    prepare_jax(config.cpu_devices)

    from advfeat.runs import runner

    run = importlib.import_module(".work", package).run
    runner.main(run, config_class, doc, distributed=distributed)


def prepare_jax(cpu_devices: int | None) -> None:
    """Sets what JAX reads once, when it is imported; variables that the user has set stay.

    One CPU device per core shares every batch (`advfeat.devices`), and what is compiled is kept for
    the next command.
    """
    # Several processes of a machine are several devices already.
    several = _one_of_several()
    simulated = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if cpu_devices is not None:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(cpu_devices)
    elif not (several or simulated):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores()))
    _keep_compiled(cache_dir() / "compiled")


def _keep_compiled(folder: Path) -> None:
    """Keeps compiled programs in a folder, unless it cannot be written.

    With a limit of its size JAX locks the folder while it reads or writes, so that several
    processes may share it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
        os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(CACHE_BYTES))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


def _one_of_several() -> bool:
    try:
        return launched() is not None
    except ValueError:  # the runner says what is wrong
        return True
