"""Computes the saliency maps of every method for a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import models, saliency
from advfeat.edges import output_of
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.objectives.features import class_score
from advfeat.saliency import Saliency
from advfeat.types import ModelFn

from .lime_maps import lime_maps
from .pairs import check_layer

T = TypeVar("T")

ATTRIBUTIONS = (
    "gradient_times_input",
    "integrated_gradients",
    "expected_gradients",
    "occlusion",
    "grad_cam",
    "lime",
)
"""Methods whose maps are shares of the score: signs count for or against the class. The maps of the
others show how strongly the score depends on each pixel."""
EDGES = "edges"  # the control: an edge map, computed without a network
BATCH = 5  # small, so that few images use the same compiled program as many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the saliency methods.

    Attributes:
      samples: number of noisy copies, or of draws of a baseline.
      sigma: standard deviation of the noise.
      steps: of integrated gradients.
      layer: of Grad-CAM; None is the last layer with spatial positions.
      loss: whether to differentiate the negated loss at the label instead of the class score.
      baselines: training images.
    """

    samples: int
    sigma: float
    steps: int
    layer: str | None
    loss: bool
    baselines: np.ndarray


def cam_layer(network: Network, given: str | None = None) -> str:
    """Returns the layer of Grad-CAM: the requested one, or the last with spatial positions.

    Raises:
      ValueError: for an unknown layer, or if no layer of the network has positions.
    """
    model, shape = network.spec.build(), network.spec.input_shape
    if given is not None:
        check_layer(given, network)
    for name in reversed(models.layer_names(model, shape)) if given is None else [given]:
        found = output_of(models.model_fn(model, network.variables, layer=name), shape)
        if len(found.shape) == 3:
            return name
    if given is not None:
        raise ValueError(f"flag --layer={given}: has no positions, which Grad-CAM needs")
    raise ValueError(f"{network.spec.model} has no layer with positions: Grad-CAM needs one")


def subject(name: str, network: Network, variables: Any, options: Options) -> ModelFn:
    """Returns the network in the form that a method needs."""
    model = network.spec.build()
    if name == "grad_cam":
        return models.split_fn(model, variables, layer=cam_layer(network, options.layer))
    return models.model_fn(models.guided(model) if name.startswith("guided") else model, variables)


def method(name: str, options: Options, size: int) -> Saliency:
    """Returns a method by name, with the experiment's settings for images of a size."""
    # A lower loss means more of the class, so signs have the same meaning either way.
    score = advfeat.targeted() if options.loss else class_score()
    plain = saliency.gradient(score)
    noisy: dict[str, Any] = {"samples": options.samples, "sigma": options.sigma}
    patch = max(2, size // 8)
    makers: dict[str, Callable[[], Saliency]] = {
        "gradient": lambda: plain,
        "gradient_times_input": lambda: saliency.gradient_times_input(score),
        "smoothgrad": lambda: saliency.smoothgrad(plain, **noisy),
        "smoothgrad_squared": lambda: saliency.smoothgrad(plain, how="squared", **noisy),
        "vargrad": lambda: saliency.smoothgrad(plain, how="variance", **noisy),
        "integrated_gradients": lambda: saliency.integrated_gradients(score, steps=options.steps),
        "expected_gradients": lambda: saliency.expected_gradients(
            jnp.asarray(options.baselines), score, samples=options.samples
        ),
        "guided_backpropagation": lambda: plain,
        "grad_cam": lambda: saliency.grad_cam(score),
        "occlusion": lambda: saliency.occlusion(score, size=patch, stride=max(1, patch // 2)),
    }
    return makers[name]()


def maps(
    names: tuple[str, ...],
    network: Network,
    variables: Any,
    options: Options,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
) -> dict[str, np.ndarray]:
    """Computes every method's maps, `[N, H, W, C]` or `[N, H, W]`."""

    def draw(name: str) -> np.ndarray:
        if name == "lime":
            fn = models.model_fn(network.spec.build(), variables)
            return lime_maps(fn, images, labels, samples=10 * options.samples, seed=seed)
        return np.asarray(
            advfeat.attack_dataset(
                method(name, options, images.shape[1]),
                stream(jax.random.key(seed), name),
                subject(name, network, variables, options),
                images,
                labels,
                batch_size=BATCH,
            )
        )

    # LIME silences stderr, which is shared by all threads.
    found = side_by_side(draw, [name for name in names if name != "lime"])
    return {name: draw(name) if name == "lime" else found[name] for name in names}


def side_by_side(work: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
    """Maps a function over names, two at a time, because compiling uses only one core."""
    names = tuple(names)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def total(values: np.ndarray) -> np.ndarray:
    """Sums absolute values over channels, `[N, H, W]`: how much depends on each pixel."""
    size = np.abs(np.asarray(values, np.float64))
    return size.sum(axis=-1) if size.ndim == 4 else size


def ranking(name: str, values: np.ndarray) -> np.ndarray:
    """Ranks pixels, `[N, H, W]`: larger values speak for the class, as far as the method tells.

    Args:
      name: the method: signs of attributions count, those of gradients do not.
      values: the method's maps, `[N, H, W, C]` or `[N, H, W]`.
    """
    if name not in ATTRIBUTIONS:
        return total(values)
    array = np.asarray(values, np.float64)
    return array.sum(axis=-1) if array.ndim == 4 else array
