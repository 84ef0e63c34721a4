"""Rows of weight 0 count for nothing: not in a loss, its gradients, nor batch statistics.

Streams pad their last batch, devices share batches of one size. What such a row holds must not
matter, be it black, another example or NaN.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.checks import is_concrete
from advfeat.types import Array, Batch


def real_rows(batch: Batch) -> Array | None:
    """`[B]` bool, the rows that have a weight; None where all are known to have one.

    It is known of weights that can be looked at, such as NumPy's while a step is traced: nothing is
    masked then, and the step is the one without padding, bit for bit.
    """
    weight = batch["weight"]
    readable = is_concrete(weight) and getattr(weight, "is_fully_addressable", True)
    if readable and bool(np.all(np.asarray(weight) > 0)):
        return None
    return jnp.asarray(weight) > 0


def has_unit_weights(batch: Batch) -> bool:
    """Whether all weights are known to be 1."""
    return real_rows(batch) is None and bool(np.all(np.asarray(batch["weight"]) == 1))


def filled(batch: Batch) -> Batch:
    """The batch with copies of its first real row where the weight is 0: nothing there can be NaN.

    A gradient times a weight of 0 would still be NaN where the row is. Ids and weights stay; where
    no row is real, all become zeros.
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
