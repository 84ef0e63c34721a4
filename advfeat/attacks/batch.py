"""Batches of attacks: the vmap, the one jit, and the loop over a data set with one fixed shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.batching import padded_rows
from advfeat.checks import check_images, check_labels, check_positive
from advfeat.types import Array, Key, ModelFn, as_model_fn

R = TypeVar("R")
OnOne = Callable[[Key, ModelFn, Array, Any], R]
"""An attack, whose result is an `AttackResult`, or a method of saliency, whose result is a map."""


@jax.jit
def _attack_batch(
    attack: OnOne[R], root: Key, ids: Array, model_fn: ModelFn, x: Array, y: Any
) -> R:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, ids)
    return jax.vmap(attack, (0, None, 0, 0))(keys, model_fn, x, y)


def attack_batch(
    attack: OnOne[R], root: Key, ids: Array, model_fn: ModelFn, x: Array, y: Any
) -> R:
    """Attacks a batch, compiled once per shape: new eps, weights or data do not recompile.

    Args:
      attack: an attack on ONE example (or a method of `advfeat.saliency`), a pytree.
      root: a typed key; each example's own key is `fold_in(root, id)`, so that draws do not
        depend on the batch's size, order or padding, nor on the devices.
      ids: `[B]` int32, the examples' ids.
      model_fn: the network, for ONE example.
      x: `[B, H, W, C]` in [0, 1].
      y: labels `[B]` (or targets), or any pytree with leading axis B.

    Returns:
      The attack's result (an `AttackResult`, a map) whose leaves have a leading axis B.
    """
    return _attack_batch(as_model_fn(attack), root, ids, as_model_fn(model_fn), x, y)


def attack_dataset(
    attack: OnOne[R],
    root: Key,
    model_fn: ModelFn,
    images: np.ndarray,
    labels: Any,
    *,
    ids: np.ndarray | None = None,
    batch_size: int = 250,
    advance: Callable[[int], Any] | None = None,
) -> R:
    """Attacks a whole data set in batches of one shape; the last is padded, the padding dropped.

    Args:
      attack: an attack on ONE example (or a method of `advfeat.saliency`).
      root: a typed key.
      model_fn: the network, for ONE example.
      images: `[N, H, W, C]` floating point in [0, 1], on the host.
      labels: `[N]` labels or targets, or, where the objective's aim is a tuple, a tuple of arrays
        with a leading axis N.
      ids: `[N]`, by default 0 … N-1.
      batch_size: examples at a time: what bounds the memory on the device.
      advance: called with the number of examples after each batch (a progress bar's `update`).

    Returns:
      The attack's result, of NumPy arrays with a leading axis N.

    Raises:
      ValueError: for bad images, labels or ids that are not one per image, a network that does not
        take ONE image, or class labels that it does not have: its loss there is NaN, which would
        pass for robustness.
    """
    check_positive(batch_size, name="batch_size")
    images, labels, ids = check_batch(model_fn, images, labels, ids)
    count = len(images)
    attack, model_fn = as_model_fn(attack), as_model_fn(model_fn)
    parts = []
    for rows, real in padded_rows(count, batch_size):
        x = jnp.asarray(images[rows], jnp.float32)
        y = jax.tree.map(lambda leaf, these=rows: jnp.asarray(leaf[these]), labels)
        result = attack_batch(attack, root, jnp.asarray(ids[rows]), model_fn, x, y)
        parts.append(jax.tree.map(lambda leaf, keep=real: np.asarray(leaf)[:keep], result))
        if advance is not None:
            advance(real)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def check_batch(
    model_fn: ModelFn, images: np.ndarray, labels: Any, ids: np.ndarray | None
) -> tuple[np.ndarray, Any, np.ndarray]:
    """Images, labels and ids of an attack on a data set, checked and on the host.

    Raises:
      ValueError: as `attack_dataset`.
    """
    check_images(images)
    images, count = np.asarray(images), len(images)
    several = isinstance(labels, tuple) and any(np.ndim(leaf) for leaf in labels)
    labels = jax.tree.map(np.asarray, labels) if several else np.asarray(labels)
    for leaf in jax.tree.leaves(labels):
        if leaf.shape[:1] != (count,):
            raise ValueError(f"labels must hold {count} entries, one per image, got {leaf.shape}")
    ids = np.arange(count) if ids is None else np.asarray(ids)
    if ids.shape != (count,):
        raise ValueError(f"ids must hold {count} entries, one per image, got {ids.shape}")
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be integers, got dtype {ids.dtype}")
    logits = output_of(model_fn, images.shape[1:])
    for leaf in jax.tree.leaves(labels) if logits.ndim in (1, 3) else ():
        if leaf.ndim == 1 and np.issubdtype(leaf.dtype, np.integer):
            # Classes, or units and channels of a layer: what is out of range would be clamped.
            check_labels(leaf, num_classes=logits.shape[-1])
    return images, labels, ids.astype(np.int32)


def output_of(model_fn: ModelFn, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """What a network returns for ONE image of a shape, found without computing anything.

    Raises:
      ValueError: if it does not take such an image, is not written in JAX, changes when it is
        called, or returns anything but one array.
    """
    if not callable(model_fn):
        raise ValueError(f"model_fn must be a function, got {model_fn!r}")
    try:
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        output = jax.eval_shape(_apply, as_model_fn(model_fn), image)
    except Exception as error:  # whatever somebody else's code may raise
        if type(error).__name__ == "TraceContextError":  # flax's, which this layer does not know
            raise ValueError(
                "model_fn must not change when it is called, as a flax nnx module in training mode "
                "does (batch statistics, dropout): give advfeat.models.from_nnx(module)"
            ) from error
        line = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"model_fn must take ONE image {list(shape)}, but it raised {type(error).__name__}: "
            f"{line} (what takes a batch, or is not JAX: advfeat.models.adapters)"
        ) from error
    if not isinstance(output, jax.ShapeDtypeStruct):
        raise ValueError(
            f"model_fn must return one array of logits [K], got a {type(output).__name__}"
        )
    return output


def _apply(model_fn: ModelFn, x: Array) -> Array:
    # One function, so that JAX remembers what a network it has seen returns. Traced within a trace,
    # as attacks do: only there does a module that updates itself fail.
    return jax.jit(lambda point: model_fn(point))(x)
