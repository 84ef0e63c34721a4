"""Draws the figures and writes the report of `experiments.roar`."""

from __future__ import annotations

from typing import Any

import numpy as np

from advfeat import data, figures, stats
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_rate, write_report
from advfeat.saliency import mean_pixel, removed, title_of

from ..shared.words import decided, per_cent, terms, training_words
from .flags import Config
from .plan import CONTROLS, RANDOM, Plan, shown_rows


def write(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    summary: dict[str, Any],
    rankings: dict[str, np.ndarray],
) -> None:
    """Draws the figures and writes `report.html`."""
    chart = figures.curves(
        [0.0, *plan.shares],
        {
            title_of(name): [summary["whole"], *values]
            for name, values in summary["accuracy"].items()
        },
        xlabel="share of the pixels removed, those ranked first",
        ylabel="accuracy of networks trained without them",
        chance=1 / plan.dataset.num_classes,
    )
    mean, images = mean_pixel(plan.train.image), plan.test.image[shown_rows(config, plan)]
    share = plan.shares[len(plan.shares) // 2]
    strips = figures.map_grid(
        list(images),
        {
            title_of(name): list(data.unit(removed(images, values, share, mean)))
            for name, values in rankings.items()
        },
        display="as_is",
    )
    together = stats.together(summary["mean_accuracy"])
    ranked = sorted(together.items(), key=lambda item: item[1].mean)
    lead = Picture(
        "roar",
        chart,
        alt="Accuracy against the share of pixels removed, a line per method",
        caption="The lower a line, the better the map identified what matters.",
    )
    best = next(name for name, _ in ranked if name not in CONTROLS)
    better = sum(claim.holds for claim in summary["claims"])
    verdict = f"; {better} of {len(config.methods)} methods are decidably better than random"
    write_report(
        run,
        summary,
        title=f"Remove and retrain: {config.dataset}",
        sentence=(
            "Do saliency maps know which pixels a network needs? Networks were retrained without "
            "the pixels that each map ranks first: their accuracy is "
            f"{per_cent(summary['mean_accuracy'][RANDOM])} without random pixels and "
            f"{per_cent(together[best])} for the best of {len(config.methods)} maps "
            f"({title_of(best)}, chosen after the fact)"
            f"{verdict if decided(summary['claims']) else ''}."
        ),
        lead=lead,
        terms=terms(
            "saliency map",
            "interval",
            random="pixels drawn by chance, the control: a map without information does as well",
        ),
        findings=[
            "From the best map to the worst (mean accuracy over the "
            "shares): "
            + ", ".join(f"{title_of(name)} {format_rate(rate)}" for name, rate in ranked)
            + ". The order was found after the fact; the intervals hold simultaneously."
        ],
        introduction=(
            f"{summary['seeds']} networks for every method and share, trained on "
            f"{summary['train_examples']} images and measured on {summary['evaluation_examples']} "
            "test images from which pixels were removed by the same map."
        ),
        sections=[
            Section(
                "Accuracy without the pixels",
                [
                    Table(
                        caption="Accuracy with 95 % intervals over test images and seeds",
                        columns=["method", *(f"{100 * s:.0f} % removed" for s in plan.shares)],
                        rows=[
                            [title_of(name), *rates] for name, rates in summary["accuracy"].items()
                        ],
                    ),
                    Picture(
                        "removed",
                        strips,
                        alt="Test images without the pixels that each method ranks first",
                        caption=f"{100 * share:.0f} % of the pixels removed.",
                    ),
                ],
            ),
        ],
        recipe={
            "data": f"{config.dataset}: {summary['train_examples']} training and "
            f"{summary['evaluation_examples']} test images of {plan.dataset.num_classes} classes",
            **training_words(summary["recipe"]),
            "shares": plan.shares,
            "seeds": summary["seeds"],
        },
    )
