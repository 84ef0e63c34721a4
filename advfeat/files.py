"""Strict JSON and atomic writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any, *, nonfinite: str = "null") -> Any:
    """Turn a nest of Python, NumPy and JAX values into what strict JSON can hold.

    Args:
        value: Dicts, lists, tuples, dataclasses (by `_asdict` where they have one), paths,
            scalars, arrays.
        nonfinite: "null" writes NaN and infinity as None, "text" as "nan" and "inf".

    Returns:
        Dicts with string keys, lists, str, int, float, bool and None.

    Raises:
        TypeError: A value of another kind.

    Example:
        >>> plain({"mean": np.float32(0.5), "low": float("nan"), "n": (1, 2)})
        {'mean': 0.5, 'low': None, 'n': [1, 2]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return None if nonfinite == "null" else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, nonfinite=nonfinite) for key, item in value.items()}
    if hasattr(value, "_asdict") and not isinstance(value, type):
        return plain(value._asdict(), nonfinite=nonfinite)
    if isinstance(value, (list, tuple)):
        return [plain(item, nonfinite=nonfinite) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(vars(value), nonfinite=nonfinite)
    if hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist(), nonfinite=nonfinite)
    raise TypeError(f"cannot be written as JSON: {value!r} of type {type(value).__name__}")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write strict JSON atomically; NaN and infinity become null."""
    text = json.dumps(plain(value), indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Write a file so that, whatever happens, either the old one or all of the new is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # what a full disk has no room for need not stay
            temporary.unlink()
        raise
