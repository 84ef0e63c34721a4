"""Runs of experiments: flags, run directory, metrics, checkpoints, report and signals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={
        "checkpoints",
        "checksums",
        "command",
        "config",
        "directory",
        "files",
        "locks",
        "metrics",
        "processes",
        "provenance",
        "report",
        "runner",
        "selection",
        "signals",
        "train_states",
    },
)
