"""Keys by name, so that no draw depends on what else is drawn."""

from __future__ import annotations

import zlib

import jax
import numpy as np

from advfeat.edges import one_key
from advfeat.types import Key


def stream(key: Key, name: str) -> Key:
    """The key of a named part: it does not depend on which other parts there are.

    >>> bool(stream(jax.random.key(0), "a") == stream(jax.random.key(0), "a"))
    True
    """
    return jax.random.fold_in(one_key(key), zlib.crc32(name.encode()) & 0x7FFFFFFF)


def numpy_seed(key: Key) -> tuple[int, ...]:
    """A key as whole numbers that seed what NumPy draws (`sampling.draw_rows`), on the host.

    >>> numpy_seed(jax.random.key(7))
    (0, 7)
    """
    return tuple(int(word) for word in np.asarray(jax.random.key_data(one_key(key))).ravel())
