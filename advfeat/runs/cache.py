"""The folder of what is kept between runs: labels of streamed data sets, compiled programs."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ADVFEAT_CACHE_DIR"


def cache_dir() -> Path:
    """Returns $ADVFEAT_CACHE_DIR, else $XDG_CACHE_HOME/advfeat, else ~/.cache/advfeat.

    The folder need not exist.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "advfeat"
