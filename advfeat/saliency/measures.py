"""Measures of maps over a set of images: deletion, insertion, sensitivity and infidelity.

Each measure of ONE map stands in `saliency.faithfulness`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_static
from jaxtyping import Float, Integer
from scipy import ndimage

from advfeat.attacks.batch import attack_dataset
from advfeat.edges import one_key
from advfeat.saliency.faithfulness import curve, infidelity, max_sensitivity
from advfeat.saliency.methods import METHODS, Opened, Options
from advfeat.saliency.over_dataset import BATCH, entry, method, opened, ranking, side_by_side
from advfeat.types import Array, Key, ModelFn, pytree, static

CURVES = ("deletion", "insertion")
CURVE_STEPS = 16


def curves(
    key: Key,
    maps: Mapping[str, Float[np.ndarray, "N H W *C"]],
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    steps: int = CURVE_STEPS,
    batch_size: int = BATCH,
) -> dict[str, Float[np.ndarray, "2 N {steps}+1"]]:
    """Traces each image's deletion and insertion curve; pixels are ranked by `ranking`.

    Deletion replaces pixels by the image's mean colour, insertion the blurred image's pixels by its
    own, most important first (`saliency.curve`).

    Args:
      key: a typed key, used by random networks only.
      maps: by method `[N, H, W, C]` or `[N, H, W]`.
      model_fn: the network, for ONE example.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`, the classes whose probability is traced.
      steps: number of intervals of a curve.
      batch_size: images per batch.

    Returns:
      By method `[2, N, steps + 1]` probabilities: deletion, then insertion.
    """
    grey = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    blurred = _blurred(images)
    return {
        name: np.asarray(
            attack_dataset(
                one_key(key),
                _Curves(steps),
                model_fn,
                images,
                (grey, blurred, ranking(name, values).astype(np.float32), labels),
                batch_size=batch_size,
            )
        ).transpose(1, 0, 2)
        for name, values in maps.items()
    }


@register_static
@dataclasses.dataclass(frozen=True)
class _Curves:
    """Both curves of ONE example; its aim is (grey, blurred, ranking, label)."""

    steps: int

    def __call__(
        self, key: Key, fn: ModelFn, x: Array, aim: tuple[Array, Array, Array, Array]
    ) -> Array:
        del key
        flat, soft, ranks, label = aim
        gone = curve(fn, x, flat, ranks, label, steps=self.steps)
        come = curve(fn, soft, x, ranks, label, steps=self.steps)
        return jnp.stack([gone, come])


def _blurred(images: np.ndarray) -> np.ndarray:
    sigma = images.shape[1] / 8
    blurred = ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")
    return np.clip(blurred, 0, 1).astype(np.float32)


def sensitivities(
    key: Key,
    methods: Iterable[str],
    network: Opened | ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    options: Options | None = None,
    samples: int = 10,
    batch_size: int = BATCH,
) -> dict[str, Float[np.ndarray, " N"]]:
    """Measures how far maps move under a tiny change of the image (`saliency.max_sensitivity`).

    Args:
      key: a typed key.
      methods: names in `METHODS`; those on the host are left out.
      network: as for `maps`.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      options: common options of the methods.
      samples: number of draws of the change; the worst one counts.
      batch_size: images per batch.

    Returns:
      By method `[N]`, relative to the map's length; NaN for a map of zeros.
    """
    key, options, here = one_key(key), options or Options(), opened(network)

    def measure(name: str) -> np.ndarray:
        checked = _Sensitivity(method(name, options, images.shape[1:]), samples)
        seen = METHODS[name].view(here, options)
        found = attack_dataset(key, checked, seen, images, labels, batch_size=batch_size)
        return np.asarray(found)

    return side_by_side(measure, [name for name in methods if not entry(name).on_host])


@pytree
class _Sensitivity:
    """`max_sensitivity` as a function of ONE example, for `attack_dataset`."""

    method: Any
    samples: int = static()

    def __call__(self, key: Key, model_fn: ModelFn, x: Array, y: Any) -> Array:
        return max_sensitivity(key, self.method, model_fn, x, y, samples=self.samples)


def infidelities(
    key: Key,
    maps: Mapping[str, Float[np.ndarray, "N H W *C"]],
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    sigma: float = 0.05,
    samples: int = 100,
    batch_size: int = BATCH,
) -> dict[str, Float[np.ndarray, " N"]]:
    """Measures how badly maps predict what noise does to the logit (`saliency.infidelity`).

    Args:
      key: a typed key.
      maps: by method `[N, H, W, C]`; only those are measured whose values are slopes
        (`Method.slope`).
      model_fn: the network, for ONE example.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      sigma: standard deviation of the noise, in [0, 1] pixels.
      samples: number of draws.
      batch_size: images per batch.

    Returns:
      By method `[N]`: 0 for a perfect prediction, 1 for an uninformative map.
    """
    return {
        name: np.asarray(
            attack_dataset(
                one_key(key),
                _Infidelity(sigma, samples),
                model_fn,
                images,
                (values, labels),
                batch_size=batch_size,
            )
        )
        for name, values in maps.items()
        if name in METHODS and METHODS[name].slope
    }


@register_static
@dataclasses.dataclass(frozen=True)
class _Infidelity:
    """`infidelity` as a function of ONE example; its aim is (map, label)."""

    sigma: float
    samples: int

    def __call__(self, key: Key, fn: ModelFn, x: Array, aim: tuple[Array, Array]) -> Array:
        values, label = aim
        return infidelity(key, values, fn, x, label, sigma=self.sigma, samples=self.samples)
