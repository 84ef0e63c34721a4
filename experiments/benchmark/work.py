"""Runs `experiments.benchmark`: measures the machine, then every work, then growth."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import pathlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory
from advfeat.runs.provenance import cores

from . import growth, limits, peers, report, summary
from .flags import Config
from .measure import Measured, measure
from .plan import Plan, Work, prepare

LIKELY_SHARE = 0.3
"""Share of the limit by which a call's time is foreseen, for --longest."""
_SIZES = {"cpu": (1024, 2048), "gpu": (4096, 8192), "tpu": (4096, 8192)}


@contextlib.contextmanager
def conditions(config: Config) -> Iterator[None]:
    """Holds what all measurements have in common: precision, and compilation that is not cached."""
    changed: dict[str, Any] = {}
    if jax.default_backend() != "cpu":  # whose products are exact in any case
        names = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}
        changed["jax_default_matmul_precision"] = names[config.precision]
    if not config.dry_run:
        changed["jax_enable_compilation_cache"] = False
    before = {name: getattr(jax.config, name) for name in changed}
    for name, value in changed.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def sizes(config: Config) -> tuple[int, ...]:
    """Returns the sides of the matrices that are multiplied to find the limit."""
    if config.dry_run:
        return (256,)
    if config.precision == "bfloat16" and jax.default_backend() == "cpu":
        return (512,)  # a CPU without bfloat16 arithmetic would take minutes for larger ones
    return _SIZES[jax.default_backend()]


def best_product(config: Config, *, seconds: float) -> float:
    """Returns the floating-point operations per second of JAX's best matrix product.

    It is measured again before each work, and the run's best counts: a moment in which the machine
    was busy must not lower the limit.
    """
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32
    return max(limits.jax_matmul(size, dtype, seconds=seconds) for size in sizes(config))


def limit(config: Config, plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures the machine: best matrix products, bandwidth; and counts forward passes."""
    seconds = 0.05 if config.dry_run else 1.0
    torch_best = math.nan
    if config.peers and importlib.util.find_spec("torch") is not None:
        from .torch_peers import matmul

        torch_best = max(
            matmul(size, config.precision, cores(), seconds=seconds) for size in sizes(config)
        )
    names = sorted(plan.networks)
    arrays = {
        "jax_flops_per_second": best_product(config, seconds=seconds),
        "torch_flops_per_second": torch_best,
        "bytes_per_second": limits.bandwidth(8 if config.dry_run else 256, seconds=seconds),
        "networks": np.array(names),
        "forward_flops": np.array([limits.forward_flops(plan.networks[n]) for n in names]),
    }
    return arrays, {"threads": cores(), "precision": config.precision}


def _of_work(
    work: Work, plan: Plan, config: Config, place: pathlib.Path
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    product = best_product(config, seconds=0.3)
    arrays = measure(work, plan, config, place, cores()).arrays()
    return {**arrays, "flops_per_second": np.array(product)}, {"work": work.name}


def _of_growth(
    axis: str, plan: Plan, config: Config, place: pathlib.Path
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return growth.along(axis, plan, config, place), {"axis": axis}


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Measures, each work once and for all, and reports."""
    absent = peers.missing(config)
    if config.peers:
        for name, reason in absent.items():
            print(f"{peers.TITLES[name]}: {reason}")
    place = run.path / "children"
    with conditions(config), tqdm(total=len(plan.works) + len(plan.growth), unit="work") as bar:
        machine = run.cached("limit", lambda: limit(config, plan))
        measured: dict[str, Measured] = {}
        products = [float(machine["jax_flops_per_second"])]
        left_out: dict[str, str] = {}
        for each in plan.works:
            bar.set_postfix_str(each.name)
            reason = summary.too_long(each, machine, config, share=LIKELY_SHARE)
            if reason:
                left_out[each.name] = reason
            else:
                compute = partial(_of_work, each, plan, config, place)
                arrays = run.cached(f"works/{each.name}", compute)
                measured[each.name] = Measured.read(arrays)
                products.append(float(arrays["flops_per_second"]))
            bar.update()
        grown = {}
        for axis in plan.growth:
            bar.set_postfix_str(f"growth with {axis}")
            grown[axis] = run.cached(
                f"growth/{axis}", partial(_of_growth, axis, plan, config, place)
            )
            bar.update()
    machine = {**machine, "jax_flops_per_second": np.array(max(products))}
    told = summary.summarise(config, plan, machine, measured, left_out, grown, absent, cores())
    return runner.reported(run, told, lambda: report.write(config, plan, run, told))


run = runner.Experiment("benchmark", prepare, work)
