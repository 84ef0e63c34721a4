"""Networks on disk, by orbax: what a run keeps and `--checkpoint` takes.

A run directory holds its networks in `networks/NAME/`: `network.json` says which architecture, for
which images and classes; `variables/` holds the arrays. The json is written last, so a network that
has one is whole. It also holds a checksum of architecture and arrays, so that a network which was
damaged later is refused; one of an earlier version, without a checksum, is read with a warning, and
`save_network(path, load_network(path))` gives it one.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore  # orbax's own storage

from advfeat import models
from advfeat.runs.files import CHECKSUM, DamagedError, checksum, read_json, write_json
from advfeat.runs.train_states import disk_error, first_line, only_here, quiet
from advfeat.types import ModelFn

_RECORD = "network.json"


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """What it takes to build a network again.

    Attributes:
      model: its name in `models.names()`.
      class_names: one per logit.
      input_shape: `(H, W, C)`.
      mean: per channel, in [0, 1].
      std: per channel.
      width: None is the architecture's usual one.
      bfloat16: whether it computes in bfloat16 (weights are float32 either way).
      options: the architecture's own options.
    """

    model: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    width: int | None = None
    bfloat16: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def build(self) -> Any:
        """The flax module.

        Raises:
          ValueError: for an unknown model or option.
        """
        return models.create(
            self.model,
            num_classes=len(self.class_names),
            width=self.width,
            mean=self.mean,
            std=self.std,
            dtype=jnp.bfloat16 if self.bfloat16 else jnp.float32,
            **self.options,
        )


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its weights.

    Attributes:
      spec: how it is built.
      variables: its weights and batch statistics.
      record: what else its run kept of it (how it was trained, its data set).
    """

    spec: NetworkSpec
    variables: Any
    record: dict[str, Any]

    def model_fn(self, layer: str = "logits") -> ModelFn:
        """ONE example `[H, W, C]` -> logits `[K]`, or a named layer's activations."""
        return models.model_fn(self.spec.build(), self.variables, layer=layer)


def _checkpointer() -> ocp.Checkpointer:
    # Not the asynchronous one, which several processes cannot use each by itself.
    here = only_here()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=here)
    return ocp.Checkpointer(handler, multiprocessing_options=here)


def save_network(path: str | os.PathLike[str], network: Network) -> None:
    """Writes a network into the directory `path`; a kill leaves none rather than half of one.

    Raises:
      OSError: if the disk is full, or cannot be written to.
    """
    path = pathlib.Path(path).absolute()
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    try:
        with quiet(), _checkpointer() as saver:
            arrays = jax.tree.map(np.asarray, dict(network.variables))
            saver.save(path / "variables", args=ocp.args.StandardSave(arrays))
    except Exception as error:
        reason = disk_error(error)
        if reason is None:
            raise
        shutil.rmtree(path, ignore_errors=True)
        raise reason from error
    write_json(
        path / _RECORD,
        {
            "spec": dataclasses.asdict(network.spec),
            "record": network.record,
            CHECKSUM: network_checksum(network),
        },
    )


def network_checksum(network: Network) -> str:
    """What tells one network from every other: of its architecture and its arrays, in float32."""

    def single(leaf: Any) -> np.ndarray:
        host = np.asarray(leaf)
        return host.astype(np.float32) if jnp.issubdtype(host.dtype, jnp.floating) else host

    arrays = jax.tree.map(single, _plain_dicts(network.variables))
    return checksum(arrays, dataclasses.asdict(network.spec))


def check_network(network: Network, name: str, *, expected: Any) -> None:
    """Raises unless a network is the one whose checksum was kept.

    Raises:
      DamagedError: naming it.
    """
    if network_checksum(network) != expected:
        raise DamagedError(
            f"{name} is damaged: its weights or its architecture are not those that were saved"
        )


