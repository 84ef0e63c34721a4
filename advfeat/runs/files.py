"""Strict JSON, atomic writes, and checksums to detect damaged files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

JSON_ENDING, CHECKSUM = ".json", "sha256"


class DamagedError(ValueError):
    """Raised for a file whose content differs from what was written; one line that names it."""


def plain(value: Any, *, nonfinite: str = "null") -> Any:
    """Converts nested Python, NumPy and JAX values to strict JSON values.

    Args:
      value: dicts, lists, tuples, dataclasses (by `_asdict` if they have one), paths, scalars,
        arrays.
      nonfinite: "null" writes NaN and infinity as None, "text" as "nan" and "inf".

    Returns:
      Dicts with string keys, lists, str, int, float, bool and None.

    Raises:
      TypeError: for a value of another type.

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
    """Writes strict JSON atomically; NaN and infinity become null."""
    text = json.dumps(plain(value), indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file atomically: either the old content or all of the new is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # drop the partial file of a full disk
            temporary.unlink()
        raise


def write_arrays(path: pathlib.Path, arrays: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Writes a compressed `.npz` and, beside it, a JSON with its record; each atomically.

    Args:
      path: the `.npz`; its folder must exist.
      arrays: name to array; numbers, booleans or strings, because the file must open with
        `allow_pickle=False`.
      record: JSON-serialisable; shapes, dtypes and the file's SHA-256 are added.

    Raises:
      ValueError: for an array of another dtype.
    """
    host = {key: np.asarray(value) for key, value in arrays.items()}
    for key, value in host.items():
        if value.dtype.kind not in "biufcSU":
            raise ValueError(
                f"arrays[{key!r}] has dtype {value.dtype}: a .npz without pickle holds only "
                "numbers, booleans and strings (cast bfloat16 to float32)"
            )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **host)  # type: ignore[arg-type]
    content = buffer.getvalue()
    held = {key: {"shape": value.shape, "dtype": str(value.dtype)} for key, value in host.items()}
    # The record first, so that an array file never exists without its provenance.
    about = {**record, "arrays": held, CHECKSUM: hashlib.sha256(content).hexdigest()}
    write_json(path.with_suffix(JSON_ENDING), about)
    write_bytes(path, content)


def checksum(tree: Any, about: Any = None) -> str:
    """Computes the SHA-256 of a tree of arrays: names, shapes, types and values.

    Args:
      tree: nested NumPy or JAX arrays.
      about: JSON-serialisable metadata to include, such as a network's specification.

    Returns:
      64 hexadecimal digits.

    Example:
      >>> one, other = {"w": np.array([0.0, 1.0])}, {"w": np.array([0.0, 1.0 + 1e-15])}
      >>> checksum(one) == checksum(dict(one)), checksum(one) == checksum(other)
      (True, False)
    """
    digest = hashlib.sha256(json.dumps(plain(about), sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        host = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"\n{name} {host.dtype} {np.shape(leaf)}\n".encode())
        digest.update(host.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      FileNotFoundError: if the file does not exist.
      DamagedError: if it is unreadable or not an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{path} must hold an object, holds {str(found)[:40]!r}")
    return found


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a whole `.npz`, verified against the `sha256` of the JSON beside it, if there is one.

    Args:
      path: a file from `RunDirectory.save_arrays`, or any other `.npz`.

    Returns:
      Name to array.

    Raises:
      DamagedError: if the file is absent, empty, truncated or damaged, does not match the JSON's
        checksum, or holds pickled objects, which are never loaded.
    """
    if not path.is_file():
        raise DamagedError(f"no such file: {path}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise DamagedError(f"{path} is empty")
    record = path.with_suffix(JSON_ENDING)
    expected = read_json(record).get(CHECKSUM) if record.exists() else None
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise DamagedError(f"{path} is not the file that {record} describes: one is damaged")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise DamagedError(f"{path} is truncated or no .npz archive")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            # Members that are not arrays (other files in the archive) come as bytes.
            return {key: value for key in file.files if isinstance(value := file[key], np.ndarray)}
    except Exception as error:  # a damaged zip or npy header raises a dozen kinds
        if "pickle" in str(error):
            raise DamagedError(f"{path} holds pickled objects, which are never loaded") from error
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise DamagedError(f"{path} is damaged: {first}") from error
