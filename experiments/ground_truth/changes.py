"""Computes a network's counterfactuals and pictures."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

import advfeat
from advfeat.features import generation, planted
from advfeat.models.network import Network
from advfeat.objectives.features import class_score

from .flags import Config
from .plan import Plan


@dataclasses.dataclass(frozen=True)
class Changes:
    """Images changed by gradient ascent.

    Attributes:
      picture: `[K, H, W, C]`, pictures of every class, from grey.
      start: `[]`, the grey start.
      image: `[N, H, W, C]`, images turned into the next class.
      success: `[N]`, whether the network then predicts that class.
    """

    picture: np.ndarray
    start: np.ndarray
    image: np.ndarray
    success: np.ndarray


def steps_of(config: Config) -> int:
    """Returns the steps of pictures and counterfactuals; no flag holds them."""
    return 3 if config.dry_run else 40


def changes_of(config: Config, plan: Plan, name: str, network: Network) -> Changes:
    """Computes counterfactuals and pictures of one network."""
    steps = steps_of(config)
    fn, key, grey = network.model_fn(), jax.random.key(config.seed), 0.4
    classes = np.arange(len(planted.SHAPES))
    shape = (len(classes), *network.spec.input_shape)
    picture = advfeat.attack_dataset(
        key,
        generation.maximise(eps=4.0, steps=steps, step_size=0.2, objective=class_score()),
        fn,
        np.full(shape, grey, np.float32),
        classes,
    )
    turned = advfeat.attack_dataset(
        key,
        advfeat.ddn(advfeat.l2(), steps=steps, objective=advfeat.targeted()),
        fn,
        plan.images(name),
        plan.target,
    )
    changed = np.asarray(turned.best.x)
    return Changes(
        picture=np.asarray(picture.best.x),
        start=np.asarray(grey),
        image=changed,
        success=advfeat.correct(fn, changed, plan.target),
    )
