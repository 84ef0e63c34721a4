"""Which pixels a network's score depends on: one file per kind of method, and one line here.

Every entry of `METHODS` is a factory of a method `(key, model_fn, x, y) -> map` of ONE example,
options keyword-only. `advfeat.attack_batch` and `advfeat.attack_dataset` run a method over many.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from advfeat.saliency.alignment import alignment
from advfeat.saliency.faithfulness import curve, curve_area, infidelity, max_sensitivity
from advfeat.saliency.gradient import Gradient, gradient, gradient_times_input, score_gradient
from advfeat.saliency.layers import Split, grad_cam, layer_gradient, split
from advfeat.saliency.occlusion import occlusion
from advfeat.saliency.paths import completeness, expected_gradients, integrated_gradients
from advfeat.saliency.sanity import cascading, edges, independent, rank_correlation
from advfeat.saliency.smooth import smoothgrad
from advfeat.saliency.types import Saliency

METHODS: dict[str, Callable[..., Any]] = {
    "gradient": gradient,
    "gradient_times_input": gradient_times_input,
    "smoothgrad": smoothgrad,
    "smoothgrad_squared": partial(smoothgrad, how="squared"),
    "vargrad": partial(smoothgrad, how="variance"),
    "integrated_gradients": integrated_gradients,
    "expected_gradients": expected_gradients,
    "occlusion": occlusion,
    "grad_cam": grad_cam,
}
"""The methods by name. Guided backpropagation is `gradient` of a network of `models.guided`."""

__all__ = [
    "METHODS",
    "Gradient",
    "Saliency",
    "Split",
    "alignment",
    "cascading",
    "completeness",
    "curve",
    "curve_area",
    "edges",
    "expected_gradients",
    "grad_cam",
    "gradient",
    "gradient_times_input",
    "independent",
    "infidelity",
    "integrated_gradients",
    "layer_gradient",
    "max_sensitivity",
    "occlusion",
    "rank_correlation",
    "score_gradient",
    "smoothgrad",
    "split",
]
