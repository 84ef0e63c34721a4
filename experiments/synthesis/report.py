"""Draws the figures and writes the report of `experiments.synthesis`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from advfeat import figures
from advfeat.features.tasks import Task
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, write_report

from ..shared.two_networks import PAIR, data_words, networks_words
from ..shared.words import per_cent, terms

if TYPE_CHECKING:
    from .flags import Config
    from .plan import Plan

_TRAINED = {"generation": "the seeds of generation", "inpainting": "the mean colour of holes"}
"""Task -> the use of training images in it."""

_CAPTIONS = {
    "generation": "From a seed, drawn from a Gaussian of the class's training images.",
    "translation": "Every image turned into the class on the left, which is not its own.",
    "inpainting": "A filled hole; the pixels around it are unchanged.",
    "superresolution": "From block means, a quarter of the side where 4 divides it.",
    "sketch": "From the strongest edges of a test image.",
}


def write(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    drawn: dict[str, dict[str, np.ndarray]],
    side_by_side: dict[str, dict[float, np.ndarray]],
    summary: dict[str, Any],
) -> None:
    """Draws the figures and writes `report.html`."""
    sections = [
        Section(task.capitalize(), _task(config, plan, plan.tasks[task], found, summary))
        for task, found in drawn.items()
    ]
    if summary["read"]:
        sections.append(Section("What independent networks read", [_read(summary)]))
    write_report(
        run,
        summary,
        title=f"What one classifier can draw: {config.dataset}",
        sentence=_sentence(summary),
        lead=_attacks(config, plan, side_by_side),
        terms=terms(
            "robust network",
            "attack",
            "L2",
            "independent network",
            "interval",
            PSNR="how close a picture is to the original, in decibels: higher is closer",
        ),
        findings=findings(summary),
        introduction=(
            f"{summary['images']} images for every task, {summary['steps']} steps of ascent of the "
            "class within an L2 ball around the start. "
            + data_words(
                plan.dataset, *(use for task, use in _TRAINED.items() if task in plan.tasks)
            )
        ),
        sections=sections,
        recipe={
            **networks_words(config, plan.networks, plan.dataset),
            **{
                f"judge: {name.replace('_', ' ')}": network.spec.model
                for name, network in plan.judges.items()
            },
            "images": summary["images"],
            "steps": summary["steps"],
            "eps": {task: about["eps"] for task, about in summary["tasks"].items()},
            "seed": config.seed,
        },
    )


def _sentence(summary: dict[str, Any]) -> str:
    """States question and answer in one paragraph."""
    asked = "Can a classifier draw, just by increasing its own confidence?"
    if not summary["read"]:
        return f"{asked} The pictures of a standard and of a robust network stand side by side."
    judge, found = list(summary["read"].items())[-1]
    told = "; ".join(
        f"{task}, {per_cent(rates['robust'])} (robust) and {per_cent(rates['standard'])} (standard)"
        for task, rates in found.items()
    )
    return (
        f"{asked} An independent network ({judge.replace('_', ' ')}) recognises the target class "
        f"in this share of the pictures: {told}."
    )


def _attacks(
    config: Config, plan: Plan, side_by_side: dict[str, dict[float, np.ndarray]]
) -> Picture:
    names = plan.dataset.class_names
    grid = figures.map_grid(
        list(plan.images[plan.shown]),
        {
            f"{name}, {eps:g}": list(images)
            for name in PAIR
            for eps, images in side_by_side[name].items()
        },
        display="as_is",
        labels=[
            f"{names[label]} to\n{names[(label + 1) % len(names)]}"
            for label in plan.labels[plan.shown]
        ],
    )
    return Picture(
        "attacks",
        grid,
        alt="Images attacked towards the next class, at growing eps, by both networks",
        caption="Targeted attacks of growing L2 eps. What fools a standard network is invisible; "
        "what fools a robust one shows the class.",
    )


def _task(
    config: Config,
    plan: Plan,
    task: Task,
    found: dict[str, np.ndarray],
    summary: dict[str, Any],
) -> list[Any]:
    columns = {"standard": found["standard"], "robust": found["robust"]}
    if task.controls:
        columns = {**task.controls, **columns, "original": task.originals}
    elif task.name == "sketch":
        columns = {**columns, "original": task.originals}
    shown = {name: list(images[plan.shown]) for name, images in columns.items()}
    grid = figures.map_grid(
        list(task.starts[plan.shown]),
        shown,
        display="as_is",
        labels=[plan.dataset.class_names[label] for label in task.labels[plan.shown]],
        first=f"start ({task.start_is})" if task.start_is else "start",
    )
    about = summary["tasks"][task.name]
    blocks: list[Any] = [
        Picture(
            task.name,
            grid,
            alt=f"{task.name}: images made by both networks from the same starts",
            caption=f"{_CAPTIONS[task.name]} L2 eps {about['eps']:g}.",
        )
    ]
    if task.name in summary["restored"]:
        blocks.append(
            Table(
                caption="Compared with the originals, means with 95 % intervals over images. "
                "Images equal to their originals have no PSNR and are left out of it",
                columns=["made by", "PSNR in dB", "equal images", "SSIM"],
                rows=[
                    [
                        name,
                        format_number(values["psnr"], 1),
                        values["equal"] or None,
                        format_number(values["ssim"]),
                    ]
                    for name, values in summary["restored"][task.name].items()
                ],
            )
        )
    if task.name == "generation" and summary["spread"]:
        spread = dict(summary["spread"])
        judge = spread.pop("judge")
        blocks.append(
            Table(
                caption=f"Compared with other real images, in the representation of {judge}: "
                "Fréchet distance (lower: closer; real images of the same number are the floor) "
                "and mean distance of two pictures",
                columns=["pictures", "Fréchet distance", "diversity"],
                rows=[
                    [name, format_number(values["frechet"]), format_number(values["diversity"])]
                    for name, values in spread.items()
                ],
            )
        )
    return blocks


def _read(summary: dict[str, Any]) -> Table:
    rows = []
    for judge, found in summary["read"].items():
        for task, rates in found.items():
            rows.append(
                [
                    f"{judge.replace('_', ' ')}: {task}",
                    rates["start"],
                    rates["standard"],
                    rates["robust"],
                ]
            )
        rows.append(
            [
                f"{judge.replace('_', ' ')}: real images",
                summary["judges_on_real"][judge],
                None,
                None,
            ]
        )
    return Table(
        caption="How often an independent network recognises the target class",
        columns=["network: images", "in the start", "standard network's", "robust network's"],
        rows=rows,
    )


def findings(summary: dict[str, Any]) -> list[str]:
    """States the findings of this run in plain words."""
    told = []
    for judge, found in summary["read"].items():
        parts = [
            f"{task} {100 * rates['standard'].mean:.0f} and {100 * rates['robust'].mean:.0f} %"
            for task, rates in found.items()
        ]
        told.append(
            f"{judge.replace('_', ' ').capitalize()} recognises the class in the pictures of the "
            f"standard and of the robust network: {', '.join(parts)}."
        )
    for task, found in summary["restored"].items():
        parts = [f"{name} {format_number(values['psnr'], 1)}" for name, values in found.items()]
        told.append(f"{task.capitalize()}, PSNR in dB: {', '.join(parts)}.")
    if summary["spread"]:
        spread = {k: v for k, v in summary["spread"].items() if k != "judge"}
        told.append(
            "Fréchet distance to real images: "
            + ", ".join(f"{name} {format_number(v['frechet'])}" for name, v in spread.items())
            + "."
        )
    return told
