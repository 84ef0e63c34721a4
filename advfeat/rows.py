"""Row selection: stratified subsampling of a data set, and batches of fixed shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def draw_rows(
    labels: np.ndarray | Sequence[int] | int, most: int, *, seed: int | Sequence[int]
) -> np.ndarray:
    """Draws a stratified subsample of rows that preserves the class proportions.

    Every class contributes its proportional share, rounded down or up. The classes that round up
    are drawn with probability equal to their remainder, so that every example is equally likely,
    even with fewer rows than classes. (The largest-remainder method would always pick the same
    largest classes then, for any seed.) Within a class all examples are equally likely. The counts
    per class depend only on the seed and the class sizes, never on the order of the rows.

    Rows are returned shuffled, even if all N are taken, so that prefixes, batches and pairs of
    neighbours mix the classes. Identify sampled examples by id, not by position.

    Args:
      labels: `[N]`, of any sortable type; or N, for examples without labels.
      most: maximum number of rows; 0 returns all rows in order, without drawing.
      seed: one or several non-negative integers.

    Returns:
      `[min(most, N)]` int64, distinct indices into `labels`.

    Raises:
      ValueError: for a negative number, or labels that are not `[N]`.

    >>> rows = draw_rows(np.array([0, 0, 0, 0, 1, 1]), 3, seed=0)
    >>> sorted(np.array([0, 0, 0, 0, 1, 1])[rows].tolist())
    [0, 0, 1]
    >>> len(draw_rows(10, 4, seed=0)), draw_rows(3, 0, seed=0).tolist()
    (4, [0, 1, 2])
    """
    given = np.asarray(labels)
    if given.ndim > 1:
        raise ValueError(f"labels must be [N], or the number N, got shape {list(given.shape)}")
    _check_not_negative(most=most, seed=seed)
    if given.ndim == 0:
        _check_not_negative(labels=labels)
        given = np.zeros(int(given), int)
    if most == 0 or not len(given):
        return np.arange(len(given))
    rng = np.random.default_rng(seed)
    _, class_of, sizes = np.unique(given, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(class_of, kind="stable"), np.cumsum(sizes)[:-1])
    ranks = [rng.permutation(size) for size in sizes]
    counts = _shares(rng, sizes, min(most, len(given)))
    taken = [rows[rank < n] for rows, rank, n in zip(members, ranks, counts, strict=True)]
    return rng.permutation(np.concatenate(taken))


def _check_not_negative(**numbers: Any) -> None:
    for name, value in numbers.items():
        if np.min(value, initial=0) < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def _shares(rng: np.random.Generator, sizes: np.ndarray, count: int) -> np.ndarray:
    """Draws the count per class by systematic sampling over classes in random order."""
    order = rng.permutation(len(sizes))
    total = int(sizes.sum())
    # Integer arithmetic, so that every share is exact.
    ends = np.concatenate([[0], np.cumsum(sizes[order] * count)]) + rng.integers(total)
    counts = np.empty_like(sizes)
    counts[order] = np.diff(ends // total)
    return counts


def padded_rows(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the rows of each batch and the number of real ones; pads the last with its last row.

    Args:
      count: total number of examples, at least 1.
      batch_size: examples per batch; a smaller data set yields one smaller batch.

    >>> [(rows.tolist(), real) for rows, real in padded_rows(3, 2)]
    [([0, 1], 2), ([2, 2], 1)]
    """
    size = min(batch_size, count)
    for start in range(0, count, size):
        real = min(size, count - start)
        yield start + np.minimum(np.arange(size), real - 1), real
