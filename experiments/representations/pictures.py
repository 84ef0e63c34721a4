"""Draws the pictures of `experiments.representations`, each by ascending another objective."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import models
from advfeat.evaluation.prediction import predict
from advfeat.features import generation, representations
from advfeat.images import augmentation, parametrisations
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.objectives.features import direction, diverse, unit as unit_score
from advfeat.rows import draw_rows
from advfeat.types import ModelFn

from .flags import EXTREMES

if TYPE_CHECKING:
    from .flags import Config
    from .plan import Plan

STARTS = ("from_noise", "from_another")
BLENDS = 7  # images of an interpolation, including both ends
_BATCH = 50
TWO = 2  # diverse pictures of a unit
_CLASSES = 4  # number of classes whose directions are drawn


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The pictures of one network in the report.

    Attributes:
      units: by unit and column, an image.
      directions: by class and column, an image along its mean representation.
      inverted: by start `[S, H, W, C]`.
      blended: `[S, BLENDS, H, W, C]`, interpolated in representation space.
      added: `[S, H, W, C]`, with the first unit enhanced.
      painted: `[S, H, W, C]`, with the first unit painted into the lower right quarter.
    """

    units: dict[int, dict[str, np.ndarray]]
    directions: dict[int, dict[str, np.ndarray]]
    inverted: dict[str, np.ndarray]
    blended: np.ndarray
    added: np.ndarray
    painted: np.ndarray

    @classmethod
    def read(cls, saved: dict[str, Any]) -> Drawn:
        """Reads the pictures back from the run, whose names are strings."""
        by_number = {
            field: {int(number): found for number, found in saved[field].items()}
            for field in ("units", "directions")
        }
        return cls(**{**saved, **by_number})


def feature_fn_of(network: Network, layer: str) -> ModelFn:
    """Returns the network at a layer; inactive units of the representation have gradients, too."""
    return models.model_fn(
        models.with_fake_relu(network.spec.build()), network.variables, layer=layer
    )


def noise(config: Config, shape: tuple[int, ...]) -> np.ndarray:
    """Returns grey with a little noise, the start of the paper's inversions."""
    rng = np.random.default_rng(config.seed)
    return np.clip(0.5 + rng.standard_normal(shape) / 20, 0, 1).astype(np.float32)


def _ascend(attack: Any, config: Config, fn: ModelFn, starts: np.ndarray, aims: Any) -> np.ndarray:
    key = stream(jax.random.key(config.seed), "pictures")
    result = advfeat.attack_dataset(key, attack, fn, starts, aims, batch_size=_BATCH)
    return np.asarray(result.best.x)


