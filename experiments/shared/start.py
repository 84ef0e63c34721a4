"""Starts an experiment from the command line."""

from __future__ import annotations

import importlib
from typing import Any

from advfeat.runs import command


def start(package: str, config_class: Any, doc: str | None, *, distributed: bool = False) -> None:
    """Checks the flags before any slow import, then runs the experiment.

    Args:
      package: the experiment's package, whose `work.run` is called.
      config_class: its config.
      doc: its help text.
      distributed: whether it takes several processes.
    """
    command.check(config_class, doc)

    from advfeat.runs import runner

    run = importlib.import_module(".work", package).run
    runner.main(run, config_class, doc, distributed=distributed)
