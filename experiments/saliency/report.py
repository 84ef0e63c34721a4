"""Draws the figures and writes the report of `experiments.saliency`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from advfeat import figures, saliency, stats
from advfeat.rows import draw_rows
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, write_report
from advfeat.saliency import EDGES, Randomisation, title_of
from advfeat.stats import Estimate

from ..shared.two_networks import PAIR, data_words, networks_words
from ..shared.words import capital, terms, unless_it_holds

if TYPE_CHECKING:
    from .flags import Config
    from .plan import Plan

_GONE = 0.5
"""A map is called insensitive above this rank correlation with the trained network's map."""

_BASELINES = "expected_gradients"

_FEW = 2  # number of images shown for all networks

_DISPLAY = {
    "three_sigma": "Each map is shifted and scaled by itself, channel by channel: grey is its "
    "mean, black and white are 1.5 standard deviations away.",
    "heat": "The sum of absolute values over channels; the 99th percentile is the brightest.",
    "signed": "The sum over channels: red speaks for the class, blue against it.",
}


def write(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    found: dict[str, dict[str, np.ndarray]],
    sanity: dict[str, dict[str, Randomisation]],
    summary: dict[str, Any],
) -> None:
    """Draws the figures and writes `report.html`."""
    lead, *maps = _maps(config, plan, found)
    sections = [Section("Maps of further networks", maps)] if maps else []
    sections += [
        Section(
            f"{_network(name)} network",
            [
                *_numbers(part),
                *(_curves(name, part) if name in PAIR else []),
            ],
        )
        for name, part in summary["networks"].items()
    ]
    sections += [
        Section(
            f"Sanity checks of the {name} network",
            _sanity(name, tests, summary["networks"][name]),
        )
        for name, tests in sanity.items()
    ]
    if sanity:
        sections.append(Section("Maps along the cascade", _cascades(config, plan, sanity)))
    if len(plan.networks) > 1:
        sections.append(Section("Between networks", [_between(summary)]))
    write_report(
        run,
        summary,
        title=f"Which pixels a network uses: {config.dataset}",
        sentence=_sentence(summary),
        lead=lead,
        terms=terms(
            "saliency map",
            "robust network",
            "interval",
            gradient="how much the score of the class changes with each pixel",
        ),
        findings=findings(summary),
        introduction=(
            f"Maps of the {summary['score']} of each image's own class, for {summary['images']} "
            f"test images; SmoothGrad and its kind average {summary['samples']} copies with noise "
            f"of standard deviation {summary['sigma']:g}. Rank correlations are Spearman's, of "
            "absolute values over pixels. "
            + data_words(
                plan.dataset,
                *(["baselines of expected gradients"] if _BASELINES in config.methods else []),
            )
        ),
        sections=sections,
        recipe={
            **networks_words(config, plan.networks, plan.dataset),
            "images": summary["images"],
            "methods": [title_of(name) for name in config.methods],
            "samples": summary["samples"],
            "sigma": summary["sigma"],
            "seed": config.seed,
        },
    )


def _sentence(summary: dict[str, Any]) -> str:
    """States question and answer in one paragraph."""
    claim = summary["claims"][0]
    return (
        "Which pixels does a network use, and does a robust one use those that a person would? The "
        "gradient resembles the image itself (cosine, 0: not at all) with "
        f"{claim.effect.mean:.3f} in the robust network and {claim.control.mean:.3f} in the "
        f"standard one{unless_it_holds(claim)}."
    )


def _network(name: str) -> str:
    return capital(name.replace("_", " "))


def _maps(config: Config, plan: Plan, found: dict[str, dict[str, np.ndarray]]) -> list[Picture]:
    """Draws each image's maps by both networks below one another; few images for all networks."""
    pair = {name: found[name] for name in PAIR}
    blocks = [_grid(config, plan, "maps", pair, plan.shown)]
    if len(found) > len(PAIR):
        few = draw_rows(plan.labels, _FEW, seed=config.seed)
        blocks.append(_grid(config, plan, "maps_networks", found, few))
    return blocks


