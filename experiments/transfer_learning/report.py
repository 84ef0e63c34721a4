"""Draws the figures and writes the report of `experiments.transfer_learning`."""

from __future__ import annotations

from typing import Any

from advfeat import figures
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_rate, write_report

from ..shared.words import capital, per_cent, terms, training_words, unless_it_holds
from .flags import Config
from .plan import WAYS, Plan


def write(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    """Draws the figures and writes `report.html`."""
    found = summary["target_accuracy"]
    names = [f"{eps:g}" for eps in plan.eps]
    series = {way: [found[way][name] for name in names] for way in WAYS}
    series |= {f"{way}, without a source": [found[way]["none"]] * len(names) for way in WAYS}
    chart = figures.curves(
        list(plan.eps),
        series,
        xlabel="L2 eps of the source's training",
        ylabel="accuracy on the target's test images",
        chance=1 / plan.target.num_classes,
    )
    lead = Picture(
        "transfer",
        chart,
        alt="Accuracy on the target against the eps of the source",
        caption="Frozen: a linear classifier on the representation. Fine-tuned: all weights. Bands "
        "are 95 % intervals over test images and seeds.",
    )
    told = "; ".join(
        f"{way}, {per_cent(best['target_accuracy'])} of the target's test images are classified "
        f"correctly from a robust source and {per_cent(found[way]['0'])} from the standard one"
        f"{unless_it_holds(claim)}"
        for (way, best), claim in zip(summary["chosen"].items(), summary["claims"], strict=True)
    )
    write_report(
        run,
        summary,
        title=f"Do robust representations transfer better? {config.dataset} to {config.target}",
        sentence="Is a robust network a better start for another task than a standard one? "
        f"{capital(told)}.",
        lead=lead,
        terms=terms(
            "eps",
            "L2",
            "robust network",
            "representation",
            "interval",
            source="the network trained first, on the first task; the target is the second task",
            frozen="the source's representation stays fixed and only a linear classifier is "
            "trained; fine-tuned: all weights are trained further",
        ),
        findings=[
            f"{way.capitalize()}: robust source {format_rate(best['target_accuracy'])} (eps "
            f"{', '.join(f'{eps:g}' for eps in best['eps'])}, each chosen by the other seeds' "
            f"networks, on held-out images); standard source {format_rate(found[way]['0'])}; "
            f"without a source {format_rate(found[way]['none'])}."
            for way, best in summary["chosen"].items()
        ],
        introduction=(
            f"Sources: {summary['seeds']} networks per eps, classes "
            f"{', '.join(summary['source']['classes'])}, {summary['train_examples']} images. "
            f"Target: classes {', '.join(summary['target']['classes'])}, "
            f"{summary['target_examples']} training images, another draw for each seed, "
            f"{summary['evaluation_examples']} test images. The eps of a seed is chosen by the "
            f"other seeds' networks, on {summary['choice_examples']} training images of the target "
            "that no network saw."
        ),
        sections=[
            Section(
                "Accuracy on the target",
                [
                    Table(
                        caption="With 95 % intervals over test images and seeds",
                        columns=["source", "on its own test set", *WAYS],
                        rows=[
                            [
                                name if name == "none" else f"eps {name}",
                                summary["source_accuracy"].get(name),
                                *(found[way][name] for way in WAYS),
                            ]
                            for name in ("none", *names)
                        ],
                    ),
                ],
            ),
        ],
        recipe={
            "source": f"{config.dataset}, {summary['train_examples']} images",
            "target": f"{config.target}, {summary['target_examples']} training, "
            f"{summary['choice_examples']} choosing and {summary['evaluation_examples']} test "
            "images",
            **training_words(summary["recipe"]),
            "eps": plan.eps,
            "seeds": summary["seeds"],
        },
    )
