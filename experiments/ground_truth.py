"""Do maps, pictures and counterfactuals show the feature that a network provably uses?

    python -m experiments.ground_truth --workdir=runs/ground_truth

Drawn images with three planted features (`advfeat.planted`): a shape (robust), a faint texture
(non-robust) and a corner mark (spurious). Networks that could only have learned one of them; a
standard and a robust one that could have learned shape or texture; a robust one that could have
learned the mark too. What each uses is found by showing it images in which a single feature tells
the class. Then every method is scored: does its map point at the feature, does a picture of the
class hold it, does a counterfactual change it? With `--methods=gradient,lime` the husky-and-wolf
explanation: the network of the mark is explained by a corner.

Two CPU cores: 165 seconds. Numbers: BUILD_NOTES.md, "Maps and pictures".
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, measures, planted, saliency, synthesis
from advfeat.checkpoints import Network
from advfeat.data import planted_images
from advfeat.keys import stream
from advfeat.planted import FEATURES, Drawing, Planted
from advfeat.results import RunDirectory
from advfeat.scores import class_score
from advfeat.threat import linf
from advfeat.training import Fit
from advfeat.types import ModelFn
from experiments import ground_truth_report, networks, runner, saliency_maps
from experiments.config import flag
from experiments.map_flags import MapConfig, check_recipe, options_of
from experiments.networks import spec_for
from experiments.recipes import Recipe
from experiments.saliency_maps import EDGES, Options, total

NETWORKS = {
    "shape": "planted:shape", "texture": "planted:texture", "mark": "planted:mark",
    "standard": "planted:shape+texture", "robust": "planted:shape+texture",
    "robust with marks": "planted",
}  # fmt: skip
"""Name of a network -> what it is trained on."""
ROBUST = ("robust", "robust with marks")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(MapConfig):
    """The flags of this experiment."""

    dataset: str = flag("planted", "Only planted images have a ground truth.", choices=("planted",))
    model: str = flag("cnn", "Architecture.")
    width: int = flag(16, "Its width.", kind="count")
    epochs: int = flag(6, "Standard networks: passes over the 4,000 training images.", kind="count")
    robust_epochs: int = flag(10, "Robust networks: passes over them.", kind="count")
    eps: float = flag(8 / 255, "L-infinity eps of the robust network's training.", kind="eps")
    measured: int = flag(24, "Images that are scored.", kind="count")
    sigma: float = flag(0.05, "Standard deviation of SmoothGrad's noise.", kind="nonnegative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      sets: data set by name.
      recipes: of each network.
      options: of the methods.
      world: of `planted`; its textures and marks are those of all.
      drawings: of the images that are scored, by data set: with their masks.
      labels: `[N]` of them.
    """

    sets: dict[str, data.Dataset]
    recipes: dict[str, Recipe]
    options: Options
    world: Planted
    drawings: dict[str, Drawing]
    labels: np.ndarray

    @property
    def target(self) -> np.ndarray:
        """`[N]`, the class that a counterfactual is to be of."""
        return (self.labels + 1) % len(planted.SHAPES)

    def images(self, name: str) -> np.ndarray:
        """The images that a network is scored on: drawn as those it was trained on."""
        return np.asarray(self.drawings[NETWORKS[name]].image)


