"""Sanity checks and quantitative measures of saliency methods, for `experiments.saliency`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from tqdm import tqdm

import advfeat
from advfeat import models, saliency
from advfeat.figures import magnitude
from advfeat.images import quality
from advfeat.models.network import Network
from advfeat.types import Array, Key, ModelFn

from .saliency_maps import BATCH, Options, maps, method, ranking, side_by_side, subject

CURVES, CURVE_STEPS = ("deletion", "insertion"), 16
RANDOMISED = {"cascading": saliency.cascading, "independent": saliency.independent}
LOCAL = ("gradient", "smoothgrad", "guided_backpropagation")
"""Methods whose maps are in logits per pixel, so that they predict the effect of small changes."""


@dataclasses.dataclass(frozen=True)
class Randomisation:
    """The change of maps as weights are randomised.

    Attributes:
      modules: in the order of their randomisation.
      rank: by method `[N, M]`, rank correlation with the trained network's map.
      ssim: by method `[N, M]`, structural similarity of the displayed maps.
      first: by method `[M + 1]` maps of the first image, starting with the trained network's.
    """

    modules: tuple[str, ...]
    rank: dict[str, np.ndarray]
    ssim: dict[str, np.ndarray]
    first: dict[str, list[np.ndarray]]


def randomised(
    how: str,
    names: tuple[str, ...],
    network: Network,
    options: Options,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
) -> Randomisation:
    """Performs the cascading or the independent randomisation test of Adebayo et al.

    Args:
      how: one of `RANDOMISED`.
      names: of the methods.
      network: the trained network.
      options: of the methods.
      images: `[N, H, W, C]`.
      labels: `[N]`.
      seed: of the random weights and the methods' draws.
    """
    model, shape = network.spec.build(), network.spec.input_shape
    order = models.module_names(model, shape)
    trained = _by_module(network.variables)
    fresh = _by_module(models.init(jax.random.key(seed), model, shape))
    start = maps(names, network, network.variables, options, images, labels, seed=seed)
    steps = list(RANDOMISED[how](trained, fresh, order))
    rank: dict[str, list[Any]] = {name: [] for name in names}
    likeness: dict[str, list[Any]] = {name: [] for name in names}
    first = {name: [start[name][0]] for name in names}
    for _, modules in tqdm(steps, desc=how, unit="module"):
        variables = _by_collection(modules)
        now = maps(names, network, variables, options, images, labels, seed=seed)
        for name in names:
            pairs = list(zip(start[name], now[name], strict=True))
            rank[name].append([saliency.rank_correlation(a, b) for a, b in pairs])
            likeness[name].append([picture_likeness(a, b) for a, b in pairs])
            first[name].append(now[name][0])
    return Randomisation(
        tuple(name for name, _ in steps),
        {name: np.array(values).T for name, values in rank.items()},
        {name: np.array(values).T for name, values in likeness.items()},
        first,
    )


def _by_module(variables: Any) -> dict[str, dict[str, Any]]:
    """Regroups variables by module: statistics are randomised together with a module's weights."""
    found: dict[str, dict[str, Any]] = {}
    for collection, modules in dict(variables).items():
        for module, leaves in dict(modules).items():
            found.setdefault(module, {})[collection] = leaves
    return found


def _by_collection(modules: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for module, collections in modules.items():
        for collection, leaves in collections.items():
            found.setdefault(collection, {})[module] = leaves
    return found


def picture_likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the SSIM of two displayed maps: absolute values, each on its own scale."""
    return quality.ssim(magnitude(one)[..., None], magnitude(other)[..., None])


def curves(
    found: dict[str, np.ndarray], fn: ModelFn, images: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes each image's two `CURVES`, by method `[2, N, CURVE_STEPS + 1]`.

    Args:
      found: maps by method.
      fn: the network, for ONE example.
      images: `[N, H, W, C]`.
      labels: `[N]`, the classes whose probability is plotted.
    """
    grey = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    blurred = _blurred(images)
    return {
        name: np.asarray(
            advfeat.attack_dataset(
                _curves,
                jax.random.key(0),
                fn,
                images,
                (grey, blurred, ranking(name, values).astype(np.float32), labels),
                batch_size=BATCH,
            )
        ).transpose(1, 0, 2)
        for name, values in found.items()
    }


def _curves(key: Key, fn: ModelFn, x: Array, aim: tuple[Array, Array, Array, Array]) -> Array:
    del key
    flat, soft, ranks, label = aim
    gone = saliency.curve(fn, x, flat, ranks, label, steps=CURVE_STEPS)
    come = saliency.curve(fn, soft, x, ranks, label, steps=CURVE_STEPS)
    return jnp.stack([gone, come])


def _blurred(images: np.ndarray) -> np.ndarray:
    sigma = images.shape[1] / 8
    blurred = ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")
    return np.clip(blurred, 0, 1).astype(np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Sensitivity:
    """`saliency.max_sensitivity` as a function of ONE example, for `attack_dataset`."""

    method: Any
    samples: int = dataclasses.field(metadata={"static": True})

    def __call__(self, key: Key, model_fn: ModelFn, x: Array, y: Any) -> Array:
        return saliency.max_sensitivity(self.method, key, model_fn, x, y, samples=self.samples)


def sensitivities(
    names: tuple[str, ...],
    network: Network,
    options: Options,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    samples: int,
) -> dict[str, np.ndarray]:
    """Measures, by method `[N]`, how far a map moves under a tiny change of the image."""

    def measure(name: str) -> np.ndarray:
        checked = _Sensitivity(method(name, options, images.shape[1]), samples)
        seen = subject(name, network, network.variables, options)
        return np.asarray(
            advfeat.attack_dataset(
                checked, jax.random.key(0), seen, images, labels, batch_size=BATCH
            )
        )

    return side_by_side(measure, [name for name in names if name != "lime"])


def infidelities(
    found: dict[str, np.ndarray],
    fn: ModelFn,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    samples: int,
) -> dict[str, np.ndarray]:
    """Measures by local method `[N]` how badly its map predicts what noise does to the logit."""
    return {
        name: np.asarray(
            advfeat.attack_dataset(
                _Infidelity(samples),
                jax.random.key(0),
                fn,
                images,
                (found[name], labels),
                batch_size=BATCH,
            )
        )
        for name in LOCAL
        if name in found
    }


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Infidelity:
    """`saliency.infidelity` as a function of ONE example; its aim is (map, label)."""

    samples: int

    def __call__(self, key: Key, fn: ModelFn, x: Array, aim: tuple[Array, Array]) -> Array:
        values, label = aim
        return saliency.infidelity(values, key, fn, x, label, sigma=0.05, samples=self.samples)
