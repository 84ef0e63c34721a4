"""Restricts batch statistics to some rows of a batch, in any flax module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import BatchNorm
from jax import Array


@contextmanager
def statistics_of(rows: Array | None) -> Iterator[None]:
    """Makes batch normalisation in training mode take mean and variance from these rows only.

    Within the context, every `flax.linen.BatchNorm` called by a module's `apply` receives a mask,
    unless the module passes one, so networks need not know about padding. The other rows are
    normalised by the same statistics. If no row is selected, all of them count; the caller must
    then discard the result.

    Args:
      rows: `[B]` bool; None selects all rows and changes nothing.

    Raises:
      ValueError: within the context, for a normalisation whose input has another number of rows.

    >>> import jax
    >>> norm = BatchNorm(use_running_average=False)
    >>> x = jnp.array([[1.0], [3.0], [99.0]])
    >>> variables = norm.init(jax.random.key(0), x)
    >>> with statistics_of(jnp.array([True, True, False])):
    ...     found, _ = norm.apply(variables, x, mutable=["batch_stats"])
    >>> found[:2, 0].round(3).tolist()
    [-1.0, 1.0]
    """
    if rows is None:
        yield
        return

    def mask(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if not isinstance(module, BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        given = dict(zip(("x", "use_running_average"), args, strict=False)) | kwargs
        running = given.get("use_running_average")
        running = module.use_running_average if running is None else running
        if running or given.get("mask") is not None:
            return call(*args, **kwargs)
        x = given["x"]
        if x.ndim < 2 or x.shape[0] != rows.shape[0]:
            raise ValueError(
                f"batch normalisation {'/'.join(module.path)} sees {x.shape[0]} rows of a batch of "
                f"{rows.shape[0]}: the padding among them is unknown"
            )
        kept = rows | ~jnp.any(rows)
        return call(**{**given, "mask": kept.reshape(-1, *[1] * (x.ndim - 1))})

    with nn.intercept_methods(mask):
        yield
