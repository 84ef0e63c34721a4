"""What a representation holds: standard network beside robust network, in pictures and numbers.

    python -m experiments.representations --workdir=runs/representations

Images that activate a unit most and least beside what the unit looks for, and the direction of a
class; images made from a representation alone (inversion); the way from one image to another
through representation space beside pixel space; a feature added, and painted within a mask. Then
numbers: how often does the representation order distortions by their strength, are there metamers
(images with one representation in which an independent network sees something else), how far does
an attack move each layer (Engstrom et al. 2019, https://arxiv.org/abs/1906.00945;
https://distill.pub/2019/advex-bugs-discussion/response-4).

By default on the samples that come with the package; `--dataset=cifar10`, once prepared, is the
whole test set (two CPU cores: 2 minutes 44). Numbers: docs/results/pictures.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.representations import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, models, stats
from advfeat.features import representations
from advfeat.images import distortions, quality
from advfeat.keys import stream
from advfeat.runs.checkpoints import Network
from advfeat.runs.directory import RunDirectory
from advfeat.stats import Claim
from advfeat.threats.balls import ThreatModel, l2
from advfeat.types import Array, Key, ModelFn
from experiments import representations_pictures as pictures
from experiments import representations_report, runner
from experiments.limits import check_eps
from experiments.pairs import PAIR, check_layer, load_judges, load_pair

PIXELS = "pixels"  # the control: distances of the images themselves
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
NEAR = 0.1
"""Relative distance below which two images have one representation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      networks: "standard" and "robust".
      judges: by name.
      units: of each network.
      images: `[N, H, W, C]` in [0, 1], of the test set.
      labels: `[N]`.
      shown: rows of those in the pictures.
      measured: rows of those that the numbers are of.
      inverted: rows of those that are inverted for the numbers.
      searched: `[M, H, W, C]` in [0, 1], another draw from the test set.
      surveyed: some of them, for means over images.
      steps: of an inversion.
      threat: of the attack on layers.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    judges: dict[str, Network]
    units: dict[str, tuple[int, ...]]
    images: np.ndarray
    labels: np.ndarray
    shown: np.ndarray
    measured: np.ndarray
    inverted: np.ndarray
    searched: np.ndarray
    surveyed: np.ndarray
    steps: int
    threat: ThreatModel


def prepare(config: Config) -> Plan:
    """Reads what the flags name; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    check_eps("l2", dataset.input_shape, eps=config.eps)
    networks = load_pair(config, dataset)
    count = 6 if config.dry_run else max(config.measured, config.inverted, 2 * config.shown)
    test = data.subset(dataset.test, count, seed=config.seed)
    searched = data.subset(
        dataset.test, 50 if config.dry_run else config.searched, seed=(config.seed, 1)
    )
    surveyed = data.unit(data.subset(searched, 500, seed=config.seed).image)

    def rows(most: int) -> np.ndarray:
        return data.draw_rows(test.label, most, seed=config.seed)

    return Plan(
        dataset=dataset,
        networks=networks,
        judges=load_judges(config, dataset),
        units={name: _units(config, network, surveyed) for name, network in networks.items()},
        images=data.unit(test.image),
        labels=test.label,
        shown=rows(config.shown),
        measured=rows(4 if config.dry_run else config.measured),
        inverted=rows(4 if config.dry_run else config.inverted),
        searched=data.unit(searched.image),
        surveyed=surveyed,
        steps=4 if config.dry_run else config.steps,
        threat=l2(config.eps),
    )


def _units(config: Config, network: Network, surveyed: np.ndarray) -> tuple[int, ...]:
    """The units that were asked for, or three of those that vary most."""
    count = check_layer(config.layer, network)
    for unit in config.units or ():
        if unit >= count:
            raise ValueError(f"flag --units={unit}: the layer {config.layer} has {count} units")
    if config.units is not None:
        return config.units
    values = representations.unit_values(network.model_fn(config.layer), surveyed)
    return tuple(int(unit) for unit in np.argsort(-values.std(axis=0))[:3])


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Makes the pictures, measures and reports."""
    drawn = pictures.all_pictures(config, plan)
    inverted = {
        name: pictures.inverted(config, plan, name, plan.images[plan.inverted]) for name in PAIR
    }
    numbers = {
        name: _numbers(config, plan, network, inverted[name])
        for name, network in plan.networks.items()
    }
    summary = _summary(config, plan, numbers, inverted)
    run.save_arrays("inverted", {
        f"{name}_{start}": values for name, found in inverted.items()
        for start, values in found.items()
    }, {})  # fmt: skip
    representations_report.write(config, plan, run, drawn, summary)
    return summary


def ordered(fn: ModelFn, images: np.ndarray, name: str, *, seed: int) -> np.ndarray:
    """`[N]`, how often the layer orders a distortion by its strength."""
    graded = distortions.graded(name, images, STRENGTHS, seed=seed)
    return np.asarray(
        advfeat.attack_dataset(_ordered, jax.random.key(0), fn, images, graded, batch_size=50)
    )


def _ordered(key: Key, fn: ModelFn, x: Array, graded: Array) -> Array:
    del key
    return representations.ordered(fn, x, graded)


def as_pixels(x: jax.Array) -> jax.Array:
    """The representation that is the image itself."""
    return x