def _grid(
    config: Config,
    plan: Plan,
    name: str,
    found: dict[str, dict[str, np.ndarray]],
    shown: np.ndarray,
) -> Picture:
    rows = [(index, network) for index in shown for network in found]
    grid = figures.map_grid(
        [plan.images[index] for index, _ in rows],
        {
            title_of(method): [found[network][method][index] for index, network in rows]
            for method in config.methods
        },
        display=config.display,
        labels=[
            textwrap.fill(
                f"{plan.dataset.class_names[plan.labels[index]]}, {network.replace('_', ' ')}", 16
            )
            for index, network in rows
        ],
    )
    models = ", ".join(f"{_network(name)} ({plan.networks[name].spec.model})" for name in found)
    return Picture(
        name,
        grid,
        alt="A row per image and network, a column per method",
        caption=f"The same images by {models}. {_DISPLAY[config.display]}",
    )


def _curves(name: str, part: dict[str, Any]) -> list[Picture]:
    words = {
        "deletion": "share of the pixels replaced by grey",
        "insertion": "share of the pixels restored in the blurred image",
    }
    blocks = []
    for way, xlabel in words.items():
        # Without intervals, which would hide one another with so many lines.
        series = {
            capital(title_of(method)): _means(values["curves"][way])
            for method, values in part["methods"].items()
        }
        steps = len(next(iter(series.values()))) - 1
        chart = figures.curves(
            [place / steps for place in range(steps + 1)],
            series,
            xlabel=xlabel,
            ylabel="probability of the class",
            rates=False,
        )
        blocks.append(
            Picture(
                f"{way}_{name}",
                chart,
                alt=f"Probability of the class against the {xlabel}",
                caption=f"{capital(way)}, {name} network, means over images (intervals of the "
                "areas are in the table): the pixels that a method ranks first go first. Edges "
                "do not depend on the network.",
            )
        )
    return blocks


def _numbers(part: dict[str, Any]) -> list[Any]:
    columns = {
        "like_gradient": "rank correlation with the gradient",
        "like_edges": "with edges",
        "deletion": "area under deletion (lower: better)",
        "insertion": "insertion (higher: better)",
        "sensitivity": "sensitivity (lower: steadier)",
        "infidelity": "infidelity (0: perfect prediction)",
    }
    there = [key for key in columns if any(key in values for values in part["methods"].values())]
    return [
        Table(
            caption="Means with 95 % intervals over images",
            columns=["method", *(columns[key] for key in there)],
            rows=[
                [
                    capital(title_of(method)),
                    *(
                        "–"
                        if (key == "like_gradient" and method == "gradient")
                        or (key == "like_edges" and method == EDGES)
                        else format_number(values.get(key))
                        for key in there
                    ),
                ]
                for method, values in part["methods"].items()
            ],
        )
    ]


def _sanity(name: str, tests: dict[str, Randomisation], part: dict[str, Any]) -> list[Any]:
    words = {
        "cascading": (
            "modules with new weights, from the classifier down",
            "The cascading test: weights are randomised from the top down. A method whose line "
            "stays up shows the image, not the network.",
        ),
        "independent": (
            "the one module with new weights, from the classifier down",
            "The independent test: one module at a time has new weights.",
        ),
    }
    blocks: list[Any] = []
    for how, (xlabel, caption) in words.items():
        numbers = part["randomised"][how]
        places = list(range(1, len(numbers["modules"]) + 1))
        for measure, ylabel in (
            ("rank_correlation", "rank correlation with the trained network's map"),
            ("ssim", "SSIM with the trained network's picture"),
        ):
            chart = figures.curves(
                places,
                # Without intervals, as above: with ten lines they hide most.
                {
                    capital(title_of(method)): _means(values)
                    for method, values in numbers[measure].items()
                },
                xlabel=xlabel,
                ylabel=ylabel,
                rates=False,
            )
            blocks.append(
                Picture(
                    f"{how}_{measure}_{name}",
                    chart,
                    alt=f"{ylabel} against {xlabel}",
                    caption=f"{caption} Modules in order: {', '.join(numbers['modules'])}. Means "
                    "over images; their intervals are in summary.json.",
                )
            )
    return blocks


