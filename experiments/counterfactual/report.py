"""Draws the figures and writes the report of `experiments.counterfactual`."""

from __future__ import annotations

from typing import Any

import numpy as np

from advfeat import data, figures
from advfeat.features import representations
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, write_report

from ..shared.two_networks import data_words, networks_words
from ..shared.words import per_cent, terms
from .flags import Config
from .plan import Plan
from .search import WAYS, Found


def write(
    config: Config, plan: Plan, run: RunDirectory, found: dict[str, Found], summary: dict[str, Any]
) -> None:
    """Draws the figures and writes `report.html`."""
    rows = [
        [
            f"{name}, {way} {config.features}",
            part["turned"][way],
            format_number(part["distance"][way]),
            format_number(part["nearest"]),
            f"{100 * part['off'][way]:.0f} %",
        ]
        for name, part in summary["networks"].items()
        for way in WAYS
    ]
    write_report(
        run,
        summary,
        title=f"Enhance the top {config.features} features: {config.dataset}",
        sentence=(
            f"Is a wrong prediction corrected by enhancing the {config.features} features "
            "that speak most for the true class? "
            + "; ".join(
                f"in {per_cent(part['turned']['top'])} of the {part['wrong']} errors of the {name} "
                f"network ({per_cent(part['turned']['random'])} with features drawn at random)"
                for name, part in summary["networks"].items()
            ).capitalize()
            + "."
        ),
        lead=_picture(config, plan, found),
        terms=terms(
            "feature",
            "unit",
            "robust network",
            "L2",
            "interval",
            enhanced="the image is changed, within an L2 distance, so that the units react more",
        ),
        findings=[
            f"{name.capitalize()} network: enhancing the top {config.features} features turns "
            f"{100 * part['turned']['top'].mean:.0f} % of {part['wrong']} wrong predictions "
            f"into the label (random features: {100 * part['turned']['random'].mean:.0f} %), "
            f"by a change of {format_number(part['distance']['top'])} in L2."
            for name, part in summary["networks"].items()
        ],
        introduction=(
            f"Features are units of the layer {config.layer!r}. Those that speak most for the "
            f"label against the prediction are enhanced within an L2 distance of {config.eps:g}. "
            + data_words(plan.dataset)
        ),
        sections=[
            Section(
                "How often",
                [
                    Table(
                        caption="Wrong predictions turned into the label, the distance of "
                        "those that were turned, and that of the nearest image of the label by "
                        "any change",
                        columns=[
                            "network, features",
                            "turned",
                            "L2 distance",
                            "nearest of all",
                            "features that were off",
                        ],
                        rows=rows,
                    )
                ],
            ),
        ],
        recipe={
            **networks_words(config, plan.networks, plan.dataset),
            "layer": config.layer,
            "eps": config.eps,
            "steps": config.steps,
            "seed": config.seed,
        },
    )


def _picture(config: Config, plan: Plan, found: dict[str, Found]) -> Picture:
    """Draws the rows of both networks; turned images are shown in proportion to their number."""
    order = {
        name: data.draw_rows(part.turned["top"], config.shown, seed=config.seed)
        for name, part in found.items()
    }
    before = np.concatenate([plan.images[plan.wrong[name][order[name]]] for name in found])
    after = np.concatenate([part.changed["top"][order[name]] for name, part in found.items()])
    factor = figures.magnification(after - before)
    columns: dict[str, list[Any]] = {
        "after": list(after),
        f"change × {factor}": list(np.clip(0.5 + factor * (after - before), 0, 1)),
    }
    for rank in range(min(config.features, 2)):
        best = [
            plan.images[representations.extremes(part.values[:, unit], 2)[0]]
            for name, part in found.items()
            for unit in part.units["top"][order[name], rank]
        ]
        for example in range(2):
            columns[f"feature {rank + 1}, {'ab'[example]}"] = [pair[example] for pair in best]
    labels = [
        label for name, part in found.items() for label in _labels(plan, name, part, order[name])
    ]
    grid = figures.map_grid(list(before), columns, display="as_is", labels=labels, first="before")
    turned = " and ".join(
        f"{int(part.turned['top'][order[name]].sum())} of the {len(order[name])} of the {name} "
        "network"
        for name, part in found.items()
    )
    return Picture(
        "enhanced",
        grid,
        alt="Wrongly predicted images of both networks before and after enhancing two features",
        caption="On the left the network, the label, the prediction, and the units "
        f"enhanced. Those that were turned come first: {turned} are predicted as the label after. "
        "On the right, the two test images that activate each feature most.",
    )


def _labels(plan: Plan, name: str, part: Found, order: np.ndarray) -> list[str]:
    names = plan.dataset.class_names
    return [
        f"{name}\n{names[plan.labels[place]]}, predicted\n{names[said]}; units\n"
        + ", ".join(str(unit) for unit in part.units["top"][row, :2])
        for row, place, said in zip(
            order, plan.wrong[name][order], part.predicted[order], strict=True
        )
    ]
