"""How the time of an attack grows: with images, steps, restarts, classes and devices."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import numpy as np

from . import child, ours
from .flags import Config
from .measure import settings
from .plan import CLASSES, Plan, Work, in_precision, untrained
from .timing import in_turns, once

STEPS, BATCH, DEVICES_BATCH = 10, 16, 128
BUDGET = 10.0
"""Seconds that a point of a curve may take, a work's own budget apart."""


def base(plan: Plan, config: Config) -> Work:
    """Returns the work of which one size is changed: L-infinity PGD on the convolutional net."""
    network = "cnn" if "cnn" in plan.networks else next(iter(plan.networks))
    norm = (config.norms or ("linf",))[0]
    batch = min(BATCH, max(config.batches or (BATCH,)))
    steps = min(STEPS, max(config.attack_steps or (STEPS,)))
    return Work("pgd", network, norm, steps, batch, batch)


def sized(work: Work, axis: str, size: int) -> Work:
    """Returns the work at a size along an axis.

    >>> sized(Work("pgd", "cnn", "linf", 10, 16, 16), "images", 128).name
    'pgd10_linf_cnn_b128'
    """
    if axis == "images":
        return dataclasses.replace(work, count=size, batch=size)
    if axis == "steps":
        return dataclasses.replace(work, steps=size)
    return dataclasses.replace(work, restarts=size) if axis == "restarts" else work


def along(axis: str, plan: Plan, config: Config, place: pathlib.Path) -> dict[str, np.ndarray]:
    """Measures along an axis.

    Returns:
      `sizes` `[S]`, `seconds` `[S, R]` of a call, and `first` `[S]`, that of the first.
    """
    sizes = plan.growth[axis]
    if axis == "devices":
        return _over_devices(sizes, plan, config, place)
    took, first, budget = [], [], min(config.budget, BUDGET)
    for size in sizes:
        contender = ours.contender(*_at(axis, size, plan, config), config.seed)
        jax.clear_caches()
        first.append(once(contender.call)[0])
        warm, _ = once(contender.call)
        took.append(in_turns([contender], [warm], rounds=config.rounds, budget=budget)[0])
    return _arrays(sizes, took, first)


def _at(axis: str, size: int, plan: Plan, config: Config) -> tuple[Work, Plan]:
    work = sized(base(plan, config), axis, size)
    if axis != "classes":
        return work, plan
    name = f"cnn_{size}_classes"
    names = tuple(map(str, range(size)))
    network = untrained("cnn", plan.images.shape[1:], names, seed=config.seed)
    changed = dataclasses.replace(
        plan,
        networks={name: in_precision(network, config.precision)},
        labels=plan.labels % min(CLASSES[0], size),
    )
    return dataclasses.replace(work, network=name), changed


def _over_devices(
    sizes: tuple[int, ...], plan: Plan, config: Config, place: pathlib.Path
) -> dict[str, np.ndarray]:
    """Measures one attack with several numbers of CPU devices that JAX simulates."""
    work = base(plan, config)
    if config.batches is None:
        work = dataclasses.replace(work, count=DEVICES_BATCH, batch=DEVICES_BATCH)
    images, labels = plan.points(work.count)
    folder = place / "devices"
    given = settings(work, plan, repeats=min(config.rounds, 5), threads=0)
    child.leave(folder, plan.networks[work.network], images, labels, given)
    told = [child.start("child", "first_attack", folder, devices=size) for size in sizes]
    for size, each in zip(sizes, told, strict=True):
        if each["devices"] != size:
            raise RuntimeError(f"JAX made {each['devices']} CPU devices instead of {size}")
    return _arrays(sizes, [np.array(t["seconds"]) for t in told], [t["first"] for t in told])


def _arrays(
    sizes: tuple[int, ...], took: list[np.ndarray], first: list[float]
) -> dict[str, np.ndarray]:
    rounds = min(map(len, took))
    return {
        "sizes": np.array(sizes),
        "seconds": np.stack([each[-rounds:] for each in took]),
        "first": np.array(first),
    }
