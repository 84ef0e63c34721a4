"""Loads a folder with one folder of images per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from advfeat.data import classes as classes_lib, images, tfds_images
from advfeat.data.types import DataError, Dataset, Split

_PREFIX = "folder:"
_ENDINGS = (".png", ".jpg", ".jpeg")
_TEST_FOLDERS = ("test", "val", "validation")
_TEST_SHARE = 0.2


def matches(name: str) -> bool:
    """Returns whether `name` is `folder:PATH`, an unambiguous path or an existing directory.

    A name that begins with /, . or ~ is an unambiguous path. Excluded are directories prepared by
    TensorFlow Datasets or named like a TFDS set in common use, which belong to that source.
    """
    if name.startswith((_PREFIX, os.sep, ".", "~")):
        return True
    path = Path(name)
    if not path.is_dir() or name in tfds_images.COMMON:
        return False
    return not any(any(path.glob(f"{below}dataset_info.json")) for below in ("", "*/", "*/*/"))


def load(name: str, *, classes: Sequence[str] | None, data_dir: str | None) -> Dataset:
    """Loads PNG and JPEG files of one size; the folder names are the classes.

    The layout is either `PATH/train/CLASS/*` and `PATH/test/CLASS/*` (or `val`, `validation`), or
    `PATH/CLASS/*`. In the latter case a fifth of each class is the test set, selected by a hash of
    the file names and thus always the same. (If some files are near duplicates, such as frames of a
    video, split train and test yourself.) Hidden files and other file types are skipped. Classes
    and files are sorted by name; the id is the position in that order. Grey images stay grey unless
    some are in colour.

    Args:
      name: `folder:PATH` or PATH.
      classes: classes to keep; None keeps all.
      data_dir: base of a relative PATH that does not exist otherwise.

    Returns:
      The data set, uint8.

    Raises:
      DataError: if the folder, its classes or its images are absent, of different sizes or
        unreadable (naming the file), or if Pillow is missing.
    """
    images.require_pillow()
    root = _root(name.removeprefix(_PREFIX), data_dir)
    if (root / "train").is_dir():
        test_root = next((root / part for part in _TEST_FOLDERS if (root / part).is_dir()), None)
        if test_root is None:
            raise DataError(f"{root} has a folder train but none of {', '.join(_TEST_FOLDERS)}")
        class_names = _class_names(root / "train")
        if _class_names(test_root) != class_names:
            differing = sorted(set(_class_names(test_root)) ^ set(class_names))
            raise DataError(f"{root}: not in both train and {test_root.name}: {differing[0]}")
        keep = classes_lib.select(name, class_names, classes)
        train, test = (_read(part, class_names, keep) for part in (root / "train", test_root))
    else:
        class_names = _class_names(root)
        keep = classes_lib.select(name, class_names, classes)
        kept = tuple(class_names[label] for label in keep)
        found, files = _read(root, class_names, keep), _listed(root, class_names)
        names = [files[position][0].name for position in found.id]
        train, test = _parted(found, names, root, kept)
    if train.image.shape[-1] != test.image.shape[-1]:
        train, test = (_coloured(split) for split in (train, test))
    return Dataset(name, train, test, tuple(class_names[label] for label in keep))


def _root(path: str, data_dir: str | None) -> Path:
    root = Path(path).expanduser()
    if root.is_file():
        raise DataError(f"{root} is a file: neither a folder of images nor a constructed .npz")
    if not root.is_dir() and data_dir and (Path(data_dir).expanduser() / path).is_dir():
        root = Path(data_dir).expanduser() / path
    if not root.is_dir():
        raise DataError(f"no such folder of images: {root}")
    return root


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if len(names) < 2:
        raise DataError(f"{folder} must hold a folder for each of 2 or more classes, has {names}")
    return tuple(names)


def _files(folder: Path, class_name: str) -> list[Path]:
    found = sorted(
        path
        for path in (folder / class_name).iterdir()
        if path.suffix.lower() in _ENDINGS and path.name[0] != "." and path.is_file()
    )
    return found


def _listed(folder: Path, class_names: Sequence[str]) -> list[tuple[Path, int]]:
    return [
        (path, label) for label, name in enumerate(class_names) for path in _files(folder, name)
    ]


def _read(folder: Path, class_names: Sequence[str], keep: Sequence[int]) -> Split:
    listed = _listed(folder, class_names)
    for label in keep:
        if not any(owner == label for _, owner in listed):
            raise DataError(f"no {', '.join(_ENDINGS)} files in {folder / class_names[label]}")
    positions, labels = classes_lib.relabel(np.array([label for _, label in listed]), keep)
    decoded = _same_size(listed[position][0] for position in positions)
    if len({image.shape[-1] for image in decoded}) == 2:
        decoded = [np.broadcast_to(image, (*image.shape[:2], 3)) for image in decoded]
    return Split(np.stack(decoded), labels, positions)


def _same_size(paths: Iterable[Path]) -> list[np.ndarray]:
    decoded: list[np.ndarray] = []
    for path in paths:
        try:
            image = images.decode(path.read_bytes())
        except (DataError, OSError) as error:
            raise DataError(f"{path}: {error}") from error
        if decoded and image.shape[:2] != decoded[0].shape[:2]:
            raise DataError(
                f"images must all be of one size: {path} is {image.shape[0]} × {image.shape[1]}, "
                f"those before it {decoded[0].shape[0]} × {decoded[0].shape[1]} (height × width)"
            )
        decoded.append(image)
    return decoded


def _coloured(split: Split) -> Split:
    shape = (*split.image.shape[:-1], 3)
    return Split(np.ascontiguousarray(np.broadcast_to(split.image, shape)), split.label, split.id)


def _parted(
    split: Split, names: Sequence[str], root: Path, class_names: Sequence[str]
) -> tuple[Split, Split]:
    """Splits off the fifth of each class with the lowest file-name hashes as test images.

    So the split depends neither on the order of the names nor on omitted classes, and adding or
    removing a file moves at most one other file of its class.
    """
    hashes = np.array([hashlib.sha256(name.encode()).hexdigest() for name in names])
    test = np.zeros(len(split), bool)
    for label in np.unique(split.label):
        members = np.flatnonzero(split.label == label)
        if len(members) < 2:
            raise DataError(
                f"{root}: class {class_names[label]!r} has one image: none is left to test with"
            )
        count = max(1, round(_TEST_SHARE * len(members)))
        test[members[np.argsort(hashes[members], kind="stable")][:count]] = True
    return split.take(~test), split.take(test)
