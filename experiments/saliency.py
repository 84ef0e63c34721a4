"""Which pixels a network uses, by ten methods, standard network beside robust network.

    python -m experiments.saliency --workdir=runs/saliency

Maps of test images by every method and both networks; then numbers: is the robust network's
gradient better aligned with the image, does SmoothGrad change the ranking of pixels or only the
look, which methods pass the sanity checks of Adebayo et al. (2018,
https://arxiv.org/abs/1810.03292), and how soon the class is lost and found along deletion and
insertion curves.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from advfeat import data, measures, saliency
from advfeat.checkpoints import Network, check_fits, load_network
from advfeat.figures import DISPLAYS
from advfeat.results import RunDirectory
from experiments import runner, saliency_maps, saliency_report
from experiments.config import Config as BaseConfig
from experiments.config import flag
from experiments.saliency_maps import EDGES, METHODS, Options

NETWORKS = ("standard", "robust")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """The flags of this experiment."""

    dataset: str = flag("cifar10", "What the images are of.")
    standard: str = flag("zoo:cifar10_standard", "Standard network: DIR, DIR:NAME or zoo:NAME.")
    robust: str = flag("zoo:cifar10_l2_robust", "Robust network, likewise.")
    methods: tuple[str, ...] = flag(METHODS, "Which methods.", choices=METHODS)
    loss: bool = flag(False, "Differentiate the loss at the label, not the class's score.")
    display: str = flag("three_sigma", "How maps are shown.", choices=tuple(DISPLAYS))
    shown: int = flag(6, "Images in the pictures.", kind="count")
    measured: int = flag(100, "Images of the numbers.", kind="count")
    sanity_images: int = flag(20, "Images of the sanity checks.", kind="count")
    samples: int = flag(50, "Noisy copies (SmoothGrad and its kind).", kind="count")
    sigma: float = flag(0.15, "Standard deviation of their noise.", kind="nonnegative")
    steps: int = flag(32, "Gradients on the way of integrated gradients.", kind="count")
    layer: str | None = flag(None, "Layer of Grad-CAM. Default: the last with positions.")

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        if len(set(self.methods)) != len(self.methods):
            raise ValueError(f"flag --methods={','.join(self.methods)}: names one twice")
        if "gradient" not in self.methods:
            raise ValueError("flag --methods: must hold gradient, which the others are compared to")
        if self.samples < 2 and "vargrad" in self.methods:
            raise ValueError(f"flag --samples={self.samples}: vargrad needs at least 2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      networks: by name.
      images: `[N, H, W, C]` in [0, 1], of as many classes as there are, evenly.
      labels: `[N]`.
      options: of the methods.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    images: np.ndarray
    labels: np.ndarray
    options: Options


def prepare(config: Config) -> Plan:
    """Reads what the flags name; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    networks = {}
    for name in NETWORKS:
        reference = getattr(config, name)
        networks[name] = load_network(reference)
        check_fits(
            networks[name], reference=reference, class_names=tuple(dataset.class_names),
            input_shape=dataset.input_shape,
        )  # fmt: skip
        if "grad_cam" in config.methods:
            saliency_maps.cam_layer(networks[name], config.layer)
    count = 8 if config.dry_run else max(config.measured, config.shown, config.sanity_images)
    test = data.subset(dataset.test, count, seed=config.seed)
    some = data.subset(dataset.train, 50, seed=config.seed)
    return Plan(
        dataset=dataset,
        networks=networks,
        images=data.unit(test.image),
        labels=test.label,
        options=Options(
            samples=2 if config.dry_run else config.samples,
            sigma=config.sigma,
            steps=2 if config.dry_run else config.steps,
            layer=config.layer,
            loss=config.loss,
            baselines=data.unit(some.image),
        ),
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
    few = 3 if config.dry_run else config.sanity_images
    sanity = {
        name: saliency_maps.randomised(
            config.methods, network, plan.options, plan.images[:few], plan.labels[:few],
            seed=config.seed,
        )
        for name, network in plan.networks.items()
    }  # fmt: skip
    summary = _summary(config, plan, found, sanity)
    saliency_report.write(config, plan, run, found, summary)
    return summary


def _summary(
    config: Config, plan: Plan, found: dict[str, dict[str, np.ndarray]], sanity: dict[str, Any]
) -> dict[str, Any]:
    cosines = {
        name: saliency_maps.alignments(network, plan.options, plan.images, plan.labels)
        for name, network in plan.networks.items()
    }
    aligned = {name: measures.rate(values) for name, values in cosines.items()}
    networks = {
        name: {
            "alignment": aligned[name],
            "methods": _methods(config, plan, name, found[name]),
            "randomised": {
                "modules": list(sanity[name][0]),
                "correlation": {
                    method: [_mean(values) for values in correlations.T]
                    for method, correlations in sanity[name][1].items()
                },
            },
        }
        for name in plan.networks
    }
    claim = measures.claim(
        "The robust network's gradients are better aligned with the image than the standard one's.",
        aligned["robust"],
        aligned["standard"],
        paired=measures.difference(cosines["robust"], cosines["standard"]),
    )
    return {
        "dataset": config.dataset,
        "images": len(plan.images),
        "score": "loss" if config.loss else "class score",
        "samples": plan.options.samples,
        "sigma": plan.options.sigma,
        "networks": networks,
        "claims": [claim],
    }


def _methods(
    config: Config, plan: Plan, name: str, found: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """For each method: ranking against the gradient's and the edges', and its two areas."""
    fn = plan.networks[name].model_fn()
    outlines = np.array([saliency.edges(image) for image in plan.images])
    areas = saliency_maps.areas({**found, EDGES: outlines}, fn, plan.images, plan.labels)
    plain = _flat(found["gradient"])
    shown = {**found, EDGES: outlines}
    return {
        method: {
            "like_gradient": _mean(_correlations(_flat(values), plain)),
            "like_edges": _mean(_correlations(_flat(values), _flat(outlines))),
            "deletion": _mean(areas[method][0]),
            "insertion": _mean(areas[method][1]),
        }
        for method, values in shown.items()
    }


def _flat(values: np.ndarray) -> np.ndarray:
    """`[N, H, W]`, absolute values summed over channels."""
    size = np.abs(values)
    return size.sum(axis=-1) if size.ndim == 4 else size


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.array([saliency.rank_correlation(a, b) for a, b in zip(one, other, strict=True)])


def _mean(values: np.ndarray) -> dict[str, Any]:
    """A mean over images with its interval."""
    return measures.computed(lambda array: float(array.mean()), np.asarray(values)[None])


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="saliency")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
