"""Summarises `experiments.saliency`: numbers with intervals, and claims."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat import saliency, stats
from advfeat.runs import runner
from advfeat.saliency import CURVES, EDGES, total
from advfeat.stats import Estimate

from ..shared.two_networks import PAIR
from .flags import Config
from .measures import CHECKS, outlines_of
from .plan import Plan


def summarise(
    config: Config,
    plan: Plan,
    found: dict[str, dict[str, np.ndarray]],
    sanity: dict[str, Any],
    numbers: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Returns the summary: numbers with intervals, and claims.

    Args:
      config: the flags.
      plan: the networks and images.
      found: maps by network and method.
      sanity: randomisation tests by network.
      numbers: of `measures.measured`, by network.
    """
    cosines = {
        name: np.abs(saliency.cosines(plan.images, maps["gradient"], centred=True))
        for name, maps in found.items()
    }
    aligned = {
        name: stats.mean(values, limits=stats.CORRELATION) for name, values in cosines.items()
    }
    networks: dict[str, Any] = {
        name: {
            "alignment": aligned[name],
            "alignment_length": stats.mean(_lengths(plan, found[name]["gradient"])),
            "methods": _methods(plan, found[name], numbers[name]),
        }
        for name in plan.networks
    }
    for name in PAIR:
        for check in CHECKS:
            for method, values in numbers[name][check].items():
                networks[name]["methods"][method][check] = _mean(values)
        networks[name]["randomised"] = {
            how: {
                "modules": list(test.modules),
                "rank_correlation": _each(test.rank),
                "ssim": _each(test.ssim),
            }
            for how, test in sanity[name].items()
        }
    claim = stats.claim(
        "The robust network's gradients are better aligned with the image than the standard one's.",
        aligned["robust"],
        aligned["standard"],
        paired=stats.mean(cosines["robust"] - cosines["standard"]),
        margin=stats.SMALL,
    )
    return {
        "dataset": config.dataset,
        "images": len(plan.images),
        "score": "loss" if config.loss else "class score",
        "samples": plan.options.samples,
        "sigma": plan.options.sigma,
        "networks": networks,
        "between": {
            method: _between({name: maps[method] for name, maps in found.items()})
            for method in config.methods
        },
        "claims": runner.judged([claim], config),
    }


def _lengths(plan: Plan, gradients: np.ndarray) -> np.ndarray:
    """Returns `|<x, g>| / |g|`, `[N]`: Etmann et al. (2019), https://arxiv.org/abs/1905.04172."""
    found = jax.vmap(saliency.alignment)(jnp.asarray(plan.images), jnp.asarray(gradients))
    return np.asarray(found)


def _methods(
    plan: Plan, found: dict[str, np.ndarray], numbers: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Compares each method's ranking with the gradient's and the edges', and adds its areas."""
    outlines, curves = outlines_of(plan), numbers["curves"]
    areas = {
        method: np.asarray(jax.vmap(jax.vmap(saliency.curve_area))(jnp.asarray(both)))
        for method, both in curves.items()
    }
    plain = total(found["gradient"])
    return {
        method: {
            "like_gradient": _mean(_correlations(total(values), plain), stats.CORRELATION),
            "like_edges": _mean(_correlations(total(values), total(outlines)), stats.CORRELATION),
            "deletion": _mean(areas[method][0], stats.SHARE),
            "insertion": _mean(areas[method][1], stats.SHARE),
            "curves": {
                way: [_mean(column, stats.SHARE) for column in both.T]
                for way, both in zip(CURVES, curves[method], strict=True)
            },
        }
        for method, values in {**found, EDGES: outlines}.items()
    }


def _between(maps: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns how similarly the maps of every pair of networks rank the pixels."""
    names = list(maps)
    return {
        f"{one} and {other}": _mean(
            _correlations(total(maps[one]), total(maps[other])), stats.CORRELATION
        )
        for index, one in enumerate(names)
        for other in names[index + 1 :]
    }


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.array([saliency.rank_correlation(a, b) for a, b in zip(one, other, strict=True)])


def _each(values: dict[str, np.ndarray]) -> dict[str, list[Estimate | None]]:
    return {
        method: [_mean(column, stats.CORRELATION) for column in array.T]
        for method, array in values.items()
    }


def _mean(values: np.ndarray, limits: tuple[float, float] = stats.FREE) -> Estimate | None:
    """Returns the mean over images with its interval; None if no image has a value.

    Images without a value are omitted: a map of zeros has no relative sensitivity.
    """
    known = np.asarray(values)[np.isfinite(values)]
    return stats.mean(known, limits=limits) if known.size else None
