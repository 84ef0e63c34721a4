"""Rows of a data set: the one way in which fewer are taken, and batches of one shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def draw_rows(
    labels: np.ndarray | Sequence[int] | int, most: int, *, seed: int | Sequence[int]
) -> np.ndarray:
    """Which examples to take where not all are: drawn by the seed, balanced as the whole is.

    Every class gives its share of them, rounded down or up. Which classes round up is drawn, each
    by what rounding down would cost it, so that every example is as likely as any other, also
    where there are fewer places than classes. (The largest remainder would fill those places from
    the same largest classes whatever the seed.) Within a class all are equally likely. How many
    each class gives follows from the seed and the classes' sizes alone, never from the order.

    The rows come shuffled, also where there are no fewer than asked for: what is done with their
    beginning, or by batches, or by pairs of neighbours, meets the classes mixed. Ids, not places,
    name examples that were drawn.

    Args:
      labels: `[N]`, of any type with an order; or N, for examples without labels.
      most: how many at most; 0 is all of them, as they stand: then nothing is drawn.
      seed: one whole number, or several, none negative.

    Returns:
      `[min(most, N)]` int64, places in `labels`, all different.

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
    """How many of each class: the classes in a drawn order, marks at even distances on them."""
    order = rng.permutation(len(sizes))
    total = int(sizes.sum())
    # In whole numbers, where every share is exact.
    ends = np.concatenate([[0], np.cumsum(sizes[order] * count)]) + rng.integers(total)
    counts = np.empty_like(sizes)
    counts[order] = np.diff(ends // total)
    return counts


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
