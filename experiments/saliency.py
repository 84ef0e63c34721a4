"""Which pixels a network uses, by ten methods: standard beside robust, and another architecture.

    python -m experiments.saliency --workdir=runs/saliency

Maps of test images by every method and network; then numbers: is the robust network's gradient
better aligned with the image, does SmoothGrad change the ranking of pixels or only the look, how
much of a map belongs to the architecture, which methods pass the sanity checks of Adebayo et al.
(2018, https://arxiv.org/abs/1810.03292), how soon the class is lost and found along deletion and
insertion curves, how far a map moves when the image hardly does.

`experiments.sanity` adds the test of permuted labels, `experiments.roar` retrains without the
pixels that a map ranks first, `experiments.ground_truth` knows which feature is used.

By default on the samples that come with the package; `--dataset=cifar10`, once prepared, is the
whole test set (two CPU cores: 2 minutes 12). Numbers: docs/results/maps.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.saliency import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from advfeat import data, saliency, stats
from advfeat.runs.checkpoints import Network
from advfeat.runs.directory import RunDirectory
from advfeat.stats import Estimate
from experiments import runner, saliency_checks, saliency_maps, saliency_report
from experiments.flags.maps import EXTRA
from experiments.map_flags import options_of
from experiments.pairs import PAIR, further, is_cifar10, load_fitting, load_pair
from experiments.saliency_maps import EDGES, Options, total

OTHERS = ("zoo:cifar10_cnn_standard", "zoo:cifar10_cnn_l2_robust")
_DRY = 2  # images and methods of a dry run's sanity checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      networks: by name: "standard", "robust", and the others by theirs.
      images: `[N, H, W, C]` in [0, 1], drawn from the test set.
      labels: `[N]`.
      options: of the methods.
      few: rows of those that the checks look at.
      shown: rows of those in the pictures.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    images: np.ndarray
    labels: np.ndarray
    options: Options
    few: np.ndarray
    shown: np.ndarray


def prepare(config: Config) -> Plan:
    """Reads what the flags name; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    networks = load_pair(config, dataset)
    others = config.others
    if others is None:
        others = OTHERS if is_cifar10(config) else ("none",)
    for name, reference in further(others, "others").items():
        networks[name] = load_fitting(reference, dataset)
    if "grad_cam" in config.methods:
        for network in networks.values():
            saliency_maps.cam_layer(network, config.layer)
    count = 8 if config.dry_run else max(config.measured, config.shown, config.sanity_images)
    test = data.subset(dataset.test, count, seed=config.seed)
    return Plan(
        dataset=dataset,
        networks=networks,
        images=data.unit(test.image),
        labels=test.label,
        options=options_of(config, dataset.train),
        few=data.draw_rows(
            test.label, _DRY if config.dry_run else config.sanity_images, seed=config.seed
        ),
        shown=data.draw_rows(test.label, config.shown, seed=config.seed),
    )


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Makes the maps, measures, draws and reports."""
    found = {}
    for name, network in plan.networks.items():
        found[name] = saliency_maps.maps(
            config.methods, network, network.variables, plan.options, plan.images, plan.labels,
            seed=config.seed,
        )  # fmt: skip
        run.save_arrays(f"maps/{name}", found[name], {"labels": plan.labels.tolist()})
    checked = tuple(name for name in config.methods if name not in EXTRA)
    checked = checked[:_DRY] if config.dry_run else checked  # each is run for every module
    sanity = {
        name: {
            how: saliency_checks.randomised(
                how, checked, plan.networks[name], plan.options, plan.images[plan.few],
                plan.labels[plan.few], seed=config.seed,
            )
            for how in saliency_checks.RANDOMISED
        }
        for name in PAIR
    }  # fmt: skip
    summary = _summary(config, plan, found, sanity)
    saliency_report.write(config, plan, run, found, sanity, summary)
    return summary


def _summary(
    config: Config,
    plan: Plan,
    found: dict[str, dict[str, np.ndarray]],
    sanity: dict[str, Any],
) -> dict[str, Any]:
    cosines = {name: _cosines(plan, maps["gradient"]) for name, maps in found.items()}
    aligned = {
        name: stats.mean(values, limits=stats.CORRELATION)
        for name, values in cosines.items()
    }
    networks: dict[str, Any] = {
        name: {
            "alignment": aligned[name],
            "alignment_length": stats.mean(_lengths(plan, found[name]["gradient"])),
            "methods": _methods(config, plan, name, found[name]),
        }
        for name in plan.networks
    }
    for name in PAIR:
        _add_checks(config, plan, name, networks[name]["methods"], found[name])
        networks[name]["randomised"] = {
            how: {
                "modules": list(test.modules),
                "rank_correlation": _each(test.rank),
                "ssim": _each(test.ssim),
            }
            for how, test in sanity[name].items()
        }
    claim = stats.claim(
        "The robust network's gradients are better aligned with the image than the standard one's.",
        aligned["robust"],
        aligned["standard"],
        paired=stats.mean(cosines["robust"] - cosines["standard"]),
        margin=stats.SMALL,
    )
    return {
        "dataset": config.dataset,
        "images": len(plan.images),
        "score": "loss" if config.loss else "class score",
        "samples": plan.options.samples,
        "sigma": plan.options.sigma,
        "networks": networks,
        "between": {
            method: _between({name: maps[method] for name, maps in found.items()})
            for method in config.methods
        },
        "claims": runner.judged([claim], config),
    }


def _cosines(plan: Plan, gradients: np.ndarray) -> np.ndarray:
    """`[N]`, the absolute cosine of image and gradient, both without their mean."""

    def centred(array: np.ndarray) -> np.ndarray:
        flat = array.reshape(len(array), -1).astype(np.float64)
        flat = flat - flat.mean(axis=1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)

    return np.abs(np.sum(centred(plan.images) * centred(gradients), axis=1))


def _lengths(plan: Plan, gradients: np.ndarray) -> np.ndarray:
    """`[N]`, `|<x, g>| / |g|`, as Etmann et al. (2019) have it, https://arxiv.org/abs/1905.04172."""
    found = jax.vmap(saliency.alignment)(jnp.asarray(plan.images), jnp.asarray(gradients))
    return np.asarray(found)


