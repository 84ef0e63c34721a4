"""Draws the figures and writes the report of `experiments.representations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from advfeat import figures
from advfeat.images import distortions
from advfeat.rows import draw_rows
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, format_rate, write_report

from ..shared.two_networks import PAIR, data_words, networks_words
from ..shared.words import terms
from . import pictures

if TYPE_CHECKING:
    from .flags import Config
    from .pictures import Drawn
    from .plan import Plan


def write(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    drawn: dict[str, Drawn],
    summary: dict[str, Any],
) -> None:
    """Draws the figures and writes `report.html`."""
    lead, inverted = _inversion(config, plan, drawn, summary)
    write_report(
        run,
        summary,
        title=f"What a representation holds: {config.dataset}",
        sentence=_sentence(summary),
        lead=lead,
        terms=terms(
            "representation",
            "unit",
            "robust network",
            "attack",
            "interval",
            SSIM="how alike two pictures look: 1 means the same, 0 not at all",
            inversion="making an image, from noise or another image, until its representation is "
            "that of a given one",
        ),
        findings=findings(summary),
        introduction=(
            f"Layer {summary['layer']!r} of a standard and a robust network. Numbers are of "
            f"{summary['images']} test images, those of inversion of {summary['inverted']}. "
            + data_words(plan.dataset)
        ),
        sections=[
            Section("What units look for", [_units(drawn), _directions(plan, drawn)]),
            Section("Images from representations", [inverted]),
            Section("From one image to another", _blends(config, plan, drawn)),
            Section("A feature added", _added(config, plan, drawn)),
            Section("Distances", [_ordered(summary), _sensitivity(summary)]),
        ],
        recipe={
            **networks_words(config, plan.networks, plan.dataset),
            "layer": summary["layer"],
            "images": summary["images"],
            "steps": f"{plan.steps} of an inversion or interpolation, half as many of the others",
            "step size": config.step_size,
            "eps": summary["eps"],
            "seed": config.seed,
        },
    )


def _sentence(summary: dict[str, Any]) -> str:
    """States question and answer in one paragraph."""
    like = {name: summary["inversion"][name]["from_noise"]["ssim"].mean for name in PAIR}
    return (
        "How much of an image does a network keep? Reconstructed from nothing but its "
        f"representation, an image resembles the original by {like['robust']:.2f} (SSIM) for the "
        f"robust network and by {like['standard']:.2f} for the standard one."
    )


def _units(drawn: dict[str, Drawn]) -> Picture:
    """Draws the rows of one network above those of the other."""
    rows = [row for part in drawn.values() for row in part.units.values()]
    first, *columns = rows[0]
    grid = figures.map_grid(
        [row[first] for row in rows],
        {column: [row[column] for row in rows] for column in columns},
        display="as_is",
        labels=[f"{name},\nunit {unit}" for name, part in drawn.items() for unit in part.units],
        first=first,
    )
    return Picture(
        "units",
        grid,
        alt="Units of both networks: images that activate them, and what they look for",
        caption="A row per unit: the test images that activate it most and least; then images that "
        "maximise its activation, from an image, from noise, from grey, and from grey in "
        "frequencies and under small rotations and shifts (smooth); two of the latter kind drawn "
        "to differ (diverse).",
    )


def _directions(plan: Plan, drawn: dict[str, Drawn]) -> Picture:
    both = [part.directions for part in drawn.values()]
    labels = [label for label in both[0] if all(label in part for part in both)]
    columns = {
        f"{name}, {start}": [part.directions[label][start] for label in labels]
        for start in ("from noise", "from grey", "from an image")
        for name, part in drawn.items()
    }
    first, *others = columns
    grid = figures.map_grid(
        columns[first],
        {column: columns[column] for column in others},
        display="as_is",
        labels=[plan.dataset.class_names[label] for label in labels],
        first=first,
    )
    return Picture(
        "directions",
        grid,
        alt="What the direction of a class looks like, both networks",
        caption="Not one unit but a direction: from the mean of all representations to the mean "
        "of those that the network reads as a class, followed as far as it goes.",
    )


def _inversion(
    config: Config, plan: Plan, drawn: dict[str, Drawn], summary: dict[str, Any]
) -> list[Any]:
    images = plan.images[plan.shown]
    grid = figures.map_grid(
        list(images),
        {
            f"{name}, {start.replace('_', ' ')}": list(drawn[name].inverted[start])
            for name in PAIR
            for start in pictures.STARTS
        },
        display="as_is",
        labels=[plan.dataset.class_names[label] for label in plan.labels[plan.shown]],
    )
    made = {
        f"{name}, {start.replace('_', ' ')}": found
        for name, starts in summary["inversion"].items()
        for start, found in starts.items()
    }
    rows = [
        ["distance", *(format_number(found["distance"]) for found in made.values())],
        ["SSIM", *(format_number(found["ssim"]) for found in made.values())],
        ["within 0.1", *(found["arrived"] for found in made.values())],
        *(
            [
                f"metamers by {judge.replace('_', ' ')}",
                *(found["metamers"][judge] for found in made.values()),
            ]
            for judge in summary["judges"]
        ),
    ]
    return [
        Picture(
            "inversion",
            grid,
            alt="Images and what was made from their representations",
            caption="Each image ascends to the representation of the image on the left, from "
            "noise or from another image. What a representation does not contain, an inversion "
            "cannot show.",
        ),
        Table(
            caption="Relative distance in representation to the original, similarity in pixels, "
            "and how many are within 0.1 of the original's representation; how many of those are "
            "metamers: an independent network predicts another class for them than for the "
            "original",
            columns=["measure", *made],
            rows=rows,
        ),
    ]


def _blends(config: Config, plan: Plan, drawn: dict[str, Drawn]) -> list[Picture]:
    ways = {"pixels": pictures.blends(config, plan)} | {name: drawn[name].blended for name in PAIR}
    rows: list[np.ndarray] = []
    labels: list[str] = []
    for index in draw_rows(len(ways["pixels"]), 2, seed=config.seed):
        for way, found in ways.items():
            rows.append(found[index])
            labels.append(way)
    shares = np.linspace(0, 1, pictures.BLENDS)
    grid = figures.map_grid(
        [row[0] for row in rows],
        {
            f"{100 * share:.0f} %": [row[place] for row in rows]
            for place, share in enumerate(shares)
            if place
        },
        display="as_is",
        labels=labels,
        first="0 %",
    )
    return [
        Picture(
            "interpolation",
            grid,
            alt="Ways from one image to another",
            caption="Blended pixel by pixel, and images whose representations lie on the line "
            "between those of the two ends, for each network, found from the blend (as the paper "
            "does); the ends are the images themselves.",
        )
    ]


def _added(config: Config, plan: Plan, drawn: dict[str, Drawn]) -> list[Picture]:
    columns = {}
    for name in PAIR:
        unit = plan.units[name][0]
        columns[f"{name}, unit {unit}"] = list(drawn[name].added)
        columns[f"{name}, painted"] = list(drawn[name].painted)
    grid = figures.map_grid(
        list(plan.images[plan.shown]),
        columns,
        display="as_is",
        labels=[plan.dataset.class_names[label] for label in plan.labels[plan.shown]],
    )
    return [
        Picture(
            "added",
            grid,
            alt="Images with a feature added, and painted into a quarter",
            caption="A unit raised to the activation that one test image in a hundred exceeds, "
            "and painted into the lower right quarter, with a penalty on changes elsewhere.",
        )
    ]


def _ordered(summary: dict[str, Any]) -> Table:
    names = ["all", *distortions.DISTORTIONS]
    return Table(
        caption="How often, of two strengths of a distortion, the stronger is farther away "
        "(chance: 0.5)",
        columns=["distance in", *names],
        rows=[
            [way, *(format_number(found[name]) for name in names)]
            for way, found in summary["ordered"].items()
        ],
    )


def _sensitivity(summary: dict[str, Any]) -> Picture:
    parts = summary["sensitivity"]
    layers = list(dict.fromkeys(layer for part in parts.values() for layer in part))
    chart = figures.curves(
        list(range(1, len(layers) + 1)),
        {name: [part.get(layer) for layer in layers] for name, part in parts.items()},
        xlabel="layer, from the first: " + ", ".join(layers),
        ylabel="R(f): distance by attack over distance of images",
        rates=False,
    )
    return Picture(
        "sensitivity",
        chart,
        alt="How far an attack moves each layer, both networks",
        caption=f"The largest distance that an attack of L2 {summary['eps']:g} moves a layer, "
        "relative to that between two different test images: at 1, the attack reaches as far as "
        "another image.",
    )


def findings(summary: dict[str, Any]) -> list[str]:
    """States the findings of this run in plain words."""
    ordered, inversion = summary["ordered"], summary["inversion"]
    last = {name: list(part.items())[-1] for name, part in summary["sensitivity"].items()}
    return [
        "Of two strengths of a distortion, the stronger is farther away: "
        + ", ".join(f"{way} {format_number(found['all'])}" for way, found in ordered.items())
        + ".",
        "Images made from a representation, starting from noise, resemble the original (SSIM): "
        + ", ".join(
            f"{name} {format_number(inversion[name]['from_noise']['ssim'])}" for name in PAIR
        )
        + ".",
        *(
            f"Of those made from another image that arrive, {judge.replace('_', ' ')} predicts "
            "another class than for the original (metamers): "
            + ", ".join(
                f"{name} {format_rate(found) if found else 'none arrive'}"
                for name in PAIR
                for found in [inversion[name]["from_another"]["metamers"][judge]]
            )
            + "."
            for judge in summary["judges"]
        ),
        f"An attack of L2 {summary['eps']:g} moves the layer {last['standard'][0]!r} "
        + ", ".join(f"{format_number(value)} ({name})" for name, (_, value) in last.items())
        + " times as far as another image is.",
    ]
