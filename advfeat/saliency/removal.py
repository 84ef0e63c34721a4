"""Ranks pixels and removes them."""

from __future__ import annotations

import numpy as np

from advfeat import data, saliency
from advfeat.evaluation.prediction import predict
from advfeat.models.network import Network

from ..shared import saliency_maps
from ..shared.saliency_maps import EDGES, total
from .flags import Config
from .plan import RANDOM, Plan


def mean_pixel(split: data.Split) -> np.ndarray:
    """Returns the mean pixel `[C]`, in the images' dtype."""
    mean = split.image.mean(axis=(0, 1, 2), dtype=np.float64)  # float32 sums stall at 2^24
    return (np.round(mean) if split.image.dtype == np.uint8 else mean).astype(split.image.dtype)


def removed(images: np.ndarray, rankings: np.ndarray, share: float, mean: np.ndarray) -> np.ndarray:
    """Replaces the highest-ranked pixels of images by the mean.

    Args:
      images: `[N, H, W, C]`, uint8 or in [0, 1].
      rankings: `[N, H, W]`; larger values are removed first.
      share: share of the pixels, rounded to an integer number of them.
      mean: `[C]`, of the images' dtype.

    Returns:
      `[N, H, W, C]`, of the images' dtype; ties are removed in order.
    """
    count = round(share * rankings[0].size)
    order = np.argsort(-rankings.reshape(len(rankings), -1), axis=1, kind="stable")
    gone = np.zeros((len(images), rankings[0].size), bool)
    np.put_along_axis(gone, order[:, :count], True, axis=1)
    return np.where(gone.reshape(rankings.shape)[..., None], mean, images).astype(images.dtype)


def ranking_of(
    config: Config, plan: Plan, network: Network, split: data.Split, name: str
) -> np.ndarray:
    """Ranks pixels by a method or a control, `[N, H, W]` float32.

    Maps explain the class that the network predicts; maps of the label would leak it to the
    networks retrained on the remaining pixels.
    """
    images = data.unit(split.image)
    if name == RANDOM:
        rng = np.random.default_rng([config.seed, len(split)])
        return rng.random(images.shape[:3], np.float32)
    if name == EDGES:
        return total(np.array([saliency.edges(image) for image in images])).astype(np.float32)
    predicted = np.argmax(predict(network.model_fn(), images), axis=1)
    maps = saliency_maps.maps(
        (name,), network, network.variables, plan.options, images, predicted, seed=config.seed
    )
    return saliency_maps.ranking(name, maps[name]).astype(np.float32)
