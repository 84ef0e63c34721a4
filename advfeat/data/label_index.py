"""The labels of a TFDS split, read once and remembered.

A stream must know which records it wants before it decodes any. Records hold label and image
together, so finding the labels of imagenet2012 means reading its 140 GB once; what was found is
5 MB and is kept in a cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from advfeat.data import tfds_images

CACHE_VARIABLE = "ADVFEAT_CACHE_DIR"


def labels(source: tfds_images.Source, split: str) -> np.ndarray:
    """Returns the label of every record of a split, in order. Decodes no image.

    The cache folder is $ADVFEAT_CACHE_DIR, else $XDG_CACHE_HOME/advfeat, else ~/.cache/advfeat; a
    file there is used only for the same set, version, split, sizes and place. A folder that cannot
    be written to costs the next reader the time, nothing else.

    Args:
      source: the opened set.
      split: the name of the split.

    Returns:
      int32 `[N]`; -1 where the set has no label.
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


def cache_dir() -> Path:
    """Returns the folder of remembered labels; it need not exist."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "advfeat"


def _fingerprint(source: tfds_images.Source, split: str) -> str:
    info = source.builder.info.splits[split]
    parts = (source.builder.info.full_name, str(source.builder.data_dir), split, source.label_key,
             info.num_bytes, tuple(info.shard_lengths))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _save(path: Path, found: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        np.save(part, found)
    Path(part.name).replace(path)  # whole or not at all, also with several processes
