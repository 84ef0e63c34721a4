"""Measures the maps of one network: curves of all images, checks of a few."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from advfeat import saliency
from advfeat.saliency import EDGES

from ..shared.two_networks import PAIR
from .flags import Config
from .plan import Plan

SEED = 0  # of the measures: the same draws in every run
CHECKS = ("sensitivity", "infidelity")


def outlines_of(plan: Plan) -> np.ndarray:
    """Returns the edges of the images, the control of all maps."""
    return np.array([saliency.edges(image) for image in plan.images])


def measured(
    config: Config, plan: Plan, name: str, found: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Follows the deletion and insertion curves of one network's maps, and checks them.

    Args:
      config: the flags.
      plan: the networks and images.
      name: of the network.
      found: its maps by method.

    Returns:
      "curves" by method `[2, N, P]`; for the pair also "sensitivity" and "infidelity", by method,
      of a few images, because each costs many maps.
    """
    network = plan.networks[name]
    every = {**found, EDGES: outlines_of(plan)}
    key, fn = jax.random.key(SEED), network.model_fn()
    numbers: dict[str, dict[str, Any]] = {
        "curves": saliency.curves(key, every, fn, plan.images, plan.labels)
    }
    if name not in PAIR:
        return numbers
    images, labels = plan.images[plan.few], plan.labels[plan.few]
    some = {method: maps[plan.few] for method, maps in found.items()}
    numbers["sensitivity"] = saliency.sensitivities(
        key, plan.checked, network, images, labels, options=plan.options, samples=3
    )
    numbers["infidelity"] = saliency.infidelities(key, some, fn, images, labels, samples=100)
    return numbers
