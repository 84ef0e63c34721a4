"""Draws the figures and writes the report of `experiments.sanity`."""

from __future__ import annotations

from typing import Any

import numpy as np

from advfeat import data, figures, saliency
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, format_rate, write_report
from advfeat.saliency import EDGES, title_of
from advfeat.stats import Estimate

from ..shared.words import terms, training_words
from .flags import Config
from .plan import KINDS, MEASURES, PAIRS, Plan


def write(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    summary: dict[str, Any],
    first: dict[str, dict[str, np.ndarray]],
) -> None:
    """Draws the figures and writes `report.html`."""
    lead, *blocks = _likeness(config, summary)
    blocks += [_table(config, summary), _maps(config, plan, first)]
    method = "gradient" if "gradient" in config.methods else config.methods[0]
    same, permuted = (
        summary["likeness"][MEASURES[0]][pair][method] for pair in ("again", "permuted")
    )
    write_report(
        run,
        summary,
        title=f"Do maps show what was learned? {config.dataset}",
        sentence=(
            "Does a saliency map show what a network has learned, or only the image? Two networks "
            "that learned the same labels have maps of rank correlation "
            f"{same.mean:.2f} (method: {title_of(method)}), a network that learned "
            f"permuted labels and one that learned the true ones of {permuted.mean:.2f}."
        ),
        lead=lead,
        terms=terms(
            "saliency map",
            "interval",
            **{
                "permuted labels": "training labels exchanged at random: what can be learned from "
                "them has nothing to do with the images",
                "rank correlation": "1 if two maps order the pixels alike, 0 if one says nothing "
                "about the other",
            },
        ),
        findings=[
            f"The networks fitted {format_rate(summary['learned']['permuted'])} of the permuted "
            "labels"
            + ("" if config.dry_run else _memorised(summary["learned"]["permuted"]))
            + "; they classify "
            f"{format_rate(summary['test_accuracy']['permuted'])} of the test images "
            f"correctly (true labels: {format_rate(summary['test_accuracy']['true'])})."
        ],
        introduction=(
            f"{summary['seeds']} networks of each kind, {summary['train_examples']} training "
            f"images, maps of {summary['images']} test images."
        ),
        sections=[Section("How alike maps are", blocks)],
        recipe={
            "data": f"{config.dataset}: {summary['train_examples']} training images, maps of "
            f"{summary['images']} test images",
            **training_words(plan.recipe.summary()),
            "seeds": summary["seeds"],
        },
    )


def _memorised(learned: Estimate) -> str:
    enough = learned.low is not None and learned.low > 0.95
    return " (memorised)" if enough else " (too few for this test: train longer)"


def _likeness(config: Config, summary: dict[str, Any]) -> list[Any]:
    blocks = []
    words = {
        "rank_correlation": "rank correlation of two maps (100 %: the same)",
        "ssim": "SSIM of two pictures (100 %: the same)",
    }
    for measure in MEASURES:
        pairs = summary["likeness"][measure]
        chart = figures.bars(
            {
                title_of(method).replace(" ", "\n"): {
                    "same labels": pairs["again"][method],
                    "permuted labels": pairs["permuted"][method],
                    "another image": pairs["unrelated"][method],
                }
                for method in config.methods
            },
            ylabel=words[measure],
        )
        blocks.append(
            Picture(
                measure,
                chart,
                alt=f"{words[measure]}, a pair of bars for each method",
                caption="Maps of a network trained on true labels compared with those of another "
                "one trained on the same labels, of one trained on permuted labels, and of "
                "another image. If the second bar is as high as the first, the map does not show "
                "what was learned. (Edges are the same for all networks: 100 %.)",
            )
        )
    return blocks


def _table(config: Config, summary: dict[str, Any]) -> Table:
    return Table(
        caption="Means with 95 % intervals over images and seeds",
        columns=[
            "method",
            "rank correlation, same labels",
            "permuted labels",
            "another image",
            "SSIM, same labels",
            "permuted labels",
            "another image",
        ],
        rows=[
            [
                title_of(method),
                *(
                    format_number(summary["likeness"][measure][pair][method])
                    for measure in MEASURES
                    for pair in PAIRS
                ),
            ]
            for method in config.methods
        ],
    )


def _maps(config: Config, plan: Plan, first: dict[str, dict[str, np.ndarray]]) -> Picture:
    some = data.draw_rows(plan.labels, config.shown, seed=config.seed)
    grid = figures.map_grid(
        [plan.images[index] for index in some for _ in KINDS],
        {
            title_of(method): [first[kind][method][index] for index in some for kind in KINDS]
            for method in config.methods
        }
        | {EDGES: [saliency.edges(plan.images[index]) for index in some for _ in KINDS]},
        display="heat",
        labels=[kind for _ in some for kind in KINDS],
    )
    return Picture(
        "maps",
        grid,
        alt="A row per image and network, a column per method",
        caption="Networks that learned true labels, true labels from other initial weights, "
        "and permuted labels.",
    )
