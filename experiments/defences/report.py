"""Draws the figures and writes the report of `experiments.defences`."""

from __future__ import annotations

from typing import Any

import numpy as np

from advfeat import figures
from advfeat.runs.directory import RunDirectory
from advfeat.runs.kinds import format_eps
from advfeat.runs.report import Block, Picture, Section, Table, write_report
from advfeat.threats.norms import title

from ..shared.words import decided, of_norms, steps_words, terms, training_words
from .flags import Config
from .plan import PLAIN, ROBUST, SHOWN, Plan
from .summary import caught, findings, outcome

IN_ONE_PICTURE = 7  # with more, labels would overlap


def write(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    """Draws the figures and writes `report.html`."""
    found = summary["networks"]
    honest, wrapped = [PLAIN, ROBUST], list(plan.defences)
    pictures = []
    for number, start in enumerate(range(0, len(wrapped), IN_ONE_PICTURE - 1), 1):
        groups = {
            SHOWN.get(name, name).replace(" ", "\n"): {
                "under FGSM": found[name]["fgsm_accuracy"],
                "under the suite": found[name]["robust_accuracy"],
            }
            for name in [*honest, *wrapped[start : start + IN_ONE_PICTURE - 1]]
        }
        figure = figures.bars(groups, ylabel="accuracy under attack")
        pictures.append(
            Picture(
                f"defences_{number}",
                figure,
                alt="Bars of accuracy under FGSM and under the suite for each network",
                caption="Blue: accuracy under FGSM. Grey: accuracy under the suite.",
            )
        )
    table = Table(
        caption="Accuracy, 95 % intervals over test points; of a defence that draws, over its "
        "draws as well (20 an image)",
        columns=["network", "outcome", "clean", "FGSM", "suite", "warnings"],
        rows=[
            [
                SHOWN.get(name, name),
                outcome(entry, name),
                entry["clean_accuracy"],
                entry["fgsm_accuracy"],
                entry["robust_accuracy"],
                ", ".join(entry["codes"]) or None,
            ]
            for name, entry in found.items()
        ],
    )
    reasons = [
        [SHOWN.get(name, name), warned["code"], warned["sentence"]]
        for name, entry in found.items()
        for warned in entry["warnings"]
    ]
    blocks: list[Block] = ["No check gave a warning."]
    if config.dry_run:
        blocks = ["Not checked: a dry run leaves out the checks that attack."]
    if reasons:
        columns = ["network", "code", "what was seen"]
        blocks = [Table(caption="Every warning", columns=columns, rows=reasons)]
    count = sum(caught(found[name]) for name in plan.defences)
    verdict = f", and {count} of {len(plan.defences)} are broken or marked as not to be trusted"
    write_report(
        run,
        summary,
        title=f"Broken defences: {config.dataset}",
        sentence=(
            "Does a defence that one weak attack cannot break keep its promise? Under FGSM alone "
            f"{len(plan.defences)} broken defences classify "
            f"{100 * np.mean([found[name]['fgsm_accuracy'].mean for name in plan.defences]):.0f}"
            "\u00a0% of the attacked images correctly on average; under a whole suite of attacks "
            f"{100 * np.mean([found[name]['robust_accuracy'].mean for name in plan.defences]):.0f}"
            f"\u00a0% remain{verdict if decided(summary['claims']) else ''}."
        ),
        lead=pictures[0],
        terms=terms(
            "eps",
            *of_norms(config.norm),
            "FGSM",
            "robust accuracy",
            "interval",
            **{
                "suite": "several different attacks, each on the images that still stand",
                "defence": "an addition before or behind a network that is meant to make it "
                "robust; these only hide the gradient",
            },
        ),
        findings=findings(plan, summary),
        introduction=(
            f"{summary['examples']} test images, {title(config.norm)} eps "
            f"{format_eps(plan.eps)}, "
            f"attacked one after the other by {', '.join(summary['attacks'])}. Each defence wraps "
            "the same standard network, so any accuracy above that network's own robust accuracy "
            "is due to an attack that failed."
        ),
        sections=[
            Section("FGSM beside the suite", [*pictures[1:], table]),
            Section("Why not to believe it", blocks),
        ],
        recipe={
            "data": f"{config.dataset}: {len(plan.dataset.train)} training and "
            f"{summary['examples']} test images of {plan.dataset.num_classes} classes",
            "undefended network": training_words(plan.standard.summary()),
            "adversarially trained network": {
                **training_words(plan.robust.record()),
                "training eps": format_eps(plan.eps),
            },
            "norm": title(config.norm),
            "eps": format_eps(plan.eps),
            "attacks": list(summary["attacks"]),
            "steps": steps_words(plan.attack.attacks),
            "seed": config.seed,
        },
    )