def distances(fn: ModelFn, images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`[N]`, relative distances in a layer."""
    return np.asarray(
        advfeat.attack_dataset(_distance, jax.random.key(0), fn, images, others, batch_size=50)
    )


def _distance(key: Key, fn: ModelFn, x: Array, other: Array) -> Array:
    del key
    return representations.relative_distance(fn, x, other)


def _numbers(
    config: Config, plan: Plan, network: Network, inverted: dict[str, np.ndarray]
) -> dict[str, Any]:
    fn = network.model_fn(config.layer)
    images = plan.images[plan.measured]
    root = jax.random.key(config.seed)
    layers = models.layer_names(network.spec.build(), network.spec.input_shape)
    sensitivity = {}
    for layer in tqdm(layers, desc="layers", unit="layer"):
        sensitivity[layer] = representations.layer_sensitivity(
            stream(root, layer), network.model_fn(layer), images, plan.threat,
            steps=2 if config.dry_run else 20,
        )  # fmt: skip
    originals = plan.images[plan.inverted]
    read = {judge: pictures.classes(reader, originals) for judge, reader in plan.judges.items()}
    return {
        "ordered": {
            name: ordered(fn, images, name, seed=config.seed) for name in distortions.DISTORTIONS
        },
        "sensitivity": sensitivity,
        "inverted": {
            start: {
                "distance": distances(fn, originals, found),
                "ssim": np.array([quality.ssim(a, b)
                                  for a, b in zip(found, originals, strict=True)]),
                "other": {judge: pictures.classes(plan.judges[judge], found) != seen
                          for judge, seen in read.items()},
            }
            for start, found in inverted.items()
        },
    }  # fmt: skip


def _summary(
    config: Config, plan: Plan, numbers: dict[str, Any], inverted: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    images = plan.images[plan.measured]
    orders = {name: part["ordered"] for name, part in numbers.items()}
    orders[PIXELS] = {
        name: ordered(as_pixels, images, name, seed=config.seed) for name in distortions.DISTORTIONS
    }
    means = {name: np.mean(list(found.values()), axis=0) for name, found in orders.items()}
    likeness = {name: part["inverted"]["from_noise"]["ssim"] for name, part in numbers.items()}
    claims = [
        stats.claim(
            "The robust network's representation orders distortions by their strength more often "
            "than the standard one's.",
            stats.mean(means["robust"], limits=stats.SHARE),
            stats.mean(means["standard"], limits=stats.SHARE),
            paired=stats.mean(means["robust"] - means["standard"]),
            margin=stats.MARGIN,  # how often: a rate too
        ),
        stats.claim(
            "An image made from its representation alone is more like the original (SSIM) for the "
            "robust network.",
            stats.mean(likeness["robust"], limits=stats.CORRELATION),
            stats.mean(likeness["standard"], limits=stats.CORRELATION),
            paired=stats.mean(likeness["robust"] - likeness["standard"]),
        ),
        *metamer_claims(numbers),
    ]  # fmt: skip
    return {
        "dataset": config.dataset,
        "layer": config.layer,
        "judges": list(plan.judges),
        "images": len(images),
        "inverted": len(next(iter(inverted["standard"].values()))),
        "eps": config.eps,
        "units": {name: list(units) for name, units in plan.units.items()},
        "ordered": {
            name: {
                which: stats.mean(values, limits=stats.SHARE)
                for which, values in {"all": means[name], **found}.items()
            }
            for name, found in orders.items()
        },
        "sensitivity": {
            name: {
                layer: stats.computed(
                    lambda both: float(both[:, 0].mean() / max(both[:, 1].mean(), 1e-12)),
                    np.stack([found.moved, found.apart])[None],
                    limits=(0.0, np.inf),
                )
                for layer, found in part["sensitivity"].items()
            }
            for name, part in numbers.items()
        },
        "inversion": {
            name: {
                start: {
                    "distance": stats.mean(found["distance"], limits=(0.0, np.inf)),
                    "ssim": stats.mean(found["ssim"], limits=stats.CORRELATION),
                    "arrived": stats.rate(found["distance"] < NEAR),
                    "metamers": {
                        judge: stats.rate(other, among=found["distance"] < NEAR)
                        if (found["distance"] < NEAR).any() else None
                        for judge, other in found["other"].items()
                    },
                }
                for start, found in part["inverted"].items()
            }
            for name, part in numbers.items()
        },
        "claims": runner.judged(claims, config),
    }  # fmt: skip


def metamer_claims(numbers: dict[str, Any]) -> list[Claim]:
    """Of equals: on the images where the ascent arrived in both networks."""
    found = {name: part["inverted"]["from_another"] for name, part in numbers.items()}
    both = np.all([part["distance"] < NEAR for part in found.values()], axis=0)
    if not both.any():
        return []
    return [
        stats.claim(
            f"Of images made from another to one representation, {judge.replace('_', ' ')} reads "
            "another class in the standard network's more often than in the robust network's.",
            stats.rate(standard[both]), stats.rate(found["robust"]["other"][judge][both]),
            paired=stats.difference(standard[both], found["robust"]["other"][judge][both]),
        )
        for judge, standard in found["standard"]["other"].items()
    ]  # fmt: skip


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="representations")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
