"""Loads a constructed data set: an `.npz` of images with new labels, plus the original test set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advfeat.data import classes as classes_lib
from advfeat.data.types import DataError, Dataset, Split
from advfeat.runs.files import DamagedError, read_arrays, read_json

_PREFIX = "folder:"  # prefix of another source, whose path may have any ending
_DEEPEST = 20  # longest chain of sets constructed from one another


def matches(name: str) -> bool:
    """Returns whether `name` is the path of an `.npz` file (which need not exist)."""
    ends = name.lower().endswith(".npz") and not name.startswith(_PREFIX)
    return ends and not Path(name).expanduser().is_dir()


def load(name: str, *, classes: Sequence[str] | None, data_dir: str | None) -> Dataset:
    """Loads a constructed training set and its test set.

    The file holds `image` (float32 in [0, 1], or uint8) `[N, H, W, C]` and `label` `[N]`,
    optionally `id` `[N]` (default 0 … N-1), `test_image` and `test_label`. Without the latter, the
    test set is the original, unmodified one of the source data set: the file beside it,
    `NAME.json`, records its "dataset", "classes" and "data_dir" as arguments of
    `advfeat.data.load`. If NAME.json contains a "sha256", the file must match it. Class names are
    those of the original data set or NAME.json's "class_names"; otherwise the labels themselves
    serve as names, which must then have no gaps.

    Args:
      name: path of the `.npz` file.
      classes: classes to keep in training and test set; None keeps all.
      data_dir: location of the original data; None uses the one in NAME.json.

    Returns:
      The data set: constructed training images, original test images.

    Raises:
      DataError: if the file is absent, empty or truncated, holds pickled objects or lacks an array;
        if an array is unusable (rank, dtype, length, NaN, outside [0, 1], label out of range); if
        NAME.json is required but absent, or belongs to another file.
    """
    path = Path(name).expanduser()
    found = _load(path, classes=classes, data_dir=data_dir, made_from=())
    return dataclasses.replace(found, name=name)


def _load(
    path: Path, *, classes: Sequence[str] | None, data_dir: str | None, made_from: tuple[Path, ...]
) -> Dataset:
    """Implements `load`; `made_from` lists the files on whose behalf this test set is loaded."""
    name = str(path)
    provenance = _provenance(path)
    try:
        arrays = read_arrays(path)
    except DamagedError as error:
        raise DataError(str(error)) from error
    image = _images(path, arrays, "image")
    labels = _integers(path, arrays, "label", len(image))
    ids = (
        _integers(path, arrays, "id", len(image))
        if "id" in arrays
        else np.arange(len(image), dtype=np.int32)
    )
    if "test_image" in arrays:
        test_image = _images(path, arrays, "test_image")
        test_labels = _integers(path, arrays, "test_label", len(test_image))
        class_names = provenance.get("class_names") or _counted(path, labels, test_labels)
        test = Split(test_image, test_labels, np.arange(len(test_image)))
    else:
        original = _original(path, provenance, data_dir, made_from)
        test, class_names = original.test, original.class_names
    for key, value in (("label", labels), ("test_label", test.label)):
        if value.min() < 0 or value.max() >= len(class_names):
            wrong = value.min() if value.min() < 0 else value.max()
            raise DataError(f"{path}: {key} must lie in [0, {len(class_names)}), holds {wrong}")
    if image.shape[1:] != test.image.shape[1:]:
        raise DataError(
            f"{path}: image is {list(image.shape[1:])}, its test set {list(test.image.shape[1:])}"
        )
    keep = classes_lib.select(name, class_names, classes)
    return Dataset(
        name=name,
        train=classes_lib.restrict(Split(image, labels, ids), keep),
        test=classes_lib.restrict(test, keep),
        class_names=tuple(class_names[label] for label in keep),
    )


def _provenance(path: Path) -> dict[str, Any]:
    """Reads and validates `NAME.json`; returns `{}` if it does not exist."""
    record = path.with_suffix(".json")
    try:
        found = read_json(record)
    except FileNotFoundError:
        return {}
    except DamagedError as error:
        raise DataError(str(error)) from error
    for key in ("dataset", "data_dir", "sha256"):
        if not isinstance(found.get(key), (str, type(None))):
            raise DataError(f"{record}: {key} must be a text, is {_shown(found[key])}")
    for key in ("classes", "class_names"):
        names = found.get(key)
        if names is None:
            continue
        if not isinstance(names, list) or not all(_is_name(name) for name in names):
            raise DataError(f"{record}: {key} must be a list of names, is {_shown(names)}")
        found[key] = tuple(str(name) for name in names)
        if len(set(found[key])) != len(names):
            raise DataError(f"{record}: {key} names one twice: {_shown(names)}")
    return found


def _is_name(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _array(path: Path, arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{path} has no array {key!r}; it holds {held}")
    return arrays[key]


def _images(path: Path, arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    image = _array(path, arrays, key)
    if image.ndim != 4 or image.dtype not in (np.float32, np.uint8) or not image.size:
        raise DataError(
            f"{path}: {key} must be float32 or uint8 [N, H, W, C] and not empty, is {image.dtype} "
            f"{list(image.shape)}"
        )
    if image.dtype == np.float32:
        low, high = float(image.min()), float(image.max())  # NaN propagates through both
        if not (low >= 0 and high <= 1):
            what = "NaN" if np.isnan(low) or np.isnan(high) else f"values in [{low}, {high}]"
            raise DataError(f"{path}: {key} must lie in [0, 1], holds {what}")
    return image


def _integers(path: Path, arrays: Mapping[str, np.ndarray], key: str, length: int) -> np.ndarray:
    value = _array(path, arrays, key)
    if value.shape != (length,) or value.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {key} must be integers [{length}], is {value.dtype} {list(value.shape)}"
        )
    bounds = np.iinfo(np.int32)
    if value.min() < bounds.min or value.max() > bounds.max:
        raise DataError(f"{path}: {key} must fit into 32 bits")
    return value.astype(np.int32)


def _counted(path: Path, labels: np.ndarray, test_labels: np.ndarray) -> tuple[str, ...]:
    """Returns the labels from 0 to the largest as class names, if none are given."""
    there = np.unique(np.concatenate([labels, test_labels]))
    if there[0] < 0:
        raise DataError(f"{path}: labels must be 0 or more, holds {there[0]}")
    gaps = np.flatnonzero(there != np.arange(len(there)))
    if len(gaps):
        raise DataError(
            f"{path}: no image has label {gaps[0]}, but one has {there[-1]}; if there are so many "
            f'classes, name them all in {path.with_suffix(".json").name} ("class_names")'
        )
    return tuple(str(label) for label in there)


def _original(
    path: Path, provenance: Mapping[str, Any], data_dir: str | None, made_from: tuple[Path, ...]
) -> Dataset:
    # Imported late: the registry of `advfeat.data` names this module.
    from advfeat import data

    name, record = provenance.get("dataset"), path.with_suffix(".json")
    if not name:
        raise DataError(
            f'{path} has no test_image, and {record} no "dataset" that says which test set '
            "belongs to it"
        )
    wanted: dict[str, Any] = {
        "classes": provenance.get("classes"),
        "data_dir": data_dir or provenance.get("data_dir"),
    }
    made_from = (*made_from, path.resolve())
    if not matches(name):
        try:
            return data.load(name, **wanted)
        except DataError as error:
            raise DataError(f"the test set of {path}: {error}") from error
    source = Path(name).expanduser()
    if source.resolve() in made_from:
        what = "the file itself" if len(made_from) == 1 else f"{name}, which was made from it,"
        raise DataError(f"{record} names {what} as its data set")
    if len(made_from) > _DEEPEST:
        raise DataError(f"{record}: more than {_DEEPEST} sets are made from one another")
    try:
        return _load(source, **wanted, made_from=made_from)
    except DataError as error:
        # Prefix the message only once per chain.
        prefix = "" if str(error).startswith("the test set of") else f"the test set of {path}: "
        raise DataError(f"{prefix}{error}") from error
