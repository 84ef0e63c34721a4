"""Summarises `experiments.benchmark`: ratios, shares of the limit, and why some are missing."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from .check import MEANING
from .flags import Config
from .measure import Measured
from .plan import Plan, Work
from .timing import median

PACKAGES = {
    "torch": "torch",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
    "captum": "captum",
}


def peak(machine: Mapping[str, np.ndarray]) -> float:
    """Returns the best matrix product of the run, in floating-point operations per second."""
    found = [float(machine[f"{name}_flops_per_second"]) for name in ("jax", "torch")]
    return float(np.nanmax(found))


def forward(work: Work, machine: Mapping[str, np.ndarray]) -> float:
    """Returns the floating-point operations of a forward pass of one image."""
    return float(machine["forward_flops"][machine["networks"].tolist().index(work.network)])


def images_done(work: Work) -> int:
    """Returns the images of one call: a training drops the incomplete batch."""
    return work.count - (work.count % work.batch if work.family == "train" else 0)


def flops(work: Work, machine: Mapping[str, np.ndarray], passes: float | None) -> float | None:
    """Returns the arithmetic of one call; None if it is not known.

    Args:
      work: the work.
      machine: with the arithmetic of a forward pass.
      passes: of all images together, as counted by the attack; else the work's own count holds.
    """
    if work.family == "startup":  # of which next to nothing is arithmetic
        return None
    if passes is None or not np.isfinite(passes):
        if work.passes is None:
            return None
        passes = work.passes * images_done(work)
    return float(passes) * forward(work, machine)


def too_long(work: Work, machine: Mapping[str, np.ndarray], config: Config, *, share: float) -> str:
    """Returns why a work is left out, or "": one call would take longer than --longest."""
    needed = flops(work, machine, None)
    seconds = 0.0 if needed is None else needed / (share * peak(machine))
    if seconds <= config.longest:
        return ""
    return f"one call would take about {seconds:.0f} s (--longest={config.longest:g})"


def of_work(work: Work, found: Measured, machine: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns a work's part of the summary."""
    mine, others = found.seconds[0], found.names[1:]
    typical = np.median(found.seconds, axis=1)
    needed = flops(work, machine, found.passes)
    steps = images_done(work) * max(work.steps, 1)
    memory = [None if np.isnan(value) else float(value) for value in found.memory]
    contenders = {
        name: {
            "seconds": median(found.seconds[k]),
            "first_call_seconds": float(found.first[k]),
            "compile_seconds": max(float(found.first[k] - typical[k]), 0.0),
            "peak_memory_bytes": memory[k],
            "result": float(found.values[k]),
            "verdicts_that_differ": None
            if np.isnan(found.differing[k])
            else int(found.differing[k]),
            "image_steps_per_second": None
            if work.family in ("quick", "standard", "startup")
            else steps / float(typical[k]),
        }
        for k, name in enumerate(found.names)
    }
    return {
        "family": work.family,
        "network": work.network,
        "norm": work.norm,
        "steps": work.steps,
        "images": images_done(work),
        "batch": work.batch,
        "compared_by": MEANING[work.family],
        "flops": needed,
        "share_of_limit": None if needed is None else needed / float(typical[0]) / peak(machine),
        "ratio": {name: median(found.seconds[k] / mine) for k, name in enumerate(others, start=1)},
        "ratio_with_compilation": {
            name: float(found.first[k] / found.first[0]) for k, name in enumerate(others, start=1)
        },
        "contenders": contenders,
        "left_out": found.left_out,
    }


def summarise(
    config: Config,
    plan: Plan,
    machine: Mapping[str, np.ndarray],
    measured: Mapping[str, Measured],
    left_out: Mapping[str, str],
    grown: Mapping[str, Mapping[str, np.ndarray]],
    absent: Mapping[str, str],
    threads: int,
) -> dict[str, Any]:
    """Returns the summary of the run."""
    works = {work.name: work for work in plan.works}
    return {
        "dataset": config.dataset,
        "machine": {
            "processor": processor(),
            "threads": threads,
            "precision": config.precision,
            "peers": versions() if config.peers else {},
        },
        "limit": {
            "flops_per_second": peak(machine),
            "jax_flops_per_second": float(machine["jax_flops_per_second"]),
            "torch_flops_per_second": float(machine["torch_flops_per_second"]),
            "bytes_per_second": float(machine["bytes_per_second"]),
            "forward_flops": dict(
                zip(machine["networks"].tolist(), machine["forward_flops"].tolist(), strict=True)
            ),
        },
        "work": {name: of_work(works[name], found, machine) for name, found in measured.items()},
        "not_measured": dict(left_out),
        "peers_left_out": dict(absent) if config.peers else {},
        "growth": {
            axis: {
                "sizes": found["sizes"].tolist(),
                "seconds": [median(values) for values in found["seconds"]],
                "first_call_seconds": found["first"].tolist(),
            }
            for axis, found in grown.items()
        },
    }


def versions() -> dict[str, str]:
    """Returns the versions of the peers that are installed."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Returns the processor's name, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
