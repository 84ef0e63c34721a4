"""Keys by name, so that no draw depends on what else is drawn."""

from __future__ import annotations

import zlib

import jax

from advfeat.edges import one_key
from advfeat.types import Key


def stream(root: Key, name: str) -> Key:
    """The key of a named part: it does not depend on which other parts there are.

    >>> bool(stream(jax.random.key(0), "a") == stream(jax.random.key(0), "a"))
    True
    """
    return jax.random.fold_in(one_key(root, name="root"), zlib.crc32(name.encode()) & 0x7FFFFFFF)