def _cascades(
    config: Config, plan: Plan, sanity: dict[str, dict[str, Randomisation]]
) -> list[Picture]:
    """Draws one figure per set of networks with the same modules, with rows by method."""
    tests = {name: found["cascading"] for name, found in sanity.items()}
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, test in tests.items():
        alike.setdefault(tuple(test.modules), []).append(name)
    blocks = []
    for modules, names in alike.items():
        rows = [(method, name) for method in tests[names[0]].first for name in names]
        grid = figures.map_grid(
            [plan.images[plan.few[0]]] * len(rows),
            {
                **{
                    column: [tests[name].first[method][place] for method, name in rows]
                    for place, column in enumerate(["trained", *modules])
                },
                EDGES: [saliency.edges(plan.images[plan.few[0]])] * len(rows),
            },
            display=config.display,
            labels=[
                textwrap.fill(f"{capital(title_of(method))}, {name}", 16) for method, name in rows
            ],
        )
        blocks.append(
            Picture(
                "_".join(["cascade", *names]),
                grid,
                alt="A row per method and network, a column per randomised module",
                caption="One image's maps along the cascade: each column randomises one module "
                "more. Last, the control, which uses no network: a map that comes to look "
                "like the edges shows the image.",
            )
        )
    return blocks


def _between(summary: dict[str, Any]) -> Table:
    pairs = list(next(iter(summary["between"].values())))
    return Table(
        caption="Rank correlation of two networks' maps of the same images: how much of a map "
        "depends on the architecture, and how much on the training",
        columns=["method", *(pair.replace("_", " ") for pair in pairs)],
        rows=[
            [capital(title_of(method)), *(format_number(values[pair]) for pair in pairs)]
            for method, values in summary["between"].items()
        ],
    )


def findings(summary: dict[str, Any]) -> list[str]:
    """States the findings of this run in plain words."""
    parts = summary["networks"]
    told = [
        "Cosine of image and gradient (absolute, both without their mean): "
        + ", ".join(
            f"{name.replace('_', ' ')} network {format_number(part['alignment'], 3)}"
            for name, part in parts.items()
        )
        + ".",
        "Length of the image along the gradient, |<x, g>| / |g|: "
        + ", ".join(
            f"{name.replace('_', ' ')} network {format_number(part['alignment_length'], 3)}"
            for name, part in parts.items()
        )
        + ".",
    ]
    for name in PAIR:
        methods, tests = parts[name]["methods"], parts[name]["randomised"]
        if "smoothgrad" in methods:
            told.append(
                f"{_network(name)} network: SmoothGrad ranks the pixels like the gradient with "
                f"a correlation of {format_number(methods['smoothgrad']['like_gradient'])}."
            )
        told.append(_soonest(name, methods))
        ranks = tests["cascading"]["rank_correlation"]
        last = {method: values[-1] for method, values in ranks.items() if values[-1] is not None}
        if not last or not all(value.known for value in last.values()):
            continue  # too few images for an interval, so nothing can be concluded
        stays = [
            title_of(method)
            for method, value in stats.together(last).items()
            if value.low is not None and value.low > _GONE
        ]
        told.append(
            f"{_network(name)} network, all weights randomised: "
            + (
                f"{', '.join(stays)} still make{'s' if len(stays) == 1 else ''} a map that ranks "
                f"like the trained network's (correlation above {_GONE:g})."
                if stays
                else f"no method's map still ranks like the trained network's (all correlations "
                f"can be below {_GONE:g})."
            )
        )
    return told


def _soonest(name: str, methods: dict[str, Any]) -> str:
    areas = {method: values["deletion"] for method, values in methods.items() if method != EDGES}
    best, area = stats.chosen(areas, best=min)
    return (
        f"{_network(name)} network: the class is lost fastest when {title_of(best)} "
        f"ranks the pixels (area {format_number(area)}, edges "
        f"{format_number(methods[EDGES]['deletion'])}; the least of {len(areas)} methods, so "
        "optimistic, but its interval accounts for the selection)."
    )


def _means(values: list[Estimate | None]) -> list[float | None]:
    return [None if value is None else value.mean for value in values]
