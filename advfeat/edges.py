"""Public boundary of the functional layers: normalises and checks keys, images and labels.

Shapes and types are known even while JAX traces, so they are always checked. Values are checked
only if concrete; under `jit` and `vmap` the caller must check them beforehand. A value check blocks
only on the arrays that it reads.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from advfeat.checks import check_ids, check_labels, check_range, is_concrete
from advfeat.types import Array, Batch, Key, ModelFn, as_model_fn

THREEFRY = "threefry2x32"


def require(assertion: str, *args: Any, says: str) -> None:
    """Runs a static chex assertion and raises a one-line `ValueError` on failure.

    Args:
      assertion: the name of an assertion on shapes or types, such as `assert_rank`.
      args: arguments of the assertion.
      says: message of the error.
    """
    import chex  # on its first use: it takes a third as long as JAX to import

    try:
        getattr(chex, assertion)(*args)
    except AssertionError:
        raise ValueError(says) from None


def one_key(key: Any, *, name: str = "key") -> Key:
    """Converts ONE key of any kind to a typed threefry key.

    Under `vmap`, `rbg` and `unsafe_rbg` keys draw different numbers than without it, so draws would
    depend on the batch. Threefry draws do not, so the key data are converted.

    Args:
      key: typed or raw; the size of a raw key determines its kind.
      name: name in the error message.

    Raises:
      ValueError: for anything but a single key; also while tracing.

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


def working(x: Any, *, name: str = "x") -> Float[Array, " ..."]:
    """Casts an image to the working precision of attacks and maps: float32; float64 is kept.

    Half-precision numbers below 1 are spaced about as widely as steps of a few 1/255, and rounding
    to them leaves the threat model.

    Args:
      x: floating point of any precision.
      name: name in the error message.

    Raises:
      ValueError: for another type; also while tracing.

    >>> working(jnp.zeros(2, jnp.bfloat16)).dtype
    dtype('float32')
    """
    # NumPy float64 becomes float32 without a warning here, unless JAX is in 64-bit mode.
    array = x if isinstance(x, jax.Array) else jnp.asarray(x)
    says = (
        f"{name} must be floating point in [0, 1], got dtype {array.dtype}; "
        "divide 8-bit images by 255"
    )
    require("assert_type", array, float, says=says)
    return array.astype(jnp.float32) if array.dtype.itemsize < 4 else array


def takes_label(method: Any) -> bool:
    """Tests whether an attack, map or objective is known to take one class index per example.

    Unknown for third-party callables, whose aim may be anything (a representation, a pair).
    """
    for inner in ("method", "objective"):
        if hasattr(method, inner) and not hasattr(method, "takes_label"):
            return takes_label(getattr(method, inner))
    return bool(getattr(method, "takes_label", False))


def check_label(y: Any, *, name: str = "y", batched: bool = False) -> None:
    """Checks shape and type of a label `[]`, or of labels `[N]`; also while tracing.

    Raises:
      ValueError: for one-hot rows, another shape, or non-integers.

    >>> check_label(np.eye(3), name="labels", batched=True)
    Traceback (most recent call last):
    ...
    ValueError: labels must be integers [N], got float64 [3, 3] (one-hot rows?), not class indices
    """
    array = y if hasattr(y, "dtype") else np.asarray(y)
    wanted = "integers [N]" if batched else "an integer [] for each example"
    rows = " (one-hot rows?)" if array.ndim == batched + 1 else ""
    found = f"{array.dtype} {list(array.shape)}{rows}"
    says = f"{name} must be {wanted}, got {found}, not class indices"
    require("assert_rank", array, int(batched), says=says)
    require("assert_type", array, int, says=says)


def on_one(
    key: Any, method: Any, model_fn: ModelFn, x: Any, y: Any, *, box: bool = True
) -> tuple[Key, Float[Array, " ..."], Any]:
    """Checks and normalises key, example and aim of an attack or map on ONE example.

    Args:
      key: a single key of any kind.
      method: the attack or map, whose objective determines whether it takes a label.
      model_fn: the network.
      x: the example.
      y: the label or aim.
      box: whether the example must lie in [0, 1]; a gradient exists outside it, too.

    Raises:
      ValueError: for another shape or type and, if values are concrete, NaN, values outside the
        box, or a label outside the network's classes.
    """
    key, point = one_key(key), working(x)
    if takes_label(method):
        check_label(y)
        # int32, so that comparison with a prediction works under strict promotion.
        y = y.astype(jnp.int32) if hasattr(y, "dtype") else y
    if _is_here(point):
        check_range(point, name="x", box=box)
    integers = [leaf for leaf in jax.tree.leaves(y) if _is_index(leaf, 0)]
    if integers:
        _check_classes(integers, model_fn, point.shape)
    return key, point, y


def on_batch(key: Any, method: Any, model_fn: ModelFn, x: Any, y: Any, ids: Any) -> None:
    """Checks the arguments of `attack_batch`.

    Raises:
      ValueError: as `on_one`, or for different leading axes or non-integer ids.
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
    """Checks shapes and types of a batch, also while tracing; missing entries are skipped.

    Raises:
      ValueError: unless images are floating-point `[B, H, W, C]`, labels and ids integers `[B]`,
        and weights floating-point `[B]`.
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
    """Tests whether values can be read: not traced, and addressable by this process."""
    return is_concrete(value) and getattr(value, "is_fully_addressable", True)


def _is_index(leaf: Any, rank: int) -> bool:
    """Tests whether a leaf holds readable class indices, one per example."""
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return array.ndim == rank and jnp.issubdtype(array.dtype, jnp.integer) and _is_here(leaf)


def _check_classes(indices: list[Any], model_fn: ModelFn, shape: tuple[int, ...]) -> None:
    """Checks classes, or units and channels of a layer, which JAX clamps silently."""
    try:
        output = output_of(model_fn, shape)
    except ValueError:
        return  # the network itself raises, or its objective passes another input
    if output.ndim in (1, 3):
        for leaf in indices:
            check_labels(np.atleast_1d(leaf), num_classes=output.shape[-1], name="y")


def output_of(model_fn: ModelFn, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Returns the abstract output of a network for ONE image of a shape, without computing it.

    Raises:
      ValueError: if the network does not take such an image, is not written in JAX, mutates its
        state when called, or returns anything but one array.
    """
    if not callable(model_fn):
        raise ValueError(f"model_fn must be a function, got {model_fn!r}")
    try:
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        output = jax.eval_shape(_apply, as_model_fn(model_fn), image)
    except Exception as error:  # user code may raise anything
        if type(error).__name__ == "TraceContextError":  # a flax error; flax is not imported here
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
    # A single function, so that JAX caches the output of known networks. Traced within a trace, as
    # attacks do: only there does a self-updating module fail.
    return jax.jit(lambda point: model_fn(point))(x)
