"""Summarises `experiments.ground_truth`: what networks use, what maps and changes point at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import data, stats
from advfeat.features import planted
from advfeat.features.planted import FEATURES
from advfeat.runs import runner
from advfeat.saliency import EDGES, METHODS, cosines, total
from advfeat.stats import Claim, Estimate
from advfeat.types import ModelFn

if TYPE_CHECKING:
    from .changes import Changes
    from .flags import Config
    from .plan import Plan

USED = 0.1
"""Minimum gain over chance, by a feature alone, for a network to use that feature: ten points."""


def summarise(
    config: Config,
    plan: Plan,
    numbers: dict[str, dict[str, Any]],
    maps: dict[str, dict[str, np.ndarray]],
    changes: dict[str, Changes],
) -> dict[str, Any]:
    """Returns the summary; `numbers` (of `measured`), `maps` and `changes` are by network."""
    used = {name: found["uses"] for name, found in numbers.items()}
    accuracies = {name: stats.rate(found["own"]) for name, found in numbers.items()}
    able = {name for name in numbers if learned(accuracies[name])}
    pointed = {name: _pointed(plan, name, values) for name, values in maps.items()}
    claims, comparisons = _judged(
        config, _claims(used, able), _compared(config, used, pointed, able)
    )
    return {
        "dataset": config.dataset,
        "images": len(plan.labels),
        "recipe": plan.recipes["robust"].summary(),
        "networks": {
            name: {
                "trained_on": plan.trained_on[name],
                "accuracy": accuracies[name],
                "learned": name in able,
                "uses": {feature: stats.rate(hits) for feature, hits in used[name].items()},
                "pointing": {
                    method: {
                        where: stats.mean(values, limits=stats.SHARE)
                        for where, values in scores.items()
                    }
                    for method, scores in pointed[name].items()
                },
                "texture": {
                    method: stats.mean(values, limits=stats.CORRELATION)
                    for method, values in _textured(plan, maps[name]).items()
                },
                "picture": _of_pictures(plan, changes[name]),
                "counterfactual": _of_counterfactuals(plan, name, changes[name]),
            }
            for name in numbers
        },
        "claims": claims,
        "comparisons": comparisons,
    }


def _judged(
    config: Config, claims: list[Claim], comparisons: list[dict[str, Any]]
) -> tuple[list[Claim], list[dict[str, Any]]]:
    """Judges the comparisons of methods together with the other claims, as one report."""
    methods = [claim for part in comparisons for claim in part["methods"].values()]
    found = iter(runner.judged([*claims, *methods], config))
    first = [next(found) for _ in claims]
    return first, [
        {**part, "methods": {method: next(found) for method in part["methods"]}}
        for part in comparisons
    ]


def _claims(used: dict[str, dict[str, np.ndarray]], able: set[str]) -> list[Claim]:
    """Claims what the networks use; restricted to `able`, since constant networks show nothing.

    Args:
      used: by network and feature `[N]`, correct if the feature alone determines the class.
      able: the networks that have learned something.
    """
    sides = (("shape", "robust", "standard"), ("texture", "standard", "robust"))
    return [
        stats.claim(
            f"Where shape and texture both tell the class, the {one} network uses the "
            f"{feature} more than the {other} one does.",
            stats.rate(used[one][feature]),
            stats.rate(used[other][feature]),
            paired=stats.difference(used[one][feature], used[other][feature]),
        )
        for feature, one, other in sides
        if {one, other} <= able
    ]


def _compared(
    config: Config,
    used: dict[str, dict[str, np.ndarray]],
    pointed: dict[str, dict[str, dict[str, np.ndarray]]],
    able: set[str],
) -> list[dict[str, Any]]:
    """Compares how well methods point at a used feature with controls that ignore its use.

    The control is the edges of the image, or the same method on a network that does not use the
    feature. Networks are not compared if it is undecidable whether they use what they should, and
    nothing else.

    Args:
      config: the flags.
      used: by network and feature `[N]`, correct if the feature alone determines the class.
      pointed: by network, method and region `[N]`.
      able: the networks that have learned something.
    """
    comparisons = []
    for feature, one, other in (
        ("shape", "shape", EDGES),
        ("shape", "robust", "robust with marks"),
        ("mark", "mark", EDGES),
        ("mark", "robust with marks", "robust"),
    ):
        networks = {one, other} - {EDGES}
        meant = all(relies(used[name][feature]) is (name == one) for name in networks)
        if not (networks <= able and meant):
            continue
        found = {}
        for method in config.methods:
            scores = pointed[one][method][feature]
            control = (pointed[one][EDGES] if other == EDGES else pointed[other][method])[feature]
            found[method] = stats.claim(
                f"{method} on the network {one!r} points at the {feature} better than {other}.",
                stats.mean(scores, limits=stats.SHARE),
                stats.mean(control, limits=stats.SHARE),
                paired=stats.mean(scores - control),
                margin=stats.MARGIN,  # the area is a probability, too
            )
        comparisons.append({"feature": feature, "network": one, "control": other, "methods": found})
    return comparisons


def relies(hits: np.ndarray) -> bool | None:
    """Returns whether a network uses a feature; None if there are too few images to decide.

    Args:
      hits: `[N]`, correct if the feature alone determines the class.
    """
    found, limit = stats.rate(hits), 1 / len(planted.SHAPES) + USED
    assert found.low is not None
    assert found.high is not None
    return True if found.low > limit else False if found.high < limit else None


def _pointed(
    plan: Plan, name: str, maps: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Scores maps by method and region `[N]`: area under the ROC curve of the region's pixels."""
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
    return jax.lax.map(lambda pair: planted.pointing(*pair), (rankings, regions))


