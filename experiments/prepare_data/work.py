"""Runs `experiments.prepare_data`: prepares a TFDS data set from its archives."""

from __future__ import annotations

import sys

from advfeat.data import DataError, prepare
from advfeat.runs.config import UsageError

from .flags import Config


def run(config: Config) -> prepare.PrepareResult:
    """Prepares the set and prints its location and contents.

    Args:
      config: the flags.

    Returns:
      The prepared set.

    Raises:
      UsageError: if something is unknown, absent or damaged; the message is one line.
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
