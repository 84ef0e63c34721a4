"""Saves and loads networks with orbax: the networks of a run, as `--checkpoint` takes them.

A run directory holds its networks in `networks/NAME/`: `network.json` records the architecture, the
image shape and the classes; `variables/` holds the arrays. The json is written last, so a network
that has one is complete. It also records a checksum of architecture and arrays, so that a network
damaged later is rejected. A network saved by an earlier version, without a checksum, is loaded with
a warning; `save_network(path, load_network(path))` adds the checksum.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import shutil
import warnings
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore  # orbax's own storage

from advfeat import models, zoo
from advfeat.models.network import Network, spec_of
from advfeat.runs.checksums import check_network, network_checksum
from advfeat.runs.files import CHECKSUM, DamagedError, read_json, write_json
from advfeat.runs.train_states import disk_error, first_line, only_here, quiet

_RECORD = "network.json"


def _checkpointer() -> ocp.Checkpointer:
    # Synchronous: several processes cannot each use the asynchronous checkpointer on their own.
    here = only_here()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=here)
    return ocp.Checkpointer(handler, multiprocessing_options=here)


def save_network(path: str | os.PathLike[str], network: Network) -> None:
    """Writes a network into the directory `path`; a kill never leaves a partial network.

    Raises:
      OSError: if the disk is full or not writable.
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


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Returns whether `path` holds a complete network."""
    return (pathlib.Path(path) / _RECORD).exists()


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
            # Both checks before orbax reads: when it fails midway, its threads print tracebacks.
            _check_whole(arrays)
            _check_shapes(dict(wanted), saver.metadata(arrays).item_metadata)
            variables = saver.restore(arrays, args=ocp.args.StandardRestore(dict(wanted)))
    except Exception as error:
        # Orbax raises many kinds for a truncated file or another tree; users see a single one.
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
    """Raises unless every stored value can be read."""
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
    """Loads a network from a run or from the zoo.

    Args:
      reference: `DIR`, a run that holds one network (or a network's own directory); `DIR:NAME` for
        a run with several; `zoo:NAME` for one of `advfeat.zoo`.

    Raises:
      ValueError: if there is no such network, the name is ambiguous, or the network is unusable.
    """
    if reference.startswith("zoo:") and not pathlib.Path(reference).exists():
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
    """Checks that a network was made for these classes and images.

    Raises:
      ValueError: naming the difference.
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
