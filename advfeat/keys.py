"""Named random streams, so that draws of different components are independent."""

from __future__ import annotations

import zlib

import jax
import numpy as np

from advfeat.edges import one_key
from advfeat.types import Key


def stream(key: Key, name: str) -> Key:
    """Derives the key of a named component, independently of all other components.

    >>> bool(stream(jax.random.key(0), "a") == stream(jax.random.key(0), "a"))
    True
    """
    return jax.random.fold_in(one_key(key), zlib.crc32(name.encode()) & 0x7FFFFFFF)


def numpy_seed(key: Key) -> tuple[int, ...]:
    """Converts a key to integers that seed NumPy draws on the host (`rows.draw_rows`).

    >>> numpy_seed(jax.random.key(7))
    (0, 7)
    """
    return tuple(int(word) for word in np.asarray(jax.random.key_data(one_key(key))).ravel())
