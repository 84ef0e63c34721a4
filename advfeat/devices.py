"""How a batch is shared: the rows over devices, everything else replicated on each of them.

Attacks, maps and predictions treat every row alone, so each device runs the same program on its own
rows, without communication (`Shared`). A training step is one program over all devices of all
processes, in which XLA inserts the reductions: losses and batch statistics are those of the whole
batch (`sharded`).

On CPU one program uses several cores poorly. Make one device per core before JAX starts:

    jax.config.update("jax_num_cpu_devices", os.cpu_count())
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from advfeat.rows import padded_rows
from advfeat.types import ModelFn, as_model_fn

AXIS = "data"
CACHED = 24 << 20
"""Bytes of all activations of a forward pass that one CPU device should hold (measured)."""
FEWEST = 8
"""Rows per device below which the overhead of a call outweighs the caches."""

R = TypeVar("R")


@functools.cache
def _mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    # Indexing sharded logits raises under Explicit axes, the default elsewhere.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a one-dimensional mesh of devices over which the rows of a batch are sharded.

    Args:
      devices: by default all devices of all processes.
    """
    return _mesh(tuple(jax.devices() if devices is None else devices))


def local_mesh() -> Mesh | None:
    """Returns the mesh of this process's devices, or None if all work belongs on one.

    That is so with a single device, and where `jax.default_device` names the one to use.
    """
    if jax.config.jax_default_device is not None:  # type: ignore[attr-defined]
        return None
    devices = jax.local_devices()
    return data_mesh(devices) if len(devices) > 1 else None


def training_mesh(batch_size: int) -> Mesh:
    """Returns the mesh that a training uses by default: as many local devices as divide a batch.

    On CPU it is one: there the gradients of the weights use all cores already (the attack is shared
    apart from them, `advfeat.training.apart`; docs/results/speed.md).
    """
    found = [jnp.zeros(()).devices().pop()]  # honours `jax.default_device`
    if found[0].platform != "cpu" and local_mesh() is not None:
        found = jax.local_devices()
    most = max(n for n in range(1, len(found) + 1) if batch_size % n == 0)
    return data_mesh(found[:most])


