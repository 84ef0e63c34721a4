"""The public edges of the functional layers: keys, images and labels as everything inside has them.

Shapes and types are known while JAX traces as well, so they are looked at always; values only where
there are any. Under `jit` and `vmap` there are none: whoever traces checks before. A check of
values waits for the arrays that it looks at, and for nothing else.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.checks import check_ids, check_labels, check_range, is_concrete
from advfeat.types import Array, Batch, Key, ModelFn, as_model_fn

THREEFRY = "threefry2x32"


def require(assertion: str, *args: Any, says: str) -> None:
    """A static assertion of chex whose failure is a one-line `ValueError`.

    Args:
      assertion: its name, such as `assert_rank`, which looks at shapes or types only.
      args: its arguments.
      says: the error.
    """
    import chex  # on its first use: it takes a third as long as JAX to import

    try:
        getattr(chex, assertion)(*args)
    except AssertionError:
        raise ValueError(says) from None


def one_key(key: Any, *, name: str = "key") -> Key:
    """A typed threefry key out of ONE key of any kind.

    Under `vmap` keys of `rbg` and `unsafe_rbg` draw other numbers than alone, so that draws would
    depend on the batch. What they hold is made a threefry key, whose draws do not.

    Args:
      key: typed or raw; of a raw one the size says which kind it is.
      name: what the error calls it.

    Raises:
      ValueError: for anything but one key; also while tracing.

    >>> bool(one_key(jax.random.PRNGKey(3)) == jax.random.key(3))
    True
    >>> jax.random.key_impl(one_key(jax.random.key(0, impl="rbg")))
    'threefry2x32'
    """
    if not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"{name} must be a random key, as in jax.random.key(0), got {key!r}")
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    shape = f"{list(key.shape)}; vmap over several" if key.ndim else "[]"
    says = f"{name} must be ONE random key, as in jax.random.key(0), got {key.dtype} {shape}"
    if typed:
        require("assert_rank", key, 0, says=says)
        if jax.random.key_impl(key) == THREEFRY:
            return jnp.asarray(key)
        data = jax.random.key_data(key)
    else:
        require("assert_type", key, np.uint32, says=says)
        require("assert_shape", key, ({2, 4},), says=says)
        data = jnp.asarray(key)
    found = jax.random.wrap_key_data(data[:2], impl=THREEFRY)
    for index in range(2, data.size):
        found = jax.random.fold_in(found, data[index])
    return found


def working(x: Any, *, name: str = "x") -> Array:
    """An image in the precision that attacks and maps work in: float32, or float64 as it is.

    Steps of a few 1/255 are about as small as the gaps between half-precision numbers below 1, and
    what is rounded to them leaves the threat model.

    Args:
      x: floating point of any precision.
      name: what the error calls it.

    Raises:
      ValueError: for another type; also while tracing.

    >>> working(jnp.zeros(2, jnp.bfloat16)).dtype
    dtype('float32')
    """
    # NumPy's float64 becomes float32 without a warning here, unless JAX has 64 bits.
    array = x if isinstance(x, jax.Array) else jnp.asarray(x)
    says = (
        f"{name} must be floating point in [0, 1], got dtype {array.dtype}; "
        "divide 8-bit images by 255"
    )
    require("assert_type", array, float, says=says)
    return array.astype(jnp.float32) if array.dtype.itemsize < 4 else array


def takes_label(method: Any) -> bool:
    """Whether an attack, a map or an objective is known to want one class index per example.

    Of what is not ours nothing is known; aims may be anything (a representation, a pair).
    """
    for inner in ("method", "objective"):
        if hasattr(method, inner) and not hasattr(method, "takes_label"):
            return takes_label(getattr(method, inner))
    return bool(getattr(method, "takes_label", False))


def check_label(y: Any, *, name: str = "y", batched: bool = False) -> None:
    """Checks the shape and type of a label `[]`, or of labels `[N]`; also while tracing.

    Raises:
      ValueError: for one-hot rows, another shape, or what are no integers.

    >>> check_label(np.eye(3), name="labels", batched=True)
    Traceback (most recent call last):
    ...
    ValueError: labels must be integers [N], got float64 [3, 3], not class indices
    """
    array = y if hasattr(y, "dtype") else np.asarray(y)
    wanted = "integers [N]" if batched else "an integer [] for each example"
    says = f"{name} must be {wanted}, got {array.dtype} {list(array.shape)}, not class indices"
    require("assert_rank", array, int(batched), says=says)
    require("assert_type", array, int, says=says)


def on_one(
    method: Any, key: Any, model_fn: ModelFn, x: Any, y: Any, *, box: bool = True
) -> tuple[Key, Array, Any]:
    """Key, example and aim as an attack or a map on ONE example has them, everything checked.

    Args:
      method: the attack or map, whose objective says whether it wants a label.
      key: any one key.
      model_fn: the network.
      x: the example.
      y: the label or aim.
      box: whether the example must lie in [0, 1]; a gradient is there anywhere.

    Raises:
      ValueError: for another shape or type, NaN, values outside the box, or a label that the
        network does not have, as far as there are values to look at.
    """
    key, point = one_key(key), working(x)
    if takes_label(method):
        check_label(y)
        # One type, so that it may be compared with a prediction where promotion is strict.
        y = y.astype(jnp.int32) if hasattr(y, "dtype") else y
    if _is_here(point):
        check_range(point, name="x", box=box)
    integers = [leaf for leaf in jax.tree.leaves(y) if _is_index(leaf, 0)]
    if integers:
        _check_classes(integers, model_fn, point.shape)
    return key, point, y


def on_batch(method: Any, key: Any, ids: Any, model_fn: ModelFn, x: Any, y: Any) -> None:
    """Checks what `attack_batch` is given.

    Raises:
      ValueError: as `on_one`, or for leading axes that differ or ids that are not integers.
    """
    one_key(key)
    check_ids(ids)
    count = np.shape(ids)[0]
    says = f"x must have a leading axis of {count}, one image per id, got shape {np.shape(x)}"
    require("assert_axis_dimension", x, 0, count, says=says)
    working(x[:0])
    for leaf in jax.tree.leaves(y):
        if np.shape(leaf)[:1] != (count,):
            shape = f"shape {np.shape(leaf)}"
            raise ValueError(f"y must have a leading axis of {count}, one per id, got {shape}")
    if takes_label(method):
        check_label(y, batched=True)
    if _is_here(x):
        check_range(x, name="x")
    integers = [leaf for leaf in jax.tree.leaves(y) if _is_index(leaf, 1)]
    if integers:
        _check_classes(integers, model_fn, np.shape(x)[1:])


def on_training_batch(batch: Batch) -> None:
    """Checks a batch's shapes and types; also while tracing. A key that it lacks is not asked for.

    Raises:
      ValueError: for images that are no floating-point `[B, H, W, C]`, labels, ids or weights that
        are no integers or numbers `[B]`.
    """
    kinds = {"image": (4, float), "label": (1, int), "id": (1, int), "weight": (1, float)}
    there = {name: kind for name, kind in kinds.items() if name in batch}
    for name, (rank, kind) in there.items():
        leaf = batch[name]
        wanted = f"{kind.__name__} {'[B, H, W, C]' if rank == 4 else '[B]'}"
        says = f"batch[{name!r}] must be {wanted}, got {leaf.dtype} {list(leaf.shape)}"
        require("assert_rank", leaf, rank, says=says)
        require("assert_type", leaf, kind, says=says)
    shapes = {name: list(batch[name].shape) for name in there}
    says = f"batch must have one leading axis, got {shapes}"
    require("assert_equal_shape_prefix", [batch[name] for name in there], 1, says=says)


def _is_here(value: Any) -> bool:
    """Whether the values can be read: not traced, nor spread over other processes' devices."""
    return is_concrete(value) and getattr(value, "is_fully_addressable", True)


def _is_index(leaf: Any, rank: int) -> bool:
    """Whether it may be looked at as one class index per example."""
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return array.ndim == rank and jnp.issubdtype(array.dtype, jnp.integer) and _is_here(leaf)


def _check_classes(indices: list[Any], model_fn: ModelFn, shape: tuple[int, ...]) -> None:
    """Classes, or units and channels of a layer: what is out of range would be clamped."""
    try:
        output = output_of(model_fn, shape)
    except ValueError:
        return  # what takes no such image says so itself, or its objective shows it another
    if output.ndim in (1, 3):
        for leaf in indices:
            check_labels(np.atleast_1d(leaf), num_classes=output.shape[-1], name="y")


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
