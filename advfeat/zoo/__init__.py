"""Trained networks included in the package, so that every figure can be made in seconds.

Each consists of `NAME.npz`, plain arrays (weights in half precision, batch statistics in single),
and `NAME.json`, its card: architecture, training command and measurements. Every `--checkpoint`
accepts `zoo:NAME`.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import io
import json
import os
import pathlib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.models.network import Network, spec_of
from advfeat.runs.checksums import check_network, network_checksum
from advfeat.runs.files import CHECKSUM, DamagedError, write_bytes, write_json
from advfeat.runs.train_states import first_line

PREFIX = "zoo:"
_BETWEEN = "/"  # separates the names in an array's path
_SINGLE = "batch_stats"  # variances may exceed the range of half precision


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split(_BETWEEN)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def _shelf() -> Traversable:
    return importlib.resources.files(__package__)


def names() -> tuple[str, ...]:
    """Returns the names of the networks in the zoo."""
    files = (entry.name for entry in _shelf().iterdir())
    return tuple(sorted(name.removesuffix(".npz") for name in files if name.endswith(".npz")))


def card(name: str) -> dict[str, Any]:
    """Returns a network's card: `spec`, `command`, `numbers` and how it was trained.

    Raises:
      ValueError: for an unknown name, or an unreadable card.
    """
    if name not in names():
        known = ", ".join(names()) or "none yet"
        raise ValueError(f"the zoo holds {known}; not {name!r}")
    try:
        found: dict[str, Any] = json.loads((_shelf() / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(
            f"checkpoint {PREFIX}{name}: its card cannot be read: {first_line(error)}"
        ) from error
    return found


def load(name: str) -> Network:
    """Loads a trained network.

    Args:
      name: one of `names()`.

    Returns:
      The network; `network.model_fn()` maps ONE example `[H, W, C]` in [0, 1] to logits `[K]`, and
      `network.record` is its card.

    Raises:
      ValueError: for an unknown name, or files that differ from those that were packed.
    """
    about, named = card(name), f"checkpoint {PREFIX}{name}"
    try:
        with np.load(io.BytesIO((_shelf() / f"{name}.npz").read_bytes())) as arrays:
            flat = {key: jnp.asarray(arrays[key], jnp.float32) for key in arrays.files}
        network = Network(spec_of(about["spec"]), _nested(flat), about)
        expected = about[CHECKSUM]
    except Exception as error:  # a damaged zip or card raises many kinds
        raise DamagedError(f"{named} is damaged: {first_line(error)}") from error
    check_network(network, named, expected=expected)
    return network


def halved(network: Network) -> Network:
    """Rounds a network's weights to half precision, as stored in the zoo.

    Raises:
      ValueError: if a weight exceeds the range of half precision.
    """
    variables = {
        collection: jax.tree.map(
            lambda leaf: np.asarray(
                leaf,
                np.float32 if collection == _SINGLE else np.float16,  # noqa: B023
            ),
            tree,
        )
        for collection, tree in dict(network.variables).items()
    }
    for leaf in jax.tree.leaves(variables):
        if not np.isfinite(leaf).all():
            raise ValueError("the network has weights that half precision cannot hold")
    return dataclasses.replace(network, variables=variables)


def pack(
    folder: str | os.PathLike[str], name: str, network: Network, about: Mapping[str, Any]
) -> int:
    """Writes a network and its card to a folder, in the zoo's format.

    Args:
      folder: the destination.
      name: of the network; letters, digits and underscores.
      network: the trained network.
      about: the card's entries besides the architecture, JSON-serialisable.

    Returns:
      The size of the array file in bytes.

    Raises:
      ValueError: for an invalid name, or weights beyond the range of half precision.
    """
    if not name.isidentifier():
        raise ValueError(f"name must be letters, digits and underscores, got {name!r}")
    leaves = jax.tree_util.tree_leaves_with_path(halved(network).variables)
    flat = {
        jax.tree_util.keystr(path, simple=True, separator=_BETWEEN): leaf for path, leaf in leaves
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **flat)
    path = pathlib.Path(folder) / name
    card = {
        "spec": dataclasses.asdict(network.spec),
        CHECKSUM: network_checksum(halved(network)),
        **about,
    }
    write_json(path.with_suffix(".json"), card)
    write_bytes(path.with_suffix(".npz"), buffer.getvalue())
    return len(buffer.getvalue())


__all__ = ["PREFIX", "card", "halved", "load", "names", "pack"]
