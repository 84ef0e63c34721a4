"""The summary of `experiments.ground_truth`: what networks use, what maps and changes point at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import data, measures, planted
from advfeat.checkpoints import Network
from advfeat.planted import FEATURES
from advfeat.types import ModelFn
from experiments.saliency_maps import EDGES, total

if TYPE_CHECKING:
    from experiments.ground_truth import Changes, Config, Plan


def summarise(
    config: Config,
    plan: Plan,
    found: dict[str, Network],
    maps: dict[str, dict[str, np.ndarray]],
    changes: dict[str, Changes],
) -> dict[str, Any]:
    """Everything in numbers; `maps` and `changes` by network, as they were found."""
    used = {name: uses(plan, network.model_fn()) for name, network in found.items()}
    accuracies = {
        name: measures.rate(_right(plan, network.model_fn(), plan.trained_on[name]))
        for name, network in found.items()
    }
    able = {name for name in found if learned(accuracies[name])}
    pointed = {name: _pointed(plan, name, values) for name, values in maps.items()}
    return {
        "dataset": config.dataset,
        "images": len(plan.labels),
        "recipe": {"model": config.model, "width": config.width,
                   **plan.recipes["robust"].record()},
        "networks": {
            name: {
                "trained_on": plan.trained_on[name],
                "accuracy": accuracies[name],
                "learned": name in able,
                "uses": {feature: measures.rate(hits) for feature, hits in used[name].items()},
                "pointing": {
                    method: {where: measures.mean(values, limits=measures.SHARE)
                             for where, values in scores.items()}
                    for method, scores in pointed[name].items()
                },
                "texture": {
                    method: measures.mean(values) for method, values in
                    _textured(plan, name, maps[name]).items()
                },
                "picture": _of_pictures(plan, changes[name]),
                "counterfactual": _of_counterfactuals(plan, name, changes[name]),
            }
            for name in found
        },
        "claims": _claims(used, able),
        "comparisons": _compared(config, used, pointed, able),
    }  # fmt: skip


def _claims(
    used: dict[str, dict[str, np.ndarray]], able: set[str]
) -> list[dict[str, Any]]:
    """What the networks use; only of `able`: a constant one uses less of anything, showing nothing.

    Args:
      used: by network and feature `[N]`, right where it alone tells the class.
      able: the networks that have learned something.
    """
    sides = (("shape", "robust", "standard"), ("texture", "standard", "robust"))
    return [
        measures.claim(
            f"Where shape and texture both tell the class, the {one} network uses the "
            f"{feature} more than the {other} one does.",
            measures.rate(used[one][feature]), measures.rate(used[other][feature]),
            paired=measures.difference(used[one][feature], used[other][feature]),
        )
        for feature, one, other in sides if {one, other} <= able
    ]  # fmt: skip


def _compared(
    config: Config,
    used: dict[str, dict[str, np.ndarray]],
    pointed: dict[str, dict[str, dict[str, np.ndarray]]],
    able: set[str],
) -> list[dict[str, Any]]:
    """How well each method points at a feature that is used, beside what knows nothing of the use.

    The control is the edges of the image, or the same method on a network that does not use it;
    what turned out not to use what it should, or the other way round, is not compared.

    Args:
      config: the flags.
      used: by network and feature `[N]`, right where it alone tells the class.
      pointed: by network, method and region `[N]`.
      able: the networks that have learned something.
    """
    comparisons = []
    for feature, one, other in (
        ("shape", "shape", EDGES), ("shape", "robust", "robust with marks"),
        ("mark", "mark", EDGES), ("mark", "robust with marks", "robust"),
    ):  # fmt: skip
        networks = {one, other} - {EDGES}
        meant = all(_relies(used[name][feature]) == (name == one) for name in networks)
        if not (networks <= able and meant):
            continue
        found = {}
        for method in config.methods:
            scores = pointed[one][method][feature]
            control = (pointed[one][EDGES] if other == EDGES else pointed[other][method])[feature]
            found[method] = measures.claim(
                f"{method} on the network {one!r} points at the {feature} better than {other}.",
                measures.mean(scores, limits=measures.SHARE),
                measures.mean(control, limits=measures.SHARE),
                paired=measures.mean(scores - control),
            )
        comparisons.append(
            {"feature": feature, "network": one, "control": other, "methods": found}
        )
    return comparisons


def _relies(hits: np.ndarray) -> bool:
    """Whether a network is better than chance where a feature alone tells, by what matters."""
    return bool(measures.rate(hits)["low"] > 1 / len(planted.SHAPES) + measures.RELEVANT)


def _pointed(
    plan: Plan, name: str, maps: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """By method and region `[N]`: the area under the ROC curve of telling the region's pixels."""
    drawing = plan.drawing(name)
    return {
        method: {
            where: np.asarray(_auc(total(values), region))
            for where, region in (("shape", drawing.shape), ("mark", drawing.mark))
        }
        for method, values in maps.items()
    }


