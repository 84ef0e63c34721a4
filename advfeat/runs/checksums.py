"""Checksums of networks, to reject damaged ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.models.network import Network
from advfeat.runs.files import DamagedError, checksum


def network_checksum(network: Network) -> str:
    """Returns a checksum of a network's architecture and of its arrays in float32."""

    def single(leaf: Any) -> np.ndarray:
        host = np.asarray(leaf)
        return host.astype(np.float32) if jnp.issubdtype(host.dtype, jnp.floating) else host

    arrays = jax.tree.map(single, _plain_dicts(network.variables))
    return checksum(arrays, dataclasses.asdict(network.spec))


def check_network(network: Network, name: str, *, expected: Any) -> None:
    """Checks a network against its stored checksum.

    Raises:
      DamagedError: naming the network.
    """
    if network_checksum(network) != expected:
        raise DamagedError(
            f"{name} is damaged: its weights or its architecture are not those that were saved"
        )


def _plain_dicts(tree: Any) -> Any:
    return {k: _plain_dicts(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree
