"""The maps of `experiments.saliency`: every method for every network, and what they are worth."""

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

ATTRIBUTIONS = ("gradient_times_input", "integrated_gradients", "expected_gradients", "occlusion",
                "grad_cam", "lime")  # fmt: skip
"""Methods whose maps are shares of the score, so that a sign says for or against the class; the
others say how much depends on a pixel."""
EDGES = "edges"  # the control: a map that no network made
BATCH = 5  # small, so that few images take the same compiled program as many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the methods are given.

    Attributes:
      samples: noisy copies, or draws of a baseline.
      sigma: of the noise.
      steps: of integrated gradients.
      layer: of Grad-CAM; None is the last that has positions.
      loss: differentiate the loss at the label, negated, instead of its class score.
      baselines: training images.
    """

    samples: int
    sigma: float
    steps: int
    layer: str | None
    loss: bool
    baselines: np.ndarray


def cam_layer(network: Network, given: str | None = None) -> str:
    """The layer of Grad-CAM: the one that was asked for, or the last with positions.

    Raises:
      ValueError: for an unknown layer, or a network none of whose layers has positions.
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
    """The network as a method wants it."""
    model = network.spec.build()
    if name == "grad_cam":
        return models.split_fn(model, variables, layer=cam_layer(network, options.layer))
    return models.model_fn(models.guided(model) if name.startswith("guided") else model, variables)


def method(name: str, options: Options, size: int) -> Saliency:
    """A method by name, as the experiment uses it on images of a size."""
    # Less loss is more of the class: so signs mean the same either way.
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
    """Every method's maps `[N, H, W, C]` or `[N, H, W]`."""

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

    # LIME silences stderr, which all threads have in common.
    found = side_by_side(draw, [name for name in names if name != "lime"])
    return {name: draw(name) if name == "lime" else found[name] for name in names}


def side_by_side(work: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
    """What a function finds for each name; two at a time, since compiling takes one core only."""
    names = tuple(names)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def total(values: np.ndarray) -> np.ndarray:
    """`[N, H, W]`: how much depends on each pixel, absolute values summed over channels."""
    size = np.abs(np.asarray(values, np.float64))
    return size.sum(axis=-1) if size.ndim == 4 else size


def ranking(name: str, values: np.ndarray) -> np.ndarray:
    """`[N, H, W]`, the larger, the more a pixel speaks for the class, as far as the method says.

    Args:
      name: of the method: signs of attributions count, those of gradients do not.
      values: its maps `[N, H, W, C]` or `[N, H, W]`.
    """
    if name not in ATTRIBUTIONS:
        return total(values)
    array = np.asarray(values, np.float64)
    return array.sum(axis=-1) if array.ndim == 4 else array
