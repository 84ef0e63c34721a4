"""Attacks in processes of their own: what a start costs, and how time falls with devices."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

_SEPARATOR = "/"


def leave(folder: pathlib.Path, network: Any, images: Any, labels: Any, work: Any) -> None:
    """Writes what a child process needs: plain arrays, so that it imports nothing to read them.

    Args:
      folder: is made.
      network: an `advfeat.models.network.Network`.
      images: `[N, H, W, C]`.
      labels: `[N]`.
      work: settings of the attack, as JSON can hold them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "points.npz", images=images, labels=labels)
    np.savez(folder / "weights.npz", **dict(_flat(network.variables, ())))
    spec = dataclasses.asdict(network.spec)
    (folder / "work.json").write_text(json.dumps({**work, "spec": spec}), encoding="utf-8")


def _flat(tree: Any, path: tuple[str, ...]) -> list[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        return [(_SEPARATOR.join(path), np.asarray(tree))]
    return [leaf for name, part in tree.items() for leaf in _flat(part, (*path, name))]


def _nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in arrays:
        *parents, last = path.split(_SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = arrays[path]
    return tree


def start(
    module: str, function: str, folder: pathlib.Path, *, devices: int | None = None
) -> dict[str, Any]:
    """Runs `function(folder)` of a sibling module in a new process and returns what it printed.

    Args:
      module: its name beside this one.
      function: its name; takes the folder.
      folder: as `leave` has written it.
      devices: number of CPU devices that JAX simulates; by default its own choice.

    Returns:
      The last line, as JSON; {} if there is none.

    Raises:
      RuntimeError: if the process fails, with the last line of its errors.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    if "host_platform_device_count" in environment.get("XLA_FLAGS", ""):  # the older way
        environment.pop("XLA_FLAGS")
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # a first attack compiles
    if devices is not None:
        environment |= {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    code = f"from {__package__}.{module} import {function}; {function}({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        told = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise RuntimeError(f"a child process failed: {told[-1]}")
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else {}


def first_attack(folder: str) -> None:
    """Imports, compiles and attacks; prints the seconds of each of `repeats` further attacks."""
    import jax
    import jax.numpy as jnp

    import advfeat
    from advfeat.models.network import Network, NetworkSpec

    place = pathlib.Path(folder)
    given = json.loads((place / "work.json").read_text(encoding="utf-8"))
    spec = given["spec"]
    tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items()}
    with np.load(place / "weights.npz") as arrays:
        network = Network(NetworkSpec(**tuples), _nested(dict(arrays)), {})
    with np.load(place / "points.npz") as arrays:
        x, y = jnp.asarray(arrays["images"]), jnp.asarray(arrays["labels"], jnp.int32)
    attack = advfeat.pgd(
        advfeat.threats.threat_model(given["norm"], given["eps"]),
        steps=given["steps"],
        step_size=given["step_size"],
        random_start=False,
        keep=None,
    )
    key, ids, fn = jax.random.key(0), jnp.arange(len(x)), network.model_fn()

    def once() -> tuple[float, Any]:
        begun = time.perf_counter()
        found = jax.block_until_ready(advfeat.attack_batch(key, attack, fn, x, y, ids=ids))
        return time.perf_counter() - begun, found

    first, found = once()
    np.save(place / "advfeat.npy", np.asarray(found.best.x))
    seconds = [once()[0] for _ in range(given["repeats"])]
    print(json.dumps({"first": first, "seconds": seconds, "devices": jax.device_count()}))
