"""Draws the figures and writes the report of `experiments.tradeoff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advfeat import figures
from advfeat.runs.directory import RunDirectory
from advfeat.runs.kinds import format_eps
from advfeat.runs.report import Block, Picture, Section, Table, format_number, write_report
from advfeat.threats.norms import title

from ..shared.words import capital, of_norms, per_cent, terms, training_words
from .summary import findings

if TYPE_CHECKING:
    from .flags import Config
    from .plan import Plan


def write(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    """Draws the figures and writes `report.html`."""
    chance = 1 / plan.dataset.num_classes
    sections: list[Section] = []
    for norm, part in summary["norms"].items():
        blocks = _sweep(norm, part, chance)
        sections.append(Section(f"{title(norm)}: accuracy against training eps", blocks))
    how = summary["recipe"]["training"]
    measured = " and ".join(
        f"{title(norm)} eps {format_eps(part['eval_eps'])}"
        for norm, part in summary["norms"].items()
    )
    write_report(
        run,
        summary,
        title=f"Does robustness cost accuracy? {config.dataset}",
        sentence=_sentence(summary),
        lead=_frontier(summary),
        terms=terms("eps", *of_norms(*summary["norms"]), "attack", "fooling rate", "interval"),
        findings=findings(summary),
        introduction=(
            f"{summary['seeds']} networks for each norm and training eps, {how['epochs']} passes "
            f"over {summary['train_examples']} images, {summary['recipe']['attack_steps']} PGD "
            f"steps in training; at eps 0 it is standard training, the same networks for all "
            f"norms. Attacked at {measured}: {summary['attack']}, on "
            f"{summary['evaluation_examples']} test images. The fooling rate is of the images that "
            "a network gets right unattacked. A trade-off is called shown if, between the smallest "
            "and the largest eps, the fooling rate falls and the clean accuracy falls, each by a "
            "paired difference whose interval lies above 0, at a level corrected for all claims."
        ),
        sections=sections,
        recipe={
            "data": f"{config.dataset}: {summary['train_examples']} training and "
            f"{summary['evaluation_examples']} test images of {plan.dataset.num_classes} classes",
            **training_words(summary["recipe"]),
            **{
                f"training eps, {title(norm)}": [point["eps"] for point in part["by_eps"]]
                for norm, part in summary["norms"].items()
            },
            "attacked at": measured,
            "attack": summary["attack"],
            "seeds": summary["seeds"],
        },
    )


def _sentence(summary: dict[str, Any]) -> str:
    """States question and answer in one paragraph."""
    found = []
    for norm, part in summary["norms"].items():
        first, last = part["by_eps"][0], part["by_eps"][-1]
        found.append(
            f"when trained against {title(norm)} attacks, networks are fooled on "
            f"{per_cent(last['fooling_rate'])} of the images instead of "
            f"{per_cent(first['fooling_rate'])}, and classify "
            f"{per_cent(last['clean_accuracy'])} of the unchanged ones correctly instead of "
            f"{per_cent(first['clean_accuracy'])}"
        )
    words = "; ".join(found)
    return f"Does robustness cost accuracy? {capital(words)}."


def _frontier(summary: dict[str, Any]) -> Picture:
    series = {
        f"{title(norm)}, attacked at {format_eps(part['eval_eps'])}": {
            format_eps(point["eps"]): (point["robust_accuracy"], point["clean_accuracy"])
            for point in part["by_eps"]
        }
        for norm, part in summary["norms"].items()
    }
    chart = figures.frontier(series, ylabel="accuracy on clean images")
    return Picture(
        "frontier",
        chart,
        alt="Clean accuracy against accuracy under attack, a point per training eps",
        caption="One point per training eps, written beside it; bars are 95 % intervals "
        "over networks and test images. Where a line falls to the right, robustness costs "
        "accuracy. The axes cover the points only.",
    )


def _sweep(norm: str, part: dict[str, Any], chance: float) -> list[Block]:
    points = part["by_eps"]
    chart = figures.curves(
        [point["eps"] for point in points],
        {
            "clean images": [point["clean_accuracy"] for point in points],
            f"attacked at eps {format_eps(part['eval_eps'])}": [
                point["robust_accuracy"] for point in points
            ],
            "fooling rate": [point["fooling_rate"] for point in points],
        },
        xlabel=f"eps of training ({title(norm)}, pixels in [0, 1])",
        ylabel="share of test images",
        chance=chance,
    )
    rows = [
        [
            format_eps(point["eps"]),
            point["clean_accuracy"],
            point["robust_accuracy"],
            point["fooling_rate"],
            point["collapsed"] or None,
        ]
        for point in points
    ]
    apart = part["smallest_less_largest"]
    return [
        Picture(
            f"sweep_{norm}",
            chart,
            alt=f"Clean accuracy, accuracy under attack and fooling rate against {norm} eps",
            caption="Bands are 95 % intervals over networks and test images.",
        ),
        Table(
            caption="95 % intervals over networks and test images",
            columns=[
                "training eps",
                "clean",
                "attacked",
                "fooling rate",
                "networks that did not learn",
            ],
            rows=rows,
        ),
        Table(
            caption="Smallest minus largest training eps, on the same test images",
            columns=["", "difference"],
            rows=[
                ["clean accuracy", apart["clean_accuracy"]],
                ["fooling rate", apart["fooling_rate"]],
            ],
        ),
        "Rank correlation of fooling rate and clean accuracy over training eps: "
        f"{format_number(part['rank_correlation'])}.",
    ]
