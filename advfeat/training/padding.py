"""Masks padding: rows of weight 0 affect neither loss, gradients nor batch statistics.

Streams pad their last batch, and devices share batches of one size. The content of a padded row
(black, another example or NaN) must not matter.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.checks import is_concrete
from advfeat.types import Array, Batch


def real_rows(batch: Batch) -> Array | None:
    """Returns a mask `[B]` of the rows with positive weight; None if all are known to be positive.

    Weights are known if they are concrete, such as NumPy arrays while a step is traced. Nothing is
    masked then, and the step equals the one without padding bit for bit.
    """
    weight = batch["weight"]
    readable = is_concrete(weight) and getattr(weight, "is_fully_addressable", True)
    if readable and bool(np.all(np.asarray(weight) > 0)):
        return None
    return jnp.asarray(weight) > 0


def has_unit_weights(batch: Batch) -> bool:
    """Returns whether all weights are known to be 1."""
    return real_rows(batch) is None and bool(np.all(np.asarray(batch["weight"]) == 1))


def filled(batch: Batch) -> Batch:
    """Replaces rows of weight 0 by copies of the first real row, so that none can contain NaN.

    A gradient times a weight of 0 would still be NaN if the row is. Ids and weights are kept; if no
    row is real, all become zeros.
    """
    real = real_rows(batch)
    if real is None:
        return batch
    first, some = jnp.argmax(real), jnp.any(real)

    def fill(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        copy = jnp.where(some, leaf[first], jnp.zeros_like(leaf[0]))
        return jnp.where(real.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, copy[None])

    kept = {name: batch[name] for name in ("id", "weight") if name in batch}
    return {**jax.tree.map(fill, {k: v for k, v in batch.items() if k not in kept}), **kept}
