"""A constructed data set: an `.npz` of images with new labels, beside the original test set."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advfeat.data import classes as classes_lib
from advfeat.data.types import DataError, Dataset, Split


def matches(name: str) -> bool:
    """Says whether `name` is the path of an `.npz` file."""
    return name.lower().endswith(".npz")


def load(name: str, *, classes: Sequence[str] | None, data_dir: str | None) -> Dataset:
    """Loads a constructed training set and the test set it is measured on.

    The file holds `image` (float32 in [0, 1], or uint8) `[N, H, W, C]` and `label` `[N]`, perhaps
    `id` `[N]` (else 0 … N-1), and perhaps `test_image` and `test_label`. Without those the test
    set is the original, unmodified one of the data set that the file beside it, `NAME.json`, says
    it was made from: its "dataset", "classes" and "data_dir" are what `advfeat.data.load` takes.
    If NAME.json holds a "sha256", the file must have it.

    Args:
      name: the path.
      classes: the classes to keep, of training and test set; None for all.
      data_dir: where the original data lie; None for the place that NAME.json names.

    Returns:
      The data set: constructed images to train on, original ones to test on.

    Raises:
      DataError: if the file is absent, empty, truncated, holds pickled objects, lacks an array, or
        an array is unusable (rank, dtype, length, NaN, outside [0, 1], label out of range); if
        NAME.json is absent where it is needed, or is another file's.
    """
    path = Path(name).expanduser()
    provenance = _provenance(path)
    arrays = _read(path, provenance)
    image = _images(path, arrays, "image")
    labels = _integers(path, arrays, "label", len(image))
    ids = (_integers(path, arrays, "id", len(image)) if "id" in arrays
           else np.arange(len(image), dtype=np.int32))
    if "test_image" in arrays:
        test_image = _images(path, arrays, "test_image")
        test_labels = _integers(path, arrays, "test_label", len(test_image))
        class_names = _class_names(provenance, max(labels.max(), test_labels.max()) + 1)
        test = Split(test_image, test_labels, np.arange(len(test_image)))
    else:
        original = _original(path, provenance, data_dir)
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
    """Returns what `NAME.json` says, `{}` if there is none."""
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path.with_suffix('.json')} is not readable JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path.with_suffix('.json')} must hold an object")
    return found


def _read(path: Path, provenance: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is truncated or no .npz archive")
    try:
        with np.load(path, allow_pickle=False) as file:
            # What is no array (another file packed along) comes as bytes.
            arrays = {key: value for key in file.files
                      if isinstance(value := file[key], np.ndarray)}
    except Exception as error:  # a damaged zip or npy header raises a dozen kinds
        if "pickle" in str(error):
            raise DataError(f"{path} holds pickled objects, which are never loaded") from error
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} is damaged: {first}") from error
    expected = provenance.get("sha256")
    if expected and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise DataError(f"{path} is not the file that {path.with_suffix('.json')} describes")
    return arrays


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
        low, high = float(image.min()), float(image.max())  # NaN comes through both
        if not (low >= 0 and high <= 1):
            what = "NaN" if np.isnan(low) or np.isnan(high) else f"values in [{low}, {high}]"
            raise DataError(f"{path}: {key} must lie in [0, 1], holds {what}")
    return image


def _integers(
    path: Path, arrays: Mapping[str, np.ndarray], key: str, length: int
) -> np.ndarray:
    value = _array(path, arrays, key)
    if value.shape != (length,) or value.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {key} must be integers [{length}], is {value.dtype} {list(value.shape)}"
        )
    bounds = np.iinfo(np.int32)
    if value.min() < bounds.min or value.max() > bounds.max:
        raise DataError(f"{path}: {key} must fit into 32 bits")
    return value.astype(np.int32)


def _class_names(provenance: Mapping[str, Any], count: int) -> tuple[str, ...]:
    names = provenance.get("class_names") or [str(label) for label in range(count)]
    return tuple(str(name) for name in names)


def _original(path: Path, provenance: Mapping[str, Any], data_dir: str | None) -> Dataset:
    # Imported late: the registry of `advfeat.data` names this module.
    from advfeat import data

    name = provenance.get("dataset")
    if not name:
        raise DataError(
            f"{path} has no test_image, and {path.with_suffix('.json')} no \"dataset\" that says "
            "which test set belongs to it"
        )
    if matches(name) and Path(name).expanduser().resolve() == path.resolve():
        raise DataError(f"{path.with_suffix('.json')} names the file itself as its data set")
    try:
        return data.load(
            name,
            classes=provenance.get("classes"),
            data_dir=data_dir or provenance.get("data_dir"),
        )
    except DataError as error:
        raise DataError(f"the test set of {path}: {error}") from error