def _half(plan: Plan) -> int:
    return max(1, plan.steps // 2)


def inverted(config: Config, plan: Plan, name: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """Inverts representations of images, starting from noise and from another image."""
    network = plan.networks[name]
    fn = feature_fn_of(network, config.layer)
    aims = jnp.asarray(predict(network.model_fn(config.layer), images))
    attack = generation.invert(steps=plan.steps, step_size=2 * config.step_size)
    starts = {
        "from_noise": noise(config, images.shape),
        "from_another": np.roll(images, 1, axis=0),
    }
    return {start: _ascend(attack, config, fn, values, aims) for start, values in starts.items()}


def units(config: Config, plan: Plan, name: str) -> dict[int, dict[str, np.ndarray]]:
    """Draws, per unit, the images that activate it most and least, and those that maximise it."""
    network = plan.networks[name]
    fn = feature_fn_of(network, config.layer)
    values = representations.unit_values(network.model_fn(config.layer), plan.searched)
    shape = network.spec.input_shape
    steps = _half(plan)
    plain = generation.maximise(steps=steps, step_size=2 * config.step_size)
    looks = augmentation.random_affine(pixels=max(1, shape[0] // 16))
    smooth = generation.maximise(
        steps=steps,
        step_size=2 * config.step_size,
        space=parametrisations.fourier(),
        transform=looks,
    )
    # Each example is a pair, drawn jointly so that its two images differ.
    several = generation.maximise(
        steps=steps,
        step_size=2 * TWO**0.5 * config.step_size,
        space=parametrisations.fourier(),
        transform=looks,
        objective=diverse(unit_score(), weight=0.5),
    )
    starts, chosen = starts_of(config, plan), np.asarray(plan.units[name])
    count = len(chosen)
    made = _from_every_start(plain, config, fn, starts, chosen)
    grey = np.repeat(starts[2:], count, axis=0)
    robust_to_looks = _ascend(smooth, config, fn, grey, jnp.asarray(chosen))
    pairs = advfeat.attack_batch(
        stream(jax.random.key(config.seed), "diverse"),
        several,
        fn,
        jnp.broadcast_to(noise(config, (TWO, *shape)), (count, TWO, *shape)),
        jnp.asarray(chosen),
        ids=jnp.arange(count),
    ).best.x
    found: dict[int, dict[str, np.ndarray]] = {}
    for i, unit in enumerate(chosen):
        most, least = representations.extremes(values[:, unit], EXTREMES)
        found[int(unit)] = {
            **{f"most {k + 1}": plan.searched[place] for k, place in enumerate(most)},
            **{f"least {k + 1}": plan.searched[place] for k, place in enumerate(least)},
            **made[i],
            "smooth": robust_to_looks[i],
            **{f"diverse {k + 1}": np.asarray(pairs[i, k]) for k in range(TWO)},
        }
    return found


def _from_every_start(
    attack: Any, config: Config, fn: ModelFn, starts: np.ndarray, aims: np.ndarray
) -> list[dict[str, np.ndarray]]:
    """Ascends for each aim from every start, all in one batch; returns images by start."""
    images = np.tile(starts, (len(aims), 1, 1, 1))
    made = _ascend(attack, config, fn, images, jnp.asarray(np.repeat(aims, len(starts), axis=0)))
    made = made.reshape(len(aims), *starts.shape)
    return [
        dict(zip(("from an image", "from noise", "from grey"), row, strict=True)) for row in made
    ]


def starts_of(config: Config, plan: Plan) -> np.ndarray:
    """Returns the starts `[3, H, W, C]`: an image, noise, grey."""
    shape = plan.images.shape[1:]
    image = plan.images[plan.shown[0]]
    return np.stack([image, noise(config, shape), np.full(shape, 0.5, np.float32)])


def directions(config: Config, plan: Plan, name: str) -> dict[int, dict[str, np.ndarray]]:
    """Draws, for some classes, the direction from the mean of all images to that of the class."""
    network, some = plan.networks[name], plan.surveyed
    values, read = predict(network.model_fn(config.layer), some), classes(network, some)
    plain = generation.maximise(
        steps=_half(plan), step_size=2 * config.step_size, objective=direction()
    )
    # In the same order for both networks, even if they predict different classes.
    count = plan.dataset.num_classes
    order = draw_rows(count, count, seed=config.seed)
    labels = np.sort(order[np.isin(order, read)][:_CLASSES])
    towards = representations.class_directions(values, read, labels)
    fn = feature_fn_of(network, config.layer)
    made = _from_every_start(plain, config, fn, starts_of(config, plan), towards)
    return {int(label): pictures for label, pictures in zip(labels, made, strict=True)}


def classes(network: Network, images: np.ndarray) -> np.ndarray:
    """Returns a network's predicted classes, `[N]`."""
    return np.asarray(predict(network.model_fn(), images).argmax(-1))


def blends(config: Config, plan: Plan) -> np.ndarray:
    """Interpolates pixel by pixel from each shown image to the next, `[S, BLENDS, H, W, C]`."""
    first, second = ends(config, plan)
    both = jax.vmap(representations.interpolate, (0, 0, None))(
        jnp.asarray(first), jnp.asarray(second), BLENDS
    )
    return np.asarray(both)


def ends(config: Config, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of the interpolations: pairs of test images."""
    pairs = min(config.shown, len(plan.images) // 2)
    first, second = draw_rows(plan.labels, 2 * pairs, seed=config.seed).reshape(2, pairs)
    return plan.images[first], plan.images[second]


def blended(config: Config, plan: Plan, name: str) -> np.ndarray:
    """Finds images whose representations interpolate two others', `[S, BLENDS, H, W, C]`."""
    network = plan.networks[name]
    fn = feature_fn_of(network, config.layer)
    first, second = (
        jnp.asarray(predict(network.model_fn(config.layer), part)) for part in ends(config, plan)
    )
    aims = jax.vmap(representations.interpolate, (0, 0, None))(first, second, BLENDS)
    starts = blends(config, plan)
    attack = generation.invert(steps=plan.steps, step_size=config.step_size)
    flat = starts.reshape(-1, *starts.shape[2:])
    found = _ascend(attack, config, fn, flat, aims.reshape(len(flat), *aims.shape[2:]))
    return found.reshape(starts.shape)


def mask_of(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a mask `[H, W]` that is 1 in the lower right quarter."""
    mask = np.zeros(shape[:2], np.float32)
    mask[shape[0] // 2 :, shape[1] // 2 :] = 1.0
    return mask


def all_pictures(config: Config, plan: Plan, name: str) -> Drawn:
    """Draws all pictures of one network."""
    network = plan.networks[name]
    fn = feature_fn_of(network, config.layer)
    images = plan.images[plan.shown]
    fn_there = network.model_fn(config.layer)
    values = representations.unit_values(fn_there, plan.surveyed)
    unit = plan.units[name][0]
    aims = jnp.full(len(images), unit)
    # the activation exceeded by one image in a hundred
    level = float(np.quantile(values[:, unit], 0.99))
    add = generation.add_feature(steps=_half(plan), step_size=config.step_size, level=level)
    paint = generation.paint(
        eps=0.3 * float(np.sqrt(images[0].size)),
        steps=_half(plan),
        step_size=config.step_size,
    )
    mask = jnp.broadcast_to(jnp.asarray(mask_of(images.shape[1:])), images.shape[:3])
    return Drawn(
        units=units(config, plan, name),
        directions=directions(config, plan, name),
        inverted=inverted(config, plan, name, images),
        blended=blended(config, plan, name),
        added=_ascend(add, config, fn, images, aims),
        painted=_ascend(paint, config, fn, images, (aims, jnp.asarray(images), mask)),
    )