def contrast(plan: Plan, labels: np.ndarray) -> np.ndarray:
    """Returns the difference of a class's texture from the mean of all, `[N, H, W, C]`."""
    textures = np.asarray(plan.world.textures)
    return (textures - textures.mean(axis=0))[labels]


def _textured(plan: Plan, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the cosine of signed maps with their class's texture, by method `[N]`."""
    wanted = contrast(plan, plan.labels)
    signed = [name for name in maps if name in METHODS and METHODS[name].slope]
    return {name: cosines(maps[name], wanted) for name in signed}


def _of_pictures(plan: Plan, change: Changes) -> dict[str, Any]:
    classes = np.arange(len(planted.SHAPES))
    delta = change.picture - float(change.start)
    corners = np.array([plan.world.mark(jnp.array(k)) for k in classes])
    return {
        "texture": stats.mean(cosines(delta, contrast(plan, classes)), limits=stats.CORRELATION),
        "mark": stats.mean(planted.share_inside(delta, corners), limits=stats.SHARE),
        "mark_area": float(corners.mean()),
    }


def _of_counterfactuals(plan: Plan, name: str, change: Changes) -> dict[str, Any]:
    drawing, target = plan.drawing(name), plan.target
    delta = change.image - plan.images(name)
    corners = np.array([plan.world.mark(jnp.array(k)) for k in target])
    corners = corners | np.asarray(drawing.mark)
    found: dict[str, Any] = {
        "success": stats.rate(change.success),
        "mark_area": float(corners.mean()),
        "shape_area": float(drawing.shape.mean()),
    }
    done = np.asarray(change.success)
    if not done.any():
        return found
    textures = contrast(plan, target) - contrast(plan, plan.labels)
    return found | {
        "distance": stats.mean(
            np.linalg.norm(delta.reshape(len(delta), -1), axis=1)[done], limits=(0.0, np.inf)
        ),
        "texture": stats.mean(cosines(delta, textures)[done], limits=stats.CORRELATION),
        "mark": stats.mean(planted.share_inside(delta, corners)[done], limits=stats.SHARE),
        "shape": stats.mean(
            planted.share_inside(delta, np.asarray(drawing.shape))[done], limits=stats.SHARE
        ),
    }


def measured(plan: Plan, name: str, fn: ModelFn) -> dict[str, Any]:
    """Returns which test images a network gets right: like its own, and by feature."""
    return {"own": _right(plan, fn, plan.trained_on[name]), "uses": uses(plan, fn)}


def uses(plan: Plan, fn: ModelFn) -> dict[str, np.ndarray]:
    """Returns, by feature, which test images a network gets right if it alone tells the class."""
    return {feature: _right(plan, fn, f"planted:{feature}") for feature in FEATURES}


def _right(plan: Plan, fn: ModelFn, name: str) -> np.ndarray:
    test = plan.sets[name].test
    return advfeat.correct(fn, data.unit(test.image), test.label)


def learned(accuracy: Estimate) -> bool:
    """Returns whether a network is decidably better than chance on images like its own."""
    return accuracy.low is not None and accuracy.low > 1 / len(planted.SHAPES)
