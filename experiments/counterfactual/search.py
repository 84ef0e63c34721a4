"""Selects the features to enhance, and searches for the nearest image that they turn."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import models
from advfeat.evaluation.prediction import predict
from advfeat.features import counterfactuals, representations
from advfeat.keys import stream
from advfeat.types import Array, Key, pytree, static

from .flags import Config
from .plan import Plan

WAYS = ("top", "random")
_BATCH = 50


@dataclasses.dataclass(frozen=True)
class Found:
    """The result for one network with N wrong predictions.

    Attributes:
      predicted: `[N]`, the wrong predictions.
      units: by way `[N, n]`, the enhanced units.
      gains: `[N, n]`, of the top ones.
      changed: by way `[N, H, W, C]`, the changed images.
      turned: by way `[N]`, whether the label is predicted afterwards.
      distance: by way `[N]`, L2.
      nearest: `[N]`, L2 distance to the nearest image of the label by any change.
      values: `[M, D]`, every unit for every searched image.
      off: by way `[N, n]`, which features were inactive before.
    """

    predicted: np.ndarray
    units: dict[str, np.ndarray]
    gains: np.ndarray
    changed: dict[str, np.ndarray]
    turned: dict[str, np.ndarray]
    distance: dict[str, np.ndarray]
    nearest: np.ndarray
    values: np.ndarray
    off: dict[str, np.ndarray]


def search(config: Config, plan: Plan, name: str) -> Found:
    """Searches one network's features and images, and the controls."""
    network, places = plan.networks[name], plan.wrong[name]
    key = stream(jax.random.key(config.seed), name)
    # Features that speak for the label are often inactive and then have no gradient without this.
    model = models.with_fake_relu(network.spec.build())
    split = models.split_fn(model, network.variables, layer=config.layer)
    images, labels = plan.images[places], plan.labels[places]
    predicted = np.argmax(predict(network.model_fn(), images), axis=1)
    values = representations.unit_values(network.model_fn(config.layer), plan.images)
    scale = jnp.asarray(np.maximum(values.std(axis=0), 1e-6))
    top = advfeat.attack_dataset(
        key, _Supporting(scale, config.features), split, images, (labels, predicted)
    )
    random = _drawn(key, scale, len(places), config.features)
    attack = counterfactuals.enhance(eps=config.eps, steps=config.steps, step_size=config.step_size)
    units = {"top": np.asarray(top.units), "random": np.asarray(random.units)}
    best = {
        way: advfeat.attack_dataset(
            key, attack, split, images, (np.asarray(weights), labels), batch_size=_BATCH
        ).best
        for way, weights in (("top", top.weights), ("random", random.weights))
    }
    steps = 3 if config.dry_run else 50  # no flag holds them
    nearest = advfeat.attack_dataset(
        key,
        advfeat.ddn(advfeat.l2(), steps=steps, objective=advfeat.targeted()),
        network.model_fn(),
        images,
        labels,
        batch_size=_BATCH,
    ).best
    right = partial(advfeat.correct, network.model_fn(), labels=labels)
    return Found(
        predicted=predicted,
        units=units,
        gains=np.asarray(top.gains),
        changed={way: np.asarray(found.x) for way, found in best.items()},
        turned={way: right(np.asarray(found.x)) for way, found in best.items()},
        distance={way: np.asarray(found.distance) for way, found in best.items()},
        nearest=np.where(right(np.asarray(nearest.x)), nearest.distance, np.nan),
        values=values,
        off={
            way: np.take_along_axis(values[places], chosen, axis=1) <= 0
            for way, chosen in units.items()
        },
    )


@pytree
class _Supporting:
    """`counterfactuals.supporting` for ONE example; its aim is (label, prediction)."""

    scale: Array
    count: int = static()

    def __call__(self, key: Key, split: Any, x: Array, y: Any) -> counterfactuals.Features:
        del key
        label, said = y
        return counterfactuals.supporting(split, x, label, said, self.scale, count=self.count)


def _drawn(key: Any, scale: Any, images: int, count: int) -> counterfactuals.Features:
    """Draws random features for every image, each weighted as a top one would be."""
    units = len(scale)

    def one(key: Any) -> counterfactuals.Features:
        chosen = jax.random.choice(key, units, (count,), replace=False)
        weights = jnp.zeros(units).at[chosen].set(1.0 / scale[chosen])
        return counterfactuals.Features(chosen.astype(jnp.int32), jnp.zeros(count), weights)

    return jax.vmap(one)(jax.random.split(stream(key, "random"), images))
