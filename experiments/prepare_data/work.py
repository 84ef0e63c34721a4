"""The steps of the run, from its plan to its summary."""

from __future__ import annotations

import sys

from advfeat.data import DataError, prepare
from advfeat.runs.config import UsageError

from .flags import Config


def run(config: Config) -> prepare.PrepareResult:
    """Prepares the set and says where it lies and what it holds.

    Args:
      config: the flags.

    Returns:
      What was prepared.

    Raises:
      UsageError: one line that says what is unknown, absent or damaged.
    """
    try:
        result = prepare.prepare(
            config.dataset,
            config.archive_dir,
            config.data_dir,
            download=config.download,
            overwrite=config.overwrite,
        )
    except DataError as error:
        raise UsageError(str(error)) from error
    for name in result.unofficial:
        print(f"note: {name} is not the published file (its sha256 differs)", file=sys.stderr)
    counts = ", ".join(f"{count} {split}" for split, count in result.examples.items())
    print(f"{config.dataset} ({counts}) is prepared in {result.path}")
    return result