@jax.jit
def _auc(rankings: jax.Array, regions: jax.Array) -> jax.Array:
    return jax.lax.map(lambda pair: planted.pointing(*pair)[1], (rankings, regions))


def contrast(plan: Plan, labels: np.ndarray) -> np.ndarray:
    """`[N, H, W, C]`, what sets a class's texture apart from the mean of all."""
    textures = np.asarray(plan.world.textures)
    return (textures - textures.mean(axis=0))[labels]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`[N]`, of flattened examples; 0 where one of them is zero."""
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / np.maximum(lengths, 1e-30)


def _textured(plan: Plan, name: str, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By method with signs and channels `[N]`: the map's cosine with its class's texture."""
    wanted = contrast(plan, plan.labels)
    signed = ("gradient", "smoothgrad", "guided_backpropagation")
    return {method: cosines(maps[method], wanted) for method in signed if method in maps}


def _of_pictures(plan: Plan, change: Changes) -> dict[str, Any]:
    classes = np.arange(len(planted.SHAPES))
    delta = change.picture - change.start
    corners = np.array([plan.world.mark(jnp.array(k)) for k in classes])
    return {
        "texture": measures.mean(cosines(delta, contrast(plan, classes))),
        "mark": measures.mean(_share(delta, corners), limits=measures.SHARE),
        "mark_area": float(corners.mean()),
    }


def _of_counterfactuals(plan: Plan, name: str, change: Changes) -> dict[str, Any]:
    drawing, target = plan.drawing(name), plan.target
    delta = change.image - plan.images(name)
    corners = np.array([plan.world.mark(jnp.array(k)) for k in target])
    corners = corners | np.asarray(drawing.mark)
    found: dict[str, Any] = {
        "success": measures.rate(change.success),
        "mark_area": float(corners.mean()),
        "shape_area": float(drawing.shape.mean()),
    }
    done = np.asarray(change.success)
    if not done.any():
        return found
    textures = contrast(plan, target) - contrast(plan, plan.labels)
    return found | {
        "distance": measures.mean(np.linalg.norm(delta.reshape(len(delta), -1), axis=1)[done]),
        "texture": measures.mean(cosines(delta, textures)[done]),
        "mark": measures.mean(_share(delta, corners)[done], limits=measures.SHARE),
        "shape": measures.mean(
            _share(delta, np.asarray(drawing.shape))[done], limits=measures.SHARE
        ),
    }


def _share(delta: np.ndarray, region: np.ndarray) -> np.ndarray:
    """`[N]`, of the squared change that lies in a region."""
    square = (delta.astype(np.float64) ** 2).sum(axis=-1)
    total = np.maximum(square.sum(axis=(1, 2)), 1e-30)
    return np.asarray((square * region).sum(axis=(1, 2)) / total)


def uses(plan: Plan, fn: ModelFn) -> dict[str, np.ndarray]:
    """By feature, which test images a network gets right when it alone tells the class."""
    return {feature: _right(plan, fn, f"planted:{feature}") for feature in FEATURES}


def _right(plan: Plan, fn: ModelFn, name: str) -> np.ndarray:
    test = plan.sets[name].test
    return advfeat.accuracy(fn, data.unit(test.image), test.label)


def learned(accuracy: dict[str, Any]) -> bool:
    """Whether a network is decidably better than chance at images like those it was trained on."""
    return bool(accuracy["low"] > 1 / len(planted.SHAPES))
