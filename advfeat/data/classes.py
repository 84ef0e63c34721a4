"""Selects subsets of classes and relabels their examples."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from advfeat.data.types import DataError, Split


def select(name: str, class_names: Sequence[str], classes: Sequence[str] | None) -> tuple[int, ...]:
    """Returns the labels of `classes`, in the order given.

    Args:
      name: name of the data set, for error messages.
      class_names: names of all its classes, in label order.
      classes: names of the classes to keep; None or empty keeps all.

    Returns:
      The labels to keep. The first becomes label 0 of the subset, and so on.

    Raises:
      DataError: if a class is unknown or given twice, or fewer than two remain.

    >>> select("pets", ("bird", "cat", "dog"), ("dog", "cat"))
    (2, 1)
    """
    if isinstance(classes, str):
        raise DataError(f"classes must be a sequence of names, got the string {classes!r}")
    if not classes:
        if len(class_names) < 2:
            raise DataError(f"{name} has fewer than 2 classes: {', '.join(class_names)}")
        return tuple(range(len(class_names)))
    for position, wanted in enumerate(classes):
        if wanted not in class_names:
            raise DataError(f"classes: {name} has no class {wanted!r}{_hint(wanted, class_names)}")
        if wanted in classes[:position]:
            raise DataError(f"classes: {wanted!r} is given twice")
    if len(classes) < 2:
        raise DataError(f"classes: at least 2 are needed, got only {classes[0]!r}")
    return tuple(list(class_names).index(wanted) for wanted in classes)


def relabel(labels: np.ndarray, keep: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Finds the examples of the kept classes and relabels them.

    Args:
      labels: `[N]`, labels of the full data set.
      keep: the labels to keep; `keep[i]` becomes i.

    Returns:
      `(positions, new_labels)`, both `[M]`, in order; M is the number of examples kept.

    >>> relabel(np.array([0, 2, 1, 2]), (2, 1))
    (array([1, 2, 3]), array([0, 1, 0], dtype=int32))
    """
    table = np.full(max([*keep, int(labels.max(initial=0))]) + 1, -1, np.int32)
    table[list(keep)] = np.arange(len(keep))
    # A negative label ("unknown") must not index the table from its end.
    new = np.where(labels >= 0, table[np.maximum(labels, 0)], -1).astype(np.int32)
    positions = np.flatnonzero(new >= 0)
    return positions, new[positions]


def restrict(split: Split, keep: Sequence[int]) -> Split:
    """Returns the examples of `split` whose label is kept, relabelled."""
    positions, labels = relabel(split.label, keep)
    return Split(split.image[positions], labels, split.id[positions])


def _hint(wanted: str, class_names: Sequence[str]) -> str:
    if len(class_names) <= 20:
        return f"; its classes are {', '.join(class_names)}"
    near = difflib.get_close_matches(wanted, class_names, n=3)
    first = ", ".join(class_names[:5])
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{meant or ';'} its {len(class_names)} classes begin {first}"