def _plain_dicts(tree: Any) -> Any:
    return {k: _plain_dicts(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Whether a whole network lies in `path`."""
    return (pathlib.Path(path) / _RECORD).exists()


def spec_of(fields: Mapping[str, Any]) -> NetworkSpec:
    """A spec from its JSON form, in which tuples are lists."""
    lists = ("class_names", "input_shape", "mean", "std")
    fixed: dict[str, Any] = {
        k: tuple(v) if k in lists and v is not None else v for k, v in fields.items()
    }
    return NetworkSpec(**fixed)


def _read(path: pathlib.Path) -> Network:
    try:
        found = read_json(path / _RECORD)
        spec = spec_of(found["spec"])
        model = spec.build()
        record = dict(found["record"])
        wanted = jax.eval_shape(lambda: models.init(jax.random.key(0), model, spec.input_shape))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"checkpoint {path}: {_RECORD} cannot be used: {first_line(error)}"
        ) from None
    try:
        with quiet(), _checkpointer() as saver:
            arrays = path.absolute() / "variables"
            # Both before orbax reads: what it gives up midway prints tracebacks of its threads.
            _check_whole(arrays)
            _check_shapes(dict(wanted), saver.metadata(arrays).item_metadata)
            variables = saver.restore(arrays, args=ocp.args.StandardRestore(dict(wanted)))
    except Exception as error:
        # Orbax raises many kinds for a truncated file or another tree; to a user they are one.
        raise DamagedError(
            f"checkpoint {path}: its arrays are not those of a {spec.model}: {first_line(error)}"
        ) from None
    network = Network(spec, variables, record)
    if CHECKSUM in found:
        check_network(network, f"checkpoint {path}", expected=found[CHECKSUM])
    else:
        warnings.warn(
            f"checkpoint {path} is of an earlier version and has no checksum: damage to its "
            "weights would not be noticed",
            stacklevel=3,
        )
    return network


def _check_whole(arrays: pathlib.Path) -> None:
    """Raises unless every stored value can be read, one after the other."""
    if not arrays.is_dir():
        raise ValueError("there are none")
    base = {"driver": "file", "path": f"{arrays}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    for name in store.list().result():
        store.read(name).result()


def _check_shapes(wanted: Any, kept: Any) -> None:
    if kept is None:
        raise ValueError("they cannot be read")

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
        return {name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    ours, theirs = shapes(wanted), shapes(kept.tree)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise ValueError(f"{name} is {theirs.get(name)}, not {ours.get(name)}")


def load_network(reference: str) -> Network:
    """Loads a network from a run.

    Args:
      reference: `DIR`, a run that holds one network (or a network's own directory), or
        `DIR:NAME` where a run holds several; `zoo:NAME` for one of `advfeat.zoo`.

    Raises:
      ValueError: if there is none, several and no name, or it cannot be used.
    """
    if reference.startswith("zoo:") and not pathlib.Path(reference).exists():
        from advfeat import zoo  # which keeps networks of this module

        return zoo.load(reference.removeprefix(zoo.PREFIX))
    directory, _, name = reference.rpartition(":")
    if not directory or pathlib.Path(reference).is_dir():
        directory, name = reference, ""
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise ValueError(f"checkpoint {reference}: there is no directory {root}")
    if not name and is_saved(root):
        return _read(root)
    there = sorted(p.parent.name for p in root.glob(f"networks/*/{_RECORD}"))
    if not there:
        raise ValueError(f"checkpoint {reference}: {root} holds no network")
    if not name and len(there) > 1:
        raise ValueError(
            f"checkpoint {reference}: the run holds {', '.join(there)}; write {root}:{there[0]}"
        )
    if name and name not in there:
        raise ValueError(f"checkpoint {reference}: the run holds {', '.join(there)}")
    return _read(root / "networks" / (name or there[0]))


def check_fits(
    network: Network, *, class_names: tuple[str, ...], input_shape: tuple[int, ...], reference: str
) -> None:
    """Raises unless a network was made for these classes and images.

    Raises:
      ValueError: saying what differs.
    """
    spec = network.spec
    if tuple(spec.input_shape) != tuple(input_shape):
        raise ValueError(
            f"checkpoint {reference} takes images of {spec.input_shape}, "
            f"the data set's are {tuple(input_shape)}"
        )
    if spec.class_names != tuple(class_names):
        raise ValueError(
            f"checkpoint {reference} knows the classes {', '.join(spec.class_names)}; "
            f"the data set's are {', '.join(class_names)}"
        )
