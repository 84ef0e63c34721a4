"""Ranks the pixels of a split by a method or a control."""

from __future__ import annotations

import jax
import numpy as np

from advfeat import data, saliency
from advfeat.evaluation.prediction import predict
from advfeat.models.network import Network
from advfeat.saliency import EDGES, total

from .flags import Config
from .plan import RANDOM, Plan


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
    maps = saliency.maps(
        jax.random.key(config.seed), (name,), network, images, predicted, options=plan.options
    )
    return saliency.ranking(name, maps[name]).astype(np.float32)
