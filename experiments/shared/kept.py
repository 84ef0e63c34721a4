"""Keeps nested measurements in a run, so that a rerun draws them without measuring again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from advfeat.runs.directory import RunDirectory


def kept(run: RunDirectory, name: str, measure: Callable[[], Mapping[Any, Any]]) -> dict[str, Any]:
    """Reads nested arrays that an earlier process of the run measured; else measures them.

    Args:
      run: the open run directory.
      name: of the file, as for `run.cached`.
      measure: returns nested dicts of arrays.

    Returns:
      The same dicts, with strings as keys: also the first time, so that both times are alike.
    """
    return nested(run.cached(name, lambda: (flat(measure()), {"nested": "names are paths"})))


def flat(tree: Mapping[Any, Any], above: str = "") -> dict[str, np.ndarray]:
    """Names every array of nested dicts by its path; an empty dict ends in a slash.

    >>> sorted(flat({"a": {0.5: 1, "b/c": 2}, "d": {}}))
    ['a/0.5', 'a/b%2Fc', 'd/']
    """
    found: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        path = above + quote(str(key), safe=" ")
        if not isinstance(value, Mapping):
            found[path] = np.asarray(value)
        elif value:
            found |= flat(value, f"{path}/")
        else:
            found[f"{path}/"] = np.zeros(0, bool)
    return found


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Undoes `flat`.

    >>> nested(flat({"a": {0.5: 1, "b/c": 2}, "d": {}}))
    {'a': {'0.5': array(1), 'b/c': array(2)}, 'd': {}}
    """
    found: dict[str, Any] = {}
    for path, value in arrays.items():
        *above, last = (unquote(part) for part in path.split("/"))
        place = found
        for part in above:
            place = place.setdefault(part, {})
        if last:
            place[last] = value
    return found
