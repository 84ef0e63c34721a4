"""Caches the labels of a TFDS split.

A stream must select its records before it decodes any. Records hold label and image together, so
finding the labels of imagenet2012 means reading all of its 140 GB once; the result is 5 MB and is
kept in a cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from pathlib import Path

import numpy as np

from advfeat.data import tfds_images
from advfeat.runs.cache import cache_dir


def labels(source: tfds_images.Source, split: str) -> np.ndarray:
    """Returns the label of every record of a split, in order, without decoding images.

    A file of the cache folder (`runs.cache`) is used only for the same set, version, split, sizes
    and location. If the folder is not writable, the labels are read again next time.

    Args:
      source: the opened set.
      split: name of the split.

    Returns:
      int32 `[N]`; -1 for records without a label.
    """
    records = source.records(split)
    path = cache_dir() / f"labels-{_fingerprint(source, split)}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        found = np.load(path, allow_pickle=False)
        if found.shape == (len(records),) and found.dtype == np.int32:
            return found
    found = np.empty(len(records), np.int32)
    for position, record in tfds_images.read_all(records, f"labels of {source.name} {split}"):
        found[position] = source.label_and_image(record)[0]
    with contextlib.suppress(OSError):
        _save(path, found)
    return found


def _fingerprint(source: tfds_images.Source, split: str) -> str:
    info = source.builder.info.splits[split]
    parts = (
        source.builder.info.full_name,
        str(source.builder.data_dir),
        split,
        source.label_key,
        info.num_bytes,
        tuple(info.shard_lengths),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _save(path: Path, found: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        np.save(part, found)
    Path(part.name).replace(path)  # atomic, also with several processes
