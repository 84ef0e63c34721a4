"""The registry of saliency methods: what each is, and how it is made from common options.

A method of your own is one more entry, also from outside of this package:

    saliency.METHODS["mine"] = saliency.Method(mine)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from advfeat.objectives.features import class_score
from advfeat.saliency.gradient import gradient, gradient_times_input
from advfeat.saliency.layers import Split, grad_cam
from advfeat.saliency.lime_maps import lime
from advfeat.saliency.occlusion import occlusion
from advfeat.saliency.paths import expected_gradients, integrated_gradients
from advfeat.saliency.smooth import smoothgrad
from advfeat.types import ModelFn, Objective


class Opened(Protocol):
    """A network in the forms that methods need, such as `advfeat.models.network.Network`."""

    def model_fn(self) -> ModelFn:
        """Returns ONE example -> logits `[K]`."""

    def guided_fn(self) -> ModelFn:
        """Returns the same function with the gradient of guided backpropagation."""

    def split_fn(self, layer: str | None) -> Split:
        """Returns the network split at a layer; None is the last one with spatial positions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options common to the saliency methods; each method uses those that it has.

    Attributes:
      objective: the score to explain, by default the logit of the class.
      samples: number of noisy copies, or of draws of a baseline.
      sigma: standard deviation of the noise, in [0, 1] pixels.
      steps: gradients along the path of integrated gradients.
      layer: layer of Grad-CAM; None is the last layer with spatial positions.
      baselines: `[B, H, W, C]` in [0, 1], images from which expected gradients start.
    """

    objective: Objective = dataclasses.field(default_factory=class_score)
    samples: int = 25
    sigma: float = 0.15
    steps: int = 20
    layer: str | None = None
    baselines: Float[np.ndarray, "B H W C"] | None = None


Chosen = Callable[[Options, tuple[int, ...]], Mapping[str, Any]]
"""Common options, shape `(H, W, C)` of an image -> keyword options of a factory."""


def _none(options: Options, shape: tuple[int, ...]) -> Mapping[str, Any]:
    del options, shape
    return {}


def _plain(network: Opened, options: Options) -> ModelFn:
    del options
    return network.model_fn()


@dataclasses.dataclass(frozen=True)
class Method:
    """An entry of `METHODS`. Called with a factory's keyword options, it makes the method.

    Attributes:
      factory: keyword options -> a method `(key, model_fn, x, y) -> map` of ONE example.
      options: the factory's keyword options, from the common options and the shape of an image; by
        default none.
      attribution: whether a map is made of shares of the score, so that signs count for or against
        the class; the other maps show how strongly the score depends on each pixel.
      slope: whether a map consists of slopes, in units of the score per pixel, so that it predicts
        the effect of small changes.
      view: the form of the network that the method needs.
      on_host: whether the factory makes a function `(key, model_fn, images, labels) -> maps` of a
        whole set in NumPy, for methods of libraries that JAX cannot trace.
      title: the name that its authors write; None is the key with spaces.
    """

    factory: Callable[..., Any]
    options: Chosen = _none
    attribution: bool = False
    slope: bool = False
    view: Callable[[Opened, Options], ModelFn] = _plain
    on_host: bool = False
    title: str | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Makes the method with the factory's own options and defaults."""
        return self.factory(*args, **options)


def _scored(options: Options, shape: tuple[int, ...]) -> Mapping[str, Any]:
    del shape
    return {"objective": options.objective}


def _noisy(options: Options, shape: tuple[int, ...]) -> Mapping[str, Any]:
    del shape
    inner = gradient(options.objective)
    return {"method": inner, "samples": options.samples, "sigma": options.sigma}


def _from_baselines(options: Options, shape: tuple[int, ...]) -> Mapping[str, Any]:
    if options.baselines is None:
        raise ValueError("baselines must hold images for expected_gradients, got None")
    return {
        **_scored(options, shape),
        "baselines": np.asarray(options.baselines),
        "samples": options.samples,
    }


def _covered(options: Options, shape: tuple[int, ...]) -> Mapping[str, Any]:
    size = max(2, shape[0] // 8)
    return {**_scored(options, shape), "size": size, "stride": max(1, size // 2)}


METHODS: dict[str, Method] = {
    "gradient": Method(gradient, _scored, slope=True),
    "gradient_times_input": Method(
        gradient_times_input, _scored, attribution=True, title="gradient × input"
    ),
    "smoothgrad": Method(smoothgrad, _noisy, slope=True, title="SmoothGrad"),
    "smoothgrad_squared": Method(
        partial(smoothgrad, how="squared"), _noisy, title="SmoothGrad squared"
    ),
    "vargrad": Method(partial(smoothgrad, how="variance"), _noisy, title="VarGrad"),
    "integrated_gradients": Method(
        integrated_gradients,
        lambda options, shape: {**_scored(options, shape), "steps": options.steps},
        attribution=True,
    ),
    "expected_gradients": Method(expected_gradients, _from_baselines, attribution=True),
    "guided_backpropagation": Method(
        gradient, _scored, slope=True, view=lambda network, options: network.guided_fn()
    ),
    "grad_cam": Method(
        grad_cam,
        _scored,
        attribution=True,
        view=lambda network, options: network.split_fn(options.layer),
        title="Grad-CAM",
    ),
    "occlusion": Method(occlusion, _covered, attribution=True),
    "lime": Method(
        lime,
        lambda options, shape: {"samples": 10 * options.samples},
        attribution=True,
        on_host=True,
        title="LIME",
    ),
}
"""The methods by name; `maps` takes these names."""


def title_of(name: str) -> str:
    """Returns a method's name as its authors write it; also of a name that is no method.

    >>> title_of("grad_cam"), title_of("expected_gradients")
    ('Grad-CAM', 'expected gradients')
    """
    known = METHODS.get(name)
    return known.title if known is not None and known.title else name.replace("_", " ")
