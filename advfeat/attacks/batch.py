"""Batched attacks: vmap, a single program, and a loop over a data set in parts of fixed shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32, Integer

from advfeat import devices
from advfeat.checks import check_ids, check_images, check_labels, check_positive
from advfeat.edges import check_label, on_batch, one_key, output_of, takes_label
from advfeat.types import Array, Key, ModelFn, as_model_fn

R = TypeVar("R")
OnOne = Callable[[Key, ModelFn, Array, Any], R]
"""An attack, which returns an `AttackResult`, or a saliency method, which returns a map."""


@devices.shared("ids", "x", "y")
def _attack_batch(key: Key, attack: OnOne[R], ids: Array, model_fn: ModelFn, x: Array, y: Any) -> R:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(one_key(key), ids)
    return jax.vmap(attack, (0, None, 0, 0))(keys, model_fn, x, y)


def attack_batch(
    key: Key,
    attack: OnOne[R],
    model_fn: ModelFn,
    x: Float[Array, " B *x"],
    y: Any,
    *,
    ids: Integer[Array, " B"] | None = None,
) -> R:
    """Attacks a batch. Compiled once per shape: new eps, weights or data do not recompile.

    All devices of this process share the rows, and on CPU parts of the batch that stay in the
    caches follow one another, unless the arguments are traced (inside your own `jit`) or `x` is
    committed to devices of your choice.

    Args:
      key: a random key, converted to threefry. Each example uses `fold_in(key, id)`, so its draws
        do not depend on batch size, order, padding or devices.
      attack: an attack on ONE example (or a method of `advfeat.saliency`), a pytree.
      model_fn: the network, for ONE example.
      x: `[B, H, W, C]` in [0, 1].
      y: labels `[B]` (or targets), or any pytree with leading axis B.
      ids: `[B]` integers in `[0, 2**32)`, the example ids; by default 0 … B-1. Several batches
        under one key need ids of their own, or they share their draws.

    Returns:
      The attack's result (an `AttackResult` or a map) whose leaves have a leading axis B.

    Raises:
      ValueError: before any work, for mismatched leading axes or types and one-hot labels. Values
        are checked unless they are traced (inside your own `jit`): images outside [0, 1], NaN, and
        classes that the network does not have.
    """
    rows: Any = np.arange((np.shape(x) or (0,))[0], dtype=np.int32) if ids is None else ids
    on_batch(key, attack, model_fn, x, y, rows)
    attack, model_fn, count = as_model_fn(attack), as_model_fn(model_fn), np.shape(rows)[0]
    if not devices.may_move((rows, x, y)):
        return _attack_batch(key, attack, rows, model_fn, x, y)
    size = devices.rows_at_once(model_fn, np.shape(x)[1:], count)
    if size >= count:
        return devices.home(_attack_batch(key, attack, rows, model_fn, x, y))  # type: ignore[no-any-return]
    images, labels, numbers = jax.tree.map(np.asarray, (x, y, rows))
    result = in_parts(key, attack, model_fn, images, labels, numbers, size=size, dtype=images.dtype)
    return jax.tree.map(jnp.asarray, result)  # type: ignore[no-any-return]


def attack_dataset(
    key: Key,
    attack: OnOne[R],
    model_fn: ModelFn,
    images: Float[np.ndarray, " N *x"],
    labels: Any,
    *,
    ids: Integer[np.ndarray, " N"] | None = None,
    batch_size: int = 250,
    advance: Callable[[int], Any] | None = None,
) -> R:
    """Attacks a data set in batches of one shape; the last is padded and the padding discarded.

    Args:
      key: a typed key.
      attack: an attack on ONE example (or a method of `advfeat.saliency`).
      model_fn: the network, for ONE example.
      images: `[N, H, W, C]` floating point in [0, 1], on the host.
      labels: `[N]` labels or targets; for an objective whose aim is a tuple, a tuple of arrays
        with a leading axis N.
      ids: `[N]`, by default 0 … N-1.
      batch_size: most examples at a time; bounds memory. On CPU it may be fewer (see `devices`).
      advance: called after each batch with its number of examples (a progress bar's `update`).

    Returns:
      The attack's result as NumPy arrays with a leading axis N.

    Raises:
      ValueError: for invalid images, a number of labels or ids other than N, a network that does
        not take ONE image, or labels outside its classes: their loss is NaN, which would pass for
        robustness.
    """
    check_positive(batch_size, name="batch_size")
    images, labels, ids, _ = check_batch(model_fn, images, labels, ids, method=attack)
    size = devices.rows_at_once(model_fn, images.shape[1:], batch_size)
    return in_parts(one_key(key), attack, model_fn, images, labels, ids, size=size, advance=advance)


def in_parts(
    key: Key,
    attack: OnOne[R],
    model_fn: ModelFn,
    images: Float[np.ndarray, " N *x"],
    labels: Any,
    ids: Integer[np.ndarray, " N"],
    *,
    size: int,
    dtype: Any = np.float32,
    advance: Callable[[int], Any] | None = None,
) -> R:
    """Attacks a data set as `attack_dataset` does, whose caller has checked the arguments.

    Args:
      key: a threefry key.
      attack: as `attack_dataset`.
      model_fn: as `attack_dataset`.
      images: as `attack_dataset`.
      labels: as `attack_dataset`.
      ids: `[N]`.
      size: examples of a part; see `devices.rows_at_once`.
      dtype: of the images that the attack is given.
      advance: as `attack_dataset`.
    """
    given = key, as_model_fn(attack), as_model_fn(model_fn)
    key, attack, model_fn = devices.everywhere(given)

    def call(rows: np.ndarray) -> R:
        x = images[rows].astype(dtype, copy=False)
        y = jax.tree.map(lambda leaf: leaf[rows], labels)
        return _attack_batch(key, attack, ids[rows], model_fn, x, y)

    return devices.in_parts(call, len(images), size, advance)  # type: ignore[no-any-return]


def check_batch(
    model_fn: ModelFn,
    images: Float[np.ndarray, " N *x"],
    labels: Any,
    ids: Integer[np.ndarray, " N"] | None,
    *,
    method: Any = None,
    check_output: Callable[[jax.ShapeDtypeStruct, tuple[int, ...]], None] | None = None,
) -> tuple[Float[np.ndarray, " N *x"], Any, Int32[np.ndarray, " N"], jax.ShapeDtypeStruct]:
    """Checks network, images, labels and ids of a data set.

    Args:
      model_fn: the network.
      images: as `attack_dataset`.
      labels: as `attack_dataset`.
      ids: as `attack_dataset`.
      method: the attack, saliency method or objective, which tells whether labels must be class
        indices.
      check_output: raises for an output that the caller cannot use, given also the image's shape.

    Returns:
      Images, labels and ids on the host, and the network's output for one image, uncomputed.

    Raises:
      ValueError: as `attack_dataset`.
    """
    check_images(images)
    images, count = np.asarray(images), len(images)
    several = isinstance(labels, tuple) and any(np.ndim(leaf) for leaf in labels)
    labels = jax.tree.map(np.asarray, labels) if several else np.asarray(labels)
    if takes_label(method):
        check_label(labels, name="labels", batched=True)
    for leaf in jax.tree.leaves(labels):
        if leaf.dtype.kind in "OSU":
            raise ValueError(f"labels must be numbers, got dtype {leaf.dtype}")
        if leaf.shape[:1] != (count,):
            raise ValueError(f"labels must hold {count} entries, one per image, got {leaf.shape}")
    ids = np.arange(count) if ids is None else np.asarray(ids)
    check_ids(ids, count=count)
    logits = output_of(model_fn, images.shape[1:])
    if check_output is not None:
        check_output(logits, images.shape[1:])
    for leaf in jax.tree.leaves(labels) if logits.ndim in (1, 3) else ():
        if leaf.ndim == 1 and np.issubdtype(leaf.dtype, np.integer):
            # Classes, or units and channels of a layer: JAX clamps indices out of range silently.
            check_labels(leaf, num_classes=logits.shape[-1])
    # ids from 2**31 wrap to negative: same 32 bits
    return images, labels, ids.astype(np.int32), logits
