"""What the machine can do (matrix products, memory bandwidth), and what a network asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from advfeat import devices
from advfeat.models.network import Network


def forward_flops(network: Network) -> float:
    """Returns the floating-point operations of one forward pass of ONE image, as XLA counts them.

    Multiplications and additions count one each; products with zero padding do not count.
    """
    image = jax.ShapeDtypeStruct((1, *network.spec.input_shape), jnp.float32)
    counted = jax.jit(jax.vmap(network.model_fn())).lower(image).cost_analysis()
    found: Any = counted[0] if isinstance(counted, list) else counted
    return float(found["flops"])


def best_seconds(call: Callable[[], Any], *, seconds: float) -> float:
    """Returns the shortest time of a call, repeated for some seconds, at least three times."""
    call()
    took: list[float] = []
    ends = time.perf_counter() + seconds
    while len(took) < 3 or time.perf_counter() < ends:
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return min(took)


def _mesh(rows: int) -> Mesh:
    """Returns the mesh of all CPU devices, if they divide the rows; else of one device."""
    found = jax.devices()
    several = found[0].platform == "cpu" and rows % len(found) == 0
    return devices.data_mesh(found if several else [found[0]])


def jax_matmul(size: int, dtype: Any, *, seconds: float) -> float:
    """Returns the floating-point operations per second of a square matrix product in JAX."""
    rng, mesh = np.random.default_rng(0), _mesh(size)
    left, right = (rng.normal(size=(size, size)).astype(dtype) for _ in range(2))
    left, right = devices.share_rows(left, mesh), devices.replicate(right, mesh)
    product = jax.jit(jnp.dot)
    took = best_seconds(lambda: jax.block_until_ready(product(left, right)), seconds=seconds)
    return 2.0 * size**3 / took


def bandwidth(megabytes: int, *, seconds: float) -> float:
    """Returns the bytes per second of adding 1 to a large array: read once, written once."""
    zeros = np.zeros((megabytes * 2**20 // 4096, 1024), np.float32)
    large = devices.share_rows(zeros, _mesh(len(zeros)))
    add = jax.jit(lambda array: array + 1.0)
    took = best_seconds(lambda: jax.block_until_ready(add(large)), seconds=seconds)
    return 2.0 * large.size * 4 / took