def prepare(config: Config) -> Plan:
    """Draws the images and makes the recipes; writes nothing."""
    sets = {name: data.load(name) for name in dict.fromkeys(NETWORKS.values())}
    spec = spec_for(sets["planted"], config.model, width=config.width)
    how = Fit(
        epochs=1 if config.dry_run else config.epochs, batch_size=64, learning_rate=0.02,
        eps_warmup=0.0,
    )  # fmt: skip
    standard = Recipe(spec=spec, how=how)
    # At the learning rate of the others half of the seeds end in a constant network.
    robust = dataclasses.replace(
        standard, threat=linf(config.eps), attack_steps=1 if config.dry_run else 3,
        how=dataclasses.replace(
            how, epochs=1 if config.dry_run else config.robust_epochs, learning_rate=0.005,
            eps_warmup=0.4,
        ),
    )  # fmt: skip
    check_recipe(config, standard)
    first = len(sets["planted"].train)
    count = 8 if config.dry_run else config.measured
    rows = slice(first, first + count)
    drawings = {
        name: jax.tree.map(
            lambda leaf: leaf[rows], planted_images.drawn(planted_images.world(name), rows.stop)
        )
        for name in sets
    }
    return Plan(
        sets=sets,
        recipes={name: robust if name in ROBUST else standard for name in NETWORKS},
        options=options_of(config, sets["planted"].train),
        world=planted_images.world("planted"),
        drawings=drawings,
        labels=np.arange(first, first + count) % len(planted.SHAPES),
    )


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, asks, scores, draws and reports."""
    root = jax.random.key(config.seed)
    found: dict[str, Network] = {}
    total = sum(recipe.how.epochs for recipe in plan.recipes.values())
    with tqdm(total=total, desc="networks", unit="epoch") as bar:
        for name, recipe in plan.recipes.items():
            train = plan.sets[NETWORKS[name]].train
            if config.dry_run:
                train = data.subset(train, 200, seed=config.seed)
            found[name] = networks.train(
                run, name.replace(" ", "_"), stream(root, name), recipe, train, on_epoch=bar.update
            )
    maps = {name: _maps(config, plan, name, network) for name, network in found.items()}
    changes = {name: _changes(config, plan, name, network) for name, network in found.items()}
    summary = _summary(config, plan, found, maps, changes)
    ground_truth_report.write(config, plan, run, maps, changes, summary)
    return summary


def uses(plan: Plan, fn: ModelFn) -> dict[str, np.ndarray]:
    """By feature, which test images a network gets right when it alone tells the class."""
    return {feature: _right(plan, fn, f"planted:{feature}") for feature in FEATURES}


def _right(plan: Plan, fn: ModelFn, name: str) -> np.ndarray:
    test = plan.sets[name].test
    return advfeat.accuracy(fn, data.unit(test.image), test.label)


def learned(accuracy: dict[str, Any]) -> bool:
    """Whether a network is decidably better than chance at images like those it was trained on."""
    return bool(accuracy["low"] > 1 / len(planted.SHAPES))


def _maps(config: Config, plan: Plan, name: str, network: Network) -> dict[str, np.ndarray]:
    images = plan.images(name)
    found = saliency_maps.maps(
        config.methods, network, network.variables, plan.options, images, plan.labels,
        seed=config.seed,
    )  # fmt: skip
    return {**found, EDGES: np.array([saliency.edges(image) for image in images])}


@dataclasses.dataclass(frozen=True)
class Changes:
    """What ascent changed.

    Attributes:
      picture: `[K, H, W, C]`, pictures of every class, from grey.
      start: the grey.
      image: `[N, H, W, C]`, images turned into the next class.
      success: `[N]`, whether the network then says so.
    """

    picture: np.ndarray
    start: float
    image: np.ndarray
    success: np.ndarray


def _changes(config: Config, plan: Plan, name: str, network: Network) -> Changes:
    steps = 3 if config.dry_run else 40
    fn, key, grey = network.model_fn(), jax.random.key(config.seed), 0.4
    classes = np.arange(len(planted.SHAPES))
    shape = (len(classes), *network.spec.input_shape)
    picture = advfeat.attack_dataset(
        synthesis.maximise(eps=4.0, steps=steps, step_size=0.2, objective=class_score()),
        key, fn, np.full(shape, grey, np.float32), classes,
    )  # fmt: skip
    turned = advfeat.attack_dataset(
        advfeat.ddn(advfeat.l2(np.inf), steps=steps, objective=advfeat.targeted()),
        key, fn, plan.images(name), plan.target,
    )  # fmt: skip
    return Changes(
        np.asarray(picture.best.x), grey, np.asarray(turned.best.x),
        np.asarray(turned.best.success),
    )  # fmt: skip


def _summary(
    config: Config,
    plan: Plan,
    found: dict[str, Network],
    maps: dict[str, dict[str, np.ndarray]],
    changes: dict[str, Changes],
) -> dict[str, Any]:
    used = {name: uses(plan, network.model_fn()) for name, network in found.items()}
    accuracies = {
        name: measures.rate(_right(plan, network.model_fn(), NETWORKS[name]))
        for name, network in found.items()
    }
    pointed = {name: _pointed(plan, name, values) for name, values in maps.items()}
    return {
        "dataset": config.dataset,
        "images": len(plan.labels),
        "recipe": {"model": config.model, "width": config.width,
                   **plan.recipes["robust"].record()},
        "networks": {
            name: {
                "trained_on": NETWORKS[name],
                "accuracy": accuracies[name],
                "learned": learned(accuracies[name]),
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
        "claims": _claims(config, used, pointed, {n for n in found if learned(accuracies[n])}),
    }  # fmt: skip


def _claims(
    config: Config,
    used: dict[str, dict[str, np.ndarray]],
    pointed: dict[str, dict[str, dict[str, np.ndarray]]],
    able: set[str],
) -> list[dict[str, Any]]:
    """Only of networks that learned: a constant one uses less of anything, and shows nothing by it.

    Args:
      config: the flags.
      used: by network and feature `[N]`, right where it alone tells the class.
      pointed: by network, method and region `[N]`.
      able: the networks that have learned something.
    """
    claims = []
    for feature, one, other in (("shape", "robust", "standard"), ("texture", "standard", "robust")):
        if not {one, other} <= able:
            continue
        claims.append(
            measures.claim(
                f"Where shape and texture both tell the class, the {one} network uses the "
                f"{feature} more than the {other} one does.",
                measures.rate(used[one][feature]), measures.rate(used[other][feature]),
                paired=measures.difference(used[one][feature], used[other][feature]),
            )
        )  # fmt: skip
    # The control knows nothing of the network, or is one that does not use the feature.
    edges = "Network {!r}: {} points at the {} better than the edges of the image do."
    unused = (
        "Network {!r}: {} points at the {}, which it uses, better than in {!r}, which uses it not."
    )
    for words, feature, one, other in (
        (edges, "shape", "shape", "shape"), (edges, "mark", "mark", "mark"),
        (unused, "shape", "robust", "robust with marks"),
        (unused, "mark", "robust with marks", "robust"),
    ):  # fmt: skip
        for method in config.methods if {one, other} <= able else ():
            scores = pointed[one][method][feature]
            control = pointed[other][EDGES if one == other else method][feature]
            claims.append(
                measures.claim(
                    words.format(one, method.replace("_", " "), feature, other),
                    measures.mean(scores, limits=measures.SHARE),
                    measures.mean(control, limits=measures.SHARE),
                    paired=measures.mean(scores - control),
                )
            )  # fmt: skip
    return claims


def _pointed(
    plan: Plan, name: str, maps: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """By method and region `[N]`: the area under the ROC curve of telling the region's pixels."""
    drawing = plan.drawings[NETWORKS[name]]
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
    drawing, target = plan.drawings[NETWORKS[name]], plan.target
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


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="ground_truth")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
