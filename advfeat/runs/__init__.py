"""One run on disk: its directory, metrics, checkpoints, report, and what stops or follows it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules={
        "checkpoints",
        "directory",
        "files",
        "locks",
        "metrics",
        "processes",
        "provenance",
        "report",
        "train_states",
    },
)
