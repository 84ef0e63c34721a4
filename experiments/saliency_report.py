"""The figures and the report of `experiments.saliency`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from advfeat import figures
from advfeat.report import Picture, Section, Table, write_report
from advfeat.results import RunDirectory
from experiments.saliency_maps import EDGES

if TYPE_CHECKING:
    from experiments.saliency import Config, Plan

_GONE = 0.5
"""A map whose ranks still agree so well with the trained network's is called insensitive."""


def write(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    found: dict[str, dict[str, np.ndarray]],
    summary: dict[str, Any],
) -> None:
    """Draws the figures and writes `report.html`."""
    sections = [Section("Maps", _maps(config, plan, run, found))]
    sections += [
        Section(f"{name.capitalize()} network", _numbers(run, name, part))
        for name, part in summary["networks"].items()
    ]
    write_report(
        run.report,
        title=f"Which pixels a network uses: {config.dataset}",
        findings=findings(summary),
        introduction=(
            f"Maps of the {summary['score']} of each image's own class, for {summary['images']} "
            f"test images; SmoothGrad and its kind average {summary['samples']} copies with noise "
            f"of standard deviation {summary['sigma']:g}. Rank correlations are Spearman's, of "
            "absolute values over pixels."
        ),
        sections=sections,
        claims=summary["claims"],
        command=config.command("experiments.saliency"),
        record=run.record(),
        cost=run.cost(),
    )


def _maps(
    config: Config, plan: Plan, run: RunDirectory, found: dict[str, dict[str, np.ndarray]]
) -> list[Any]:
    blocks: list[Any] = []
    shown = slice(0, min(config.shown, len(plan.images)))
    labels = [plan.dataset.class_names[label] for label in plan.labels[shown]]
    for name, maps in found.items():
        grid = figures.map_grid(
            list(plan.images[shown]),
            {method: list(values[shown]) for method, values in maps.items()},
            display=config.display,
            labels=labels,
        )
        blocks.append(
            Picture(
                path=figures.save(grid, run.figure(f"maps_{name}")),
                alt=f"A row per image, a column per method: maps of the {name} network",
                caption=f"{name.capitalize()} network. {_DISPLAY[config.display]}",
            )
        )
    return blocks


_DISPLAY = {
    "three_sigma": "Each map is shifted and scaled by itself, channel by channel: grey is its "
    "mean, black and white are 1.5 standard deviations away.",
    "heat": "The sum of absolute values over channels; the 99th percentile is the brightest.",
    "signed": "The sum over channels: red speaks for the class, blue against it.",
}


def _numbers(run: RunDirectory, name: str, part: dict[str, Any]) -> list[Any]:
    order = part["randomised"]["modules"]
    chart = figures.curves(
        list(range(1, len(order) + 1)),
        {
            method.replace("_", " "): values
            for method, values in part["randomised"]["correlation"].items()
        },
        xlabel="modules with new weights, from the classifier down",
        ylabel="rank correlation with the trained network's map",
    )
    rows = [
        [method.replace("_", " "), values["like_gradient"], values["like_edges"],
         values["deletion"], values["insertion"],
         None if method == EDGES else part["randomised"]["correlation"][method][-1]]
        for method, values in part["methods"].items()
    ]  # fmt: skip
    return [
        Table(
            caption="Means with 95 % intervals over images",
            columns=["method", "rank correlation with the gradient", "with edges",
                     "area under deletion (lower: better)", "insertion (higher: better)",
                     "rank correlation with an untrained network's map"],
            rows=rows,
        ),
        Picture(
            path=figures.save(chart, run.figure(f"randomised_{name}")),
            alt="Rank correlation against the number of modules with new weights",
            caption="The cascading test: weights are drawn anew from the top down. A method whose "
            "line stays up shows the image, not the network.",
        ),
    ]  # fmt: skip


def findings(summary: dict[str, Any]) -> list[str]:
    """What was found in this run, in plain words."""
    parts = summary["networks"]

    def number(rate: dict[str, Any]) -> str:
        return f"{rate['mean']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"

    told = [
        "Cosine of image and gradient (absolute, both without their mean): "
        + ", ".join(f"{name} network {number(part['alignment'])}" for name, part in parts.items())
        + "."
    ]
    for name, part in parts.items():
        methods = part["methods"]
        if "smoothgrad" in methods:
            told.append(
                f"{name.capitalize()} network: SmoothGrad ranks the pixels like the gradient with "
                f"a correlation of {number(methods['smoothgrad']['like_gradient'])}."
            )
        last = {
            method: values[-1] for method, values in part["randomised"]["correlation"].items()
        }
        stays = [method.replace("_", " ") for method, v in last.items() if v["low"] > _GONE]
        told.append(
            f"{name.capitalize()} network, all weights drawn anew: "
            + (
                f"{', '.join(stays)} still make{'s' if len(stays) == 1 else ''} a map that ranks "
                f"like the trained network's (correlation above {_GONE:g})."
                if stays
                else f"no method's map still ranks like the trained network's (all correlations "
                f"can be below {_GONE:g})."
            )
        )
    return told