def _methods(
    config: Config, plan: Plan, name: str, found: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """For each method: ranking against the gradient's and the edges', and its two areas."""
    fn = plan.networks[name].model_fn()
    outlines = np.array([saliency.edges(image) for image in plan.images])
    curves = saliency_checks.curves({**found, EDGES: outlines}, fn, plan.images, plan.labels)
    areas = {
        method: np.asarray(jax.vmap(jax.vmap(saliency.curve_area))(jnp.asarray(both)))
        for method, both in curves.items()
    }
    plain = total(found["gradient"])
    return {
        method: {
            "like_gradient": _mean(_correlations(total(values), plain), stats.CORRELATION),
            "like_edges": _mean(
                _correlations(total(values), total(outlines)), stats.CORRELATION
            ),
            "deletion": _mean(areas[method][0], stats.SHARE),
            "insertion": _mean(areas[method][1], stats.SHARE),
            "curves": {
                way: [_mean(column, stats.SHARE) for column in both.T]
                for way, both in zip(saliency_checks.CURVES, curves[method], strict=True)
            },
        }
        for method, values in {**found, EDGES: outlines}.items()
    }


def _add_checks(
    config: Config, plan: Plan, name: str, methods: dict[str, Any],
    found: dict[str, np.ndarray],
) -> None:  # fmt: skip
    """Sensitivity and infidelity, of a few images: they cost many maps each."""
    network, samples = plan.networks[name], 1 if config.dry_run else 3
    images, labels = plan.images[plan.few], plan.labels[plan.few]
    some = config.methods[-3:] if config.dry_run else config.methods
    moved = saliency_checks.sensitivities(
        some, network, plan.options, images, labels, samples=samples
    )
    missed = saliency_checks.infidelities(
        {method: maps[plan.few] for method, maps in found.items()}, network.model_fn(),
        images, labels, samples=10 if config.dry_run else 100,
    )  # fmt: skip
    for method, values in moved.items():
        methods[method]["sensitivity"] = _mean(values)
    for method, values in missed.items():
        methods[method]["infidelity"] = _mean(values)


def _between(maps: dict[str, np.ndarray]) -> dict[str, Any]:
    """For every two networks, how alike their maps rank the pixels."""
    names = list(maps)
    return {
        f"{one} and {other}": _mean(
            _correlations(total(maps[one]), total(maps[other])), stats.CORRELATION
        )
        for index, one in enumerate(names)
        for other in names[index + 1 :]
    }


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.array([saliency.rank_correlation(a, b) for a, b in zip(one, other, strict=True)])


def _each(values: dict[str, np.ndarray]) -> dict[str, list[Estimate | None]]:
    return {
        method: [_mean(column, stats.CORRELATION) for column in array.T]
        for method, array in values.items()
    }


def _mean(
    values: np.ndarray, limits: tuple[float, float] = stats.FREE
) -> Estimate | None:
    """A mean over images with its interval; None where no image has a value.

    Images without one are left out: a map of zeros has no relative sensitivity.
    """
    known = np.asarray(values)[np.isfinite(values)]
    return stats.mean(known, limits=limits) if known.size else None


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="saliency")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
