"""Batches of one shape over a data set of any size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def padded_rows(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of each batch, the last padded by repeating its last row, and how many are real.

    Args:
      count: examples in all, at least 1.
      batch_size: examples at a time; a smaller data set makes one smaller batch.

    >>> [(rows.tolist(), real) for rows, real in padded_rows(3, 2)]
    [([0, 1], 2), ([2, 2], 1)]
    """
    size = min(batch_size, count)
    for start in range(0, count, size):
        real = min(size, count - start)
        yield start + np.minimum(np.arange(size), real - 1), real
