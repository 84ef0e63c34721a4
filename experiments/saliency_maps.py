"""The maps of `experiments.saliency`: every method for every network, and what they are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import models, saliency
from advfeat.checkpoints import Network
from advfeat.figures import magnitude
from advfeat.keys import stream
from advfeat.saliency import Saliency
from advfeat.scores import class_score
from advfeat.types import ModelFn

METHODS = (
    "gradient",
    "gradient_times_input",
    "smoothgrad",
    "smoothgrad_squared",
    "vargrad",
    "integrated_gradients",
    "expected_gradients",
    "guided_backpropagation",
    "grad_cam",
    "occlusion",
)
EDGES = "edges"  # the control: a map that no network made
BATCH = 25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the methods are given.

    Attributes:
      samples: noisy copies, or draws of a baseline.
      sigma: of the noise.
      steps: of integrated gradients.
      layer: of Grad-CAM; None is the last that has positions.
      loss: differentiate the loss at the label instead of its class score.
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
    known = models.layer_names(model, shape)
    if given is not None:
        if given not in known:
            raise ValueError(f"flag --layer={given}: must be one of {', '.join(known)}")
        return given
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    for name in reversed(known):
        found = jax.eval_shape(models.model_fn(model, network.variables, layer=name), image)
        if len(found.shape) == 3:
            return name
    raise ValueError(f"{network.spec.model} has no layer with positions: Grad-CAM needs one")


def subject(name: str, network: Network, variables: Any, options: Options) -> ModelFn:
    """The network as a method wants it."""
    model = network.spec.build()
    if name == "grad_cam":
        return models.split_fn(model, variables, layer=cam_layer(network, options.layer))
    return models.model_fn(models.guided(model) if name.startswith("guided") else model, variables)


def method(name: str, options: Options, size: int) -> Saliency:
    """A method by name, as the experiment uses it on images of a size."""
    score = advfeat.untargeted() if options.loss else class_score()
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
    found = {}
    for name in names:
        made = advfeat.attack_dataset(
            method(name, options, images.shape[1]),
            stream(jax.random.key(seed), name),
            subject(name, network, variables, options),
            images,
            labels,
            batch_size=BATCH,
        )
        found[name] = np.asarray(made)
    return found


def alignments(network: Network, options: Options, images: np.ndarray, labels: np.ndarray) -> Any:
    """`[N]`, the absolute cosine of image and gradient, both without their mean."""
    names = ("gradient",)
    found = maps(names, network, network.variables, options, images, labels, seed=0)["gradient"]

    def cosine(x: jax.Array, g: jax.Array) -> jax.Array:
        centred = x - jnp.mean(x)
        return saliency.alignment(centred, g - jnp.mean(g)) / jnp.linalg.norm(centred.ravel())

    return np.asarray(jax.vmap(cosine)(jnp.asarray(images), jnp.asarray(found)))


def randomised(
    names: tuple[str, ...],
    network: Network,
    options: Options,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The cascading test: rank correlations with the maps of the trained network.

    Returns:
      The modules, in the order they are randomised, and by method `[N, modules]`.
    """
    model, shape = network.spec.build(), network.spec.input_shape
    order = models.module_names(model, shape)
    fresh = models.init(jax.random.key(seed), model, shape)["params"]
    rest = {k: v for k, v in network.variables.items() if k != "params"}
    start = maps(names, network, network.variables, options, images, labels, seed=seed)
    correlations: dict[str, list[list[float]]] = {name: [] for name in names}
    steps = list(saliency.cascading(network.variables["params"], fresh, order))
    for _, params in tqdm(steps, desc="randomised", unit="module"):
        variables = {"params": params, **rest}
        now = maps(names, network, variables, options, images, labels, seed=seed)
        for name in names:
            pairs = zip(start[name], now[name], strict=True)
            correlations[name].append([saliency.rank_correlation(a, b) for a, b in pairs])
    return tuple(name for name, _ in steps), {
        name: np.array(values).T for name, values in correlations.items()
    }


def areas(
    found: dict[str, np.ndarray], fn: ModelFn, images: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """By method `[2, N]`: areas under the deletion and the insertion curve."""
    x, y = jnp.asarray(images), jnp.asarray(labels)
    grey = jnp.broadcast_to(jnp.mean(x, axis=(1, 2), keepdims=True), x.shape)
    blurred = jnp.asarray(_blurred(images))

    @jax.jit
    def both(fn: ModelFn, ranking: jax.Array) -> jax.Array:
        def one(image: Any, flat: Any, soft: Any, rank: Any, label: Any) -> jax.Array:
            gone = saliency.curve(fn, image, flat, rank, label, steps=16)
            come = saliency.curve(fn, soft, image, rank, label, steps=16)
            return jnp.stack([saliency.curve_area(gone), saliency.curve_area(come)])

        return jax.vmap(one)(x, grey, blurred, ranking, y)

    return {
        name: np.asarray(both(fn, jnp.asarray(np.array([magnitude(m) for m in values])))).T
        for name, values in found.items()
    }


def _blurred(images: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    sigma = images.shape[1] / 8
    blurred = ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")
    return np.clip(blurred, 0, 1).astype(np.float32)