def padded(count: int) -> int:
    """Returns the number of rows that the devices share evenly: `count` or a little more.

    Fewer rows than devices stay on one.
    """
    mesh = local_mesh()
    if mesh is None or count < mesh.size:
        return count
    return -(-count // mesh.size) * mesh.size


class Shared(Generic[R]):
    """A compiled function of a batch, run on all local devices; every row is treated alone.

    Where there is one device, or arguments are traced or already placed by the caller, it is
    `jax.jit` of the function. Otherwise the rows are padded to a multiple of the devices, each
    device computes its own, and the result stays there: pass it on, fetch it, or bring it `home`.

        @shared("x")
        def logits(model_fn, x): ...
    """

    def __init__(self, fn: Callable[..., R], rows: Sequence[str], static: Sequence[str]) -> None:
        functools.update_wrapper(self, fn)
        self._fn, self._rows, self._static = fn, tuple(rows), tuple(static)
        self._signature = inspect.signature(fn)
        self._alone = jax.jit(fn, static_argnames=self._static)
        self._compiled: dict[Any, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Computes the function; the leaves of its result have the leading axis of the rows."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        by_row = {name: given[name] for name in self._rows}
        whole = {name: v for name, v in given.items() if name not in (*self._rows, *self._static)}
        mesh = local_mesh()
        leaves = jax.tree.leaves(by_row)
        count = np.shape(leaves[0])[0]
        if mesh is None or count < mesh.size or not _placeable(by_row, whole, mesh):
            return self._alone(*args, **kwargs)  # type: ignore[no-any-return]
        room = padded(count)
        if room > count:
            places = np.arange(room) % count
            by_row = jax.tree.map(lambda leaf: leaf[places], by_row)
        static = tuple(given[name] for name in self._static)
        run = self._for(mesh, static)
        result: R = run(_put(whole, _whole(mesh)), _put(by_row, _by_row(mesh)))
        if room > count:
            result = jax.tree.map(lambda leaf: leaf[:count], result)
        return result

    def _for(self, mesh: Mesh, static: tuple[Any, ...]) -> Any:
        """Returns the program for these devices and static arguments."""
        if (mesh, static) not in self._compiled:
            named = dict(zip(self._static, static, strict=True))

            def on_one_device(whole: dict[str, Any], by_row: dict[str, Any]) -> Any:
                return self._fn(**whole, **by_row, **named)

            on_one_device.__name__ = getattr(self._fn, "__name__", "shared")
            each = PartitionSpec(AXIS)
            program = jax.shard_map(
                on_one_device,
                mesh=mesh,
                in_specs=(PartitionSpec(), each),
                out_specs=each,
                check_vma=False,  # nothing is communicated
            )
            self._compiled[mesh, static] = jax.jit(program)
        return self._compiled[mesh, static]

    def _cache_size(self) -> int:
        """Returns the number of programs compiled so far."""
        return sum(fn._cache_size() for fn in (self._alone, *self._compiled.values()))


def shared(*rows: str, static: Sequence[str] = ()) -> Callable[[Callable[..., R]], Shared[R]]:
    """Decorates a function of a batch; see `Shared`.

    Args:
      *rows: names of the arguments with a leading axis of rows (pytrees, or None).
      static: names of its static arguments.
    """
    return lambda fn: Shared(fn, rows, static)


def may_move(rows: Any) -> bool:
    """Tests whether it is ours to say where rows are computed: not traced, on no chosen device."""
    leaves = jax.tree.leaves(rows)
    return not any(
        isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and leaf.committed)
        for leaf in leaves
    )


def _placeable(by_row: Any, whole: Any, mesh: Mesh) -> bool:
    """Tests whether arguments may be placed on the mesh: not traced, and not placed by the caller.

    Rows that the caller committed to a device are computed there. Weights on one device say
    little (a checkpoint is read onto one), so they are copied.
    """
    here = set(mesh.devices.flat)
    for leaf in jax.tree.leaves(whole):
        if isinstance(leaf, jax.core.Tracer):
            return False
        spread = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
        if spread and (leaf.sharding.device_set != here or not leaf.sharding.is_fully_replicated):
            return False
    for leaf in jax.tree.leaves(by_row):
        if isinstance(leaf, jax.core.Tracer):
            return False
        if isinstance(leaf, jax.Array) and leaf.committed and not _is_there(leaf, _by_row(mesh)):
            return False
    return True


@functools.cache
def _by_row(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(AXIS))


@functools.cache
def _whole(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def _is_there(leaf: jax.Array, sharding: NamedSharding) -> bool:
    return leaf.sharding is sharding or leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Places arrays, keys included, in one transfer; the compiled program places NumPy's."""
    leaves, form = jax.tree.flatten(tree)
    moving = [
        place
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, jax.Array) and not _is_there(leaf, sharding)
    ]
    if moving:
        moved = jax.device_put([leaves[place] for place in moving], sharding)
        for place, leaf in zip(moving, moved, strict=True):
            leaves[place] = leaf
    return jax.tree.unflatten(form, leaves)


def everywhere(tree: Any) -> Any:
    """Places weights on all local devices once, before a loop over batches."""
    mesh = local_mesh()
    if mesh is None or not _placeable(None, tree, mesh):
        return tree
    return _put(jax.tree.map(_as_array, tree), _whole(mesh))


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def home(tree: Any) -> Any:
    """Brings arrays that several devices hold to one, where a program for one would have left them.

    Those of several processes must be replicated.
    """

    def bring(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
            return leaf
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jnp.asarray(np.array(jax.random.key_data(leaf)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jnp.asarray(np.array(leaf))  # a copy: donation may free what it came from

    return jax.tree.map(bring, tree)


def in_parts(
    call: Callable[[np.ndarray], Any],
    count: int,
    size: int,
    advance: Callable[[int], Any] | None = None,
) -> Any:
    """Computes a function of rows in parts of one shape, and returns its leaves on the host.

    The next part is dispatched before the last one is fetched, so that no device waits for the
    host.

    Args:
      call: rows (indices, the last part's padded) -> pytree with their leading axis.
      count: number of rows.
      size: rows per part.
      advance: called after each part with its number of rows.
    """
    parts: list[Any] = []
    waiting: tuple[Any, int] | None = None

    def fetch(result: Any, real: int) -> None:
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:real], result))
        if advance is not None:
            advance(real)

    for rows, real in padded_rows(count, size):
        result = call(rows)
        if waiting is not None:
            fetch(*waiting)
        waiting = result, real
    if waiting is not None:
        fetch(*waiting)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def rows_at_once(model_fn: ModelFn, shape: tuple[int, ...], most: int) -> int:
    """Returns how many examples one call should hold.

    A GPU or TPU is fastest with as many as fit. On CPU each device gets a part whose activations
    stay in its cache.

    Args:
      model_fn: the network, for ONE example.
      shape: of an example.
      most: the largest number allowed.
    """
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return most
    try:
        each = CACHED // max(activation_bytes(model_fn, shape), 1)
    except Exception:  # user code: its objective may hand the network another input than x
        return most
    each = max(FEWEST, 1 << max(each.bit_length() - 1, 0))
    return min(most, each * (1 if local_mesh() is None else len(devices)))


@jax.jit
def _forward(model_fn: ModelFn, x: jax.Array) -> jax.Array:
    return model_fn(x)


def activation_bytes(model_fn: ModelFn, shape: tuple[int, ...]) -> int:
    """Returns the bytes of all intermediate results of a forward pass on ONE example.

    What a network computes in a loop counts once.

    >>> activation_bytes(lambda x: jnp.sin(x) + 1.0, (2, 2, 1))
    32
    """
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    return _bytes(_forward.trace(as_model_fn(model_fn), image).jaxpr.jaxpr)


def _bytes(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = [sub for sub in equation.params.values() if hasattr(sub, "jaxpr")]
        if inner:
            total += sum(_bytes(getattr(sub.jaxpr, "jaxpr", sub.jaxpr)) for sub in inner)
        else:
            sizes = [out.aval for out in equation.outvars if hasattr(out.aval, "dtype")]
            total += sum(aval.size * aval.dtype.itemsize for aval in sizes)
    return total


def check_divides(batch_size: int, mesh: Mesh) -> None:
    """Checks that the devices divide the batch evenly.

    Raises:
      ValueError: naming both numbers.
    """
    if batch_size % mesh.size:
        raise ValueError(
            f"a batch of {batch_size} examples cannot be shared by {mesh.size} devices: "
            f"choose a multiple of {mesh.size}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Replicates arrays (host or device), identical in every process, onto all devices."""
    whole = _whole(mesh)

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, (jax.Array, np.ndarray)):
            return leaf  # a number, identical in every process
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        host = np.array(leaf)  # a copy: donation must not free the caller's memory
        return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

    return jax.tree.map(put, tree)


def share_rows(tree: Any, mesh: Mesh) -> Any:
    """Shards arrays `[B, …]`, identical in every process, along their first axis."""
    by_row = _by_row(mesh)

    def put(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, by_row, lambda index: leaf[index])

    return jax.tree.map(put, tree)


def join_rows(tree: Any, mesh: Mesh) -> Any:
    """Assembles global arrays `[B, …]` from the processes' shares `[B / processes, …]`."""
    by_row = _by_row(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(by_row, leaf), tree)


@functools.cache
def sharded(update: Any, mesh: Mesh, **static: Any) -> Any:
    """Compiles an update of a state for sharded rows.

    State and metrics are replicated on every device. Cached, since a new function would be
    recompiled.

    Args:
      update: `(key, state, ...) -> (state, metrics)`, jitted for one device.
      mesh: the devices.
      **static: its static arguments.
    """
    step = functools.partial(update, **static)
    return jax.jit(step, donate_argnums=(1,), out_shardings=_whole(mesh))
