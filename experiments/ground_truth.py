"""Do maps, pictures and counterfactuals show the feature that a network provably uses?

    python -m experiments.ground_truth --workdir=runs/ground_truth

Drawn images with three planted features (`advfeat.features.planted`): a shape (robust), a faint
texture (non-robust) and a corner mark (spurious). Networks that could only have learned one of
them; a standard and a robust one that could have learned shape or texture; a robust one that could
have learned the mark too. What each uses is found by showing it images in which a single feature
tells the class. Then every method is scored: does its map point at the feature, does a picture of
the class hold it, does a counterfactual change it? With `--methods=gradient,lime` the
husky-and-wolf explanation: the network of the mark is explained by a corner.

Two CPU cores: 165 seconds. Numbers: docs/results/maps.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.ground_truth import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, saliency
from advfeat.data import planted_images
from advfeat.features import generation, planted
from advfeat.features.planted import Drawing, Planted
from advfeat.keys import stream
from advfeat.objectives.features import class_score
from advfeat.runs.checkpoints import Network
from advfeat.runs.directory import RunDirectory
from advfeat.threats.balls import linf
from advfeat.training import Fit
from experiments import ground_truth_report, ground_truth_summary, networks, runner, saliency_maps
from experiments.map_flags import check_recipe, options_of
from experiments.networks import spec_for
from experiments.recipes import Recipe
from experiments.saliency_maps import EDGES, Options

NETWORKS = {
    "shape": "planted:shape", "texture": "planted:texture", "mark": "planted:mark",
    "standard": "planted:shape+texture", "robust": "planted:shape+texture",
    "robust with marks": "planted",
}  # fmt: skip
"""Name of a network -> what it is trained on."""
ROBUST = ("robust", "robust with marks")
SHOWN = 4  # images in a picture


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
      shown: rows of those in the pictures.
    """

    sets: dict[str, data.Dataset]
    recipes: dict[str, Recipe]
    options: Options
    world: Planted
    drawings: dict[str, Drawing]
    labels: np.ndarray
    shown: np.ndarray

    @property
    def target(self) -> np.ndarray:
        """`[N]`, the class that a counterfactual is to be of."""
        return (self.labels + 1) % len(planted.SHAPES)

    @property
    def trained_on(self) -> dict[str, str]:
        """Name of a network -> its data set."""
        return NETWORKS

    def drawing(self, name: str) -> Drawing:
        """What a network is scored on: drawn as the images that it was trained on."""
        return self.drawings[NETWORKS[name]]

    def images(self, name: str) -> np.ndarray:
        """The images of it."""
        return np.asarray(self.drawing(name).image)


def prepare(config: Config) -> Plan:
    """Draws the images and makes the recipes; writes nothing."""
    sets = {name: data.load(name) for name in dict.fromkeys(NETWORKS.values())}
    spec = spec_for(sets["planted"], config.model, width=config.width)
    how = Fit(
        epochs=1 if config.dry_run else config.epochs, batch_size=64, learning_rate=0.02,
        eps_warmup=0.0,
    )  # fmt: skip
    standard = Recipe(spec=spec, how=how)
    # At the learning rate of the others adversarial training ended in constant networks.
    robust = dataclasses.replace(
        standard, threat=linf(config.eps), attack_steps=1 if config.dry_run else 3,
        how=dataclasses.replace(
            how, epochs=1 if config.dry_run else config.robust_epochs, learning_rate=0.005,
            eps_warmup=0.4,
        ),
    )  # fmt: skip
    check_recipe(config, standard)
    count = 8 if config.dry_run else config.measured
    test = data.subset(sets["planted"].test, count, seed=config.seed)
    drawings = {name: planted_images.drawn(planted_images.world(name), test.id) for name in sets}
    return Plan(
        sets=sets,
        recipes={name: robust if name in ROBUST else standard for name in NETWORKS},
        options=options_of(config, sets["planted"].train),
        world=planted_images.world("planted"),
        drawings=drawings,
        labels=test.label,
        shown=data.draw_rows(test.label, SHOWN, seed=config.seed),
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
    summary = ground_truth_summary.summarise(config, plan, found, maps, changes)
    ground_truth_report.write(config, plan, run, maps, changes, summary)
    return summary


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
        generation.maximise(eps=4.0, steps=steps, step_size=0.2, objective=class_score()),
        key, fn, np.full(shape, grey, np.float32), classes,
    )  # fmt: skip
    turned = advfeat.attack_dataset(
        advfeat.ddn(advfeat.l2(np.inf), steps=steps, objective=advfeat.targeted()),
        key, fn, plan.images(name), plan.target,
    )  # fmt: skip
    changed = np.asarray(turned.best.x)
    return Changes(
        np.asarray(picture.best.x), grey, changed, advfeat.accuracy(fn, changed, plan.target)
    )


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="ground_truth")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
