"""Saliency: which pixels a score depends on. One file per family of methods, one registry line.

An entry makes, from the factory's keyword-only options, a method `(key, model_fn, x, y) -> map` of
ONE example. `advfeat.attack_batch` and `advfeat.attack_dataset` run a method over many; `maps` runs
several over a set of images.
"""

from __future__ import annotations

from advfeat.saliency.alignment import alignment, cosines
from advfeat.saliency.faithfulness import curve, curve_area, infidelity, max_sensitivity
from advfeat.saliency.gradient import Gradient, gradient, gradient_times_input, score_gradient
from advfeat.saliency.layers import Split, grad_cam, layer_gradient, split
from advfeat.saliency.lime_maps import lime
from advfeat.saliency.measures import CURVES, curves, infidelities, sensitivities
from advfeat.saliency.methods import METHODS, Method, Opened, Options, title_of
from advfeat.saliency.occlusion import occlusion
from advfeat.saliency.over_dataset import EDGES, maps, ranking, total
from advfeat.saliency.paths import completeness, expected_gradients, integrated_gradients
from advfeat.saliency.removal import mean_pixel, removed
from advfeat.saliency.sanity import (
    RANDOMISED,
    Randomisation,
    cascading,
    edges,
    independent,
    magnitude,
    picture_likeness,
    randomisation_test,
    rank_correlation,
)
from advfeat.saliency.smooth import smoothgrad
from advfeat.saliency.types import Saliency

__all__ = [
    "CURVES",
    "EDGES",
    "METHODS",
    "RANDOMISED",
    "Gradient",
    "Method",
    "Opened",
    "Options",
    "Randomisation",
    "Saliency",
    "Split",
    "alignment",
    "cascading",
    "completeness",
    "cosines",
    "curve",
    "curve_area",
    "curves",
    "edges",
    "expected_gradients",
    "grad_cam",
    "gradient",
    "gradient_times_input",
    "independent",
    "infidelities",
    "infidelity",
    "integrated_gradients",
    "layer_gradient",
    "lime",
    "magnitude",
    "maps",
    "max_sensitivity",
    "mean_pixel",
    "occlusion",
    "picture_likeness",
    "randomisation_test",
    "rank_correlation",
    "ranking",
    "removed",
    "score_gradient",
    "sensitivities",
    "smoothgrad",
    "split",
    "title_of",
    "total",
]
