"""Draws the figures and writes the report of `experiments.ground_truth`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from advfeat import figures, stats
from advfeat.features import planted
from advfeat.features.planted import FEATURES
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, write_report
from advfeat.saliency import title_of
from advfeat.stats import Claim

from ..shared.words import per_cent, terms, training_words
from .changes import steps_of

if TYPE_CHECKING:
    from .changes import Changes
    from .flags import Config
    from .plan import Plan


def write(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    maps: dict[str, dict[str, np.ndarray]],
    changes: dict[str, Changes],
    summary: dict[str, Any],
) -> None:
    """Draws the figures and writes `report.html`."""
    told = summary["networks"]
    changed = _changed(plan, changes, summary)
    pointing = told["shape"]["pointing"]
    method, most = stats.chosen({name: found["shape"] for name, found in pointing.items()})
    write_report(
        run,
        summary,
        title="Drawn images: what networks use, and what shows it",
        sentence=(
            "Do maps, pictures and counterfactuals show what a network provably uses? Where shape "
            "and texture both tell the class, the standard network classifies "
            f"{per_cent(told['standard']['uses']['texture'])} of the images correctly by texture "
            f"alone and the robust one {per_cent(told['robust']['uses']['shape'])} by shape "
            f"alone; at a shape that is all a network can use, the best of {len(pointing)} methods "
            f"({title_of(method)}, chosen after the fact) points with an area of {most.mean:.2f} "
            "(chance: 0.5)."
        ),
        lead=_used(summary),
        terms=terms(
            "feature",
            "saliency map",
            "robust network",
            "interval",
            **{
                "counterfactual": "the nearest image that the network takes for another class",
                "area": "under the ROC curve: how well the map's values tell the pixels of the "
                "feature from the others",
            },
        ),
        findings=findings(summary, dry_run=config.dry_run),
        introduction=(
            "Drawn images: the shape is the robust feature, a texture of signs, 6/255 strong, the "
            "non-robust one, a mark in a corner the spurious cue. Networks: of the shape, of the "
            "texture, of the mark (nothing else told the class); a standard and a robust one that "
            "could use shape or texture; and a robust one that could use the mark too. "
            f"{summary['images']} test images are scored."
        ),
        sections=[
            Section("What each network uses", [_uses(summary)]),
            Section("Maps", [*_compared(config, summary), *_maps(plan, maps), _pointing(summary)]),
            Section("Pictures and counterfactuals", changed),
        ],
        recipe={
            "data": f"drawn images, {summary['images']} of them scored",
            **{
                f"network {name!r}": f"trained on {where}"
                for name, where in plan.trained_on.items()
            },
            "standard networks": training_words(plan.recipes["standard"].record()),
            "robust networks": training_words(summary["recipe"]),
            "steps of pictures and counterfactuals": steps_of(config),
            "seed": config.seed,
        },
    )


def _used(summary: dict[str, Any]) -> Picture:
    parts = summary["networks"]
    rates = [[part["uses"][feature] for feature in FEATURES] for part in parts.values()]
    figure = figures.matrix(
        [[rate.mean for rate in row] for row in rates],
        [name.replace("_", " ") for name in parts],
        FEATURES,
        xlabel="the one feature that tells the class",
        ylabel="network",
        barlabel="accuracy",
        counts=[[rate.n for rate in row] for row in rates],
        intervals=[[(rate.low, rate.high) for rate in row] for row in rates],
    )
    return Picture(
        "uses",
        figure,
        alt="Accuracy of every network where one feature alone tells the class",
        caption="Accuracy on images in which one feature alone tells the class (chance: 25 %). A "
        "network uses the feature by which it is right.",
    )


def _uses(summary: dict[str, Any]) -> Table:
    return Table(
        caption="Accuracy where one feature alone tells the class (chance: 25 %)",
        columns=["network", "images like its own", *FEATURES],
        rows=[
            [name, part["accuracy"], *(part["uses"][feature] for feature in FEATURES)]
            for name, part in summary["networks"].items()
        ],
    )


def _maps(plan: Plan, maps: dict[str, dict[str, np.ndarray]]) -> list[Picture]:
    blocks = []
    for name, found in maps.items():
        some = plan.shown
        grid = figures.map_grid(
            list(plan.images(name)[some]),
            {title_of(method): list(values[some]) for method, values in found.items()},
            display="heat",
            labels=[planted.SHAPES[label] for label in plan.labels[some]],
        )
        blocks.append(
            Picture(
                f"maps_{name.replace(' ', '_')}",
                grid,
                alt=f"Maps of the network {name}, a row per image, a column per method",
                caption=f"Network: {name} (of {plan.trained_on[name]}). Bright pixels matter most "
                "according to the method. Left: the label; features that did not determine it in "
                "training do not follow it.",
            )
        )
    return blocks


def _compared(config: Config, summary: dict[str, Any]) -> list[Table]:
    parts = summary["comparisons"]
    if not parts:
        return []
    table = Table(
        caption="How well a method points at a feature that the network uses (area under the ROC "
        "curve, 0.5 is chance), its control, and whether it beats the control, paired by image. "
        "The control is the edges of the image, or the same method on a robust network that does "
        "not use the feature: a method that does not beat it shows the feature, not its use",
        columns=[
            "method",
            *(
                f"{part['feature']}, network {part['network']!r}; control: {part['control']}"
                for part in parts
            ),
        ],
        rows=[
            [title_of(method), *(_beside(part["methods"][method]) for part in parts)]
            for method in config.methods
        ],
    )
    return [table]


def _beside(claim: Claim) -> str:
    means = "; ".join(f"{side.mean:.2f}" for side in (claim.effect, claim.control))
    return means if claim.verdict is None else f"{means}: {claim.verdict}"


def _pointing(summary: dict[str, Any]) -> Table:
    rows = []
    for name, part in summary["networks"].items():
        for method, scores in part["pointing"].items():
            texture = part["texture"].get(method)
            rows.append(
                [
                    f"{name}: {title_of(method)}",
                    format_number(scores["shape"]),
                    format_number(scores["mark"]),
                    None if texture is None else format_number(texture),
                ]
            )
    return Table(
        caption="How well a map tells the pixels of the shape and of the mark from the others "
        "(area under the ROC curve, 0.5 is chance), and its cosine with the texture of its class",
        columns=["network: method", "shape", "mark", "texture"],
        rows=rows,
    )


def _changed(plan: Plan, changes: dict[str, Changes], summary: dict[str, Any]) -> list[Any]:
    first, *further = (
        [change.picture[k] for change in changes.values()] for k in range(len(planted.SHAPES))
    )
    pictures = figures.map_grid(
        first,
        dict(zip(planted.SHAPES[1:], further, strict=True)),
        display="as_is",
        labels=[name.replace("_", " ") for name in changes],
        first=planted.SHAPES[0],
    )
    some = plan.shown
    turned = figures.map_grid(
        [plan.images("standard")[index] for index in some],
        {
            name: [change.image[index] for index in some]
            for name, change in changes.items()
            if name in ("standard", "robust")
        },
        display="as_is",
        labels=[
            f"{planted.SHAPES[plan.labels[i]]} to {planted.SHAPES[plan.target[i]]}" for i in some
        ],
    )
    rows = [
        [
            name,
            format_number(part["picture"]["texture"]),
            format_number(part["picture"]["mark"]),
            part["counterfactual"]["success"],
            *(
                format_number(part["counterfactual"].get(key))
                for key in ("distance", "texture", "mark", "shape")
            ),
        ]
        for name, part in summary["networks"].items()
    ]
    one = summary["networks"]["standard"]["picture"]["mark_area"]
    areas = summary["networks"]["standard"]["counterfactual"]
    return [
        Picture(
            "pictures",
            pictures,
            alt="Pictures of every class by every network",
            caption="Pictures of the classes, from grey, within an L2 ball of 4, a row per "
            "network. What a network does not react to in grey, they cannot show.",
        ),
        Picture(
            "counterfactuals",
            turned,
            alt="Images and the nearest ones of the next class, standard and robust network",
            caption="The nearest image (L2) that the network takes for the next class.",
        ),
        Table(
            caption="What is in pictures of a class, and what a counterfactual changes: cosine "
            "with the texture, and share of the squared change in the corner of the class's mark "
            f"(pictures: {100 * one:.1f} % of the image; counterfactuals, both classes' corners: "
            f"{100 * areas['mark_area']:.1f} %) and on the shape ({100 * areas['shape_area']:.1f} "
            "%). Counterfactuals: of those that were turned",
            columns=[
                "network",
                "picture: texture",
                "picture: mark",
                "turned",
                "L2 distance",
                "counterfactual: texture",
                "mark",
                "shape",
            ],
            rows=rows,
        ),
    ]


def findings(summary: dict[str, Any], *, dry_run: bool = False) -> list[str]:
    """States the findings of this run in plain words; a dry run decides nothing."""
    told = [
        f"The network {name!r} has learned nothing that can be distinguished from chance "
        f"({100 * part['accuracy'].mean:.0f} % of test images like its own, chance 25): its maps, "
        "pictures and counterfactuals say nothing. "
        "Try more --epochs or --robust_epochs, another --seed or a smaller --eps."
        for name, part in summary["networks"].items()
        if not (part["learned"] or dry_run)
    ]
    for name, part in summary["networks"].items():
        shares = ", ".join(f"{f} {100 * part['uses'][f].mean:.0f} %" for f in FEATURES)
        told.append(f"The network {name!r} is correct by one feature alone: {shares}.")
    for feature in ("shape", "mark"):
        pointing = summary["networks"][feature]["pointing"]
        scores = {method: found[feature] for method, found in pointing.items()}
        (best, most), (worst, least) = stats.chosen(scores), stats.chosen(scores, best=min)
        told.append(
            f"The network of the {feature}: {title_of(best)} points at it best (area "
            f"{format_number(most)}), {title_of(worst)} worst ({format_number(least)}; 0.5 "
            f"is chance): of {len(scores)} methods, selected after the fact, for which the "
            "intervals account."
        )
    parts = summary["networks"]
    told.append(
        "Cosine of a counterfactual's change with the difference of the two textures: "
        + ", ".join(
            f"{name} {format_number(parts[name]['counterfactual'].get('texture'))}"
            for name in ("texture", "standard", "robust", "robust with marks")
        )
        + "."
    )
    return told
