"""Draws the figures and writes the report of `experiments.evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import advfeat
from advfeat import figures
from advfeat.evaluation.result import SuiteResult
from advfeat.rows import draw_rows
from advfeat.runs.directory import RunDirectory
from advfeat.runs.kinds import format_eps
from advfeat.runs.report import (
    Block,
    Picture,
    Section,
    Table,
    format_rate,
    format_seconds,
    write_report,
)
from advfeat.threats.norms import title

from ..shared.words import network_words, of_norms, per_cent, steps_words, terms

if TYPE_CHECKING:
    from .flags import Config
    from .plan import Plan


def write(
    config: Config, plan: Plan, run: RunDirectory, result: SuiteResult, summary: dict[str, Any]
) -> None:
    """Draws the figures and writes `report.html`."""
    lead, table = _attacks(config, summary)
    sections = [
        Section("Accuracy, attack by attack", [table]),
        Section("When not to believe it", _warnings(config, summary)),
        Section("How the attacks went", _curves(config, plan, summary)),
    ]
    gallery = _gallery(config, plan, run, result)
    if gallery:
        sections.append(Section("What fooled it", gallery))
    write_report(
        run,
        summary,
        title=f"How robust is {config.checkpoint}?",
        sentence=_sentence(config, summary),
        lead=lead,
        terms=terms("eps", *of_norms(config.norm), "attack", "robust accuracy", "interval"),
        findings=_findings(config, plan, summary),
        sections=sections,
        recipe={
            "network": network_words(str(config.checkpoint), plan.network),
            "data": f"{config.dataset}: {summary['num_examples']} test images of "
            f"{len(plan.class_names)} classes",
            "norm": title(config.norm),
            "eps": format_eps(summary["eps"]),
            "attacks": list(summary["attacks"]),
            "steps": steps_words(plan.suite.attacks),
            **({"draws of the random network": result.looks} if result.looks > 1 else {}),
            "seed": config.seed,
        },
    )


def _sentence(config: Config, summary: dict[str, Any]) -> str:
    """States question and answer in one paragraph."""
    believed = {
        True: "and none of the checks speaks against that number",
        False: "but warnings below say that this number cannot be trusted",
        None: "a number that has not been checked",
    }[summary["trusted"]]
    return (
        f"How often is this network right when an image may be changed by up to "
        f"{title(config.norm)} eps {format_eps(summary['eps'])} to mislead it? Of "
        f"{summary['num_examples']} test images it classifies "
        f"{per_cent(summary['clean_accuracy'])} correctly as they are and "
        f"{per_cent(summary['robust_accuracy'])} under the strongest of the attacks tried, "
        f"{believed}."
    )


def _findings(config: Config, plan: Plan, summary: dict[str, Any]) -> list[str]:
    eps = format_eps(summary["eps"])
    told = [
        f"Of {summary['num_examples']} test images the network is right on "
        f"{format_rate(summary['clean_accuracy'])} without an attack and on "
        f"{format_rate(summary['robust_accuracy'])} in the worst case of all attacks "
        f"({title(config.norm)}, eps {eps})."
    ]
    if summary["warnings"]:
        codes = ", ".join(dict.fromkeys(warned["code"] for warned in summary["warnings"]))
        told.append(
            f"There are warnings ({codes}). "
            + (
                "They explain how the number was obtained; nothing speaks against it."
                if summary["trusted"] is not False
                else "Do not trust this number until they are explained."
            )
        )
    elif config.checks:
        told.append("No check found a reason to distrust the number.")
    else:
        told.append("The number was not checked for signs that it cannot be trusted.")
    if len(plan.labels) < summary["num_examples"]:
        told.append(
            f"Checks, curves and pictures are of {len(plan.labels)} of these images, drawn at "
            "random; the verdicts on all are in verdicts.npz."
        )
    return told


def _attacks(config: Config, summary: dict[str, Any]) -> tuple[Picture, Table]:
    order = "each on every image" if config.each else "each on the images that still stood"
    rows: list[list[Any]] = [["clean", summary["clean_accuracy"], None, None, None, None, None]]
    for name, part in summary["attacks"].items():
        rows.append(
            [
                name,
                part["robust_accuracy"],
                part["tried"],
                part["fooled"],
                f"{part['forward_passes']:,}",
                f"{part['gradients']:,}",
                format_seconds(part["seconds"]),
            ]
        )
    rows.append(["worst case", summary["robust_accuracy"], None, None, None, None, None])
    accuracies = {
        "clean": summary["clean_accuracy"],
        **{name: part["robust_accuracy"] for name, part in summary["attacks"].items()},
        "worst_case": summary["robust_accuracy"],
    }
    # No legend: each bar is labelled.
    chart = figures.bars(
        {name.replace("_", "\n"): {name: value} for name, value in accuracies.items()},
        ylabel="accuracy",
    )
    picture = Picture(
        "attacks",
        chart,
        alt="Accuracy after each attack",
        caption=f"Accuracy after each attack, {order}; bars end in 95 % intervals over images.",
    )
    table = Table(
        caption="The same in numbers. Passes are forward passes (those of gradients included) and "
        "backward passes; time includes compilation",
        columns=["attack", "accuracy", "tried", "fooled", "forward", "backward", "time"],
        rows=rows,
    )
    return picture, table


def _warnings(config: Config, summary: dict[str, Any]) -> list[Block]:
    looked = (
        "All checks were made."
        if config.checks
        else "Only eps, the form of the outputs, refused claims and the finiteness of gradients "
        "were checked."
    )
    if not summary["warnings"]:
        return [f"Nothing was found that speaks against the number. {looked}"]
    rows = [[warned["code"], warned["sentence"]] for warned in summary["warnings"]]
    return [
        Table(caption=looked, columns=["warning", "what was seen, and what it means"], rows=rows)
    ]


def _curves(config: Config, plan: Plan, summary: dict[str, Any]) -> list[Block]:
    found = summary["curves"]
    if not found:
        return ["No curves: --nocurves, or no finite eps above 0."]
    by_eps = found["accuracy_by_eps"]
    sweep = figures.curves(
        [part["eps"] for part in by_eps],
        {"test images under PGD": [part["accuracy"] for part in by_eps]},
        xlabel=f"eps ({title(config.norm)}, pixels in [0, 1])",
        chance=1 / len(plan.class_names),
    )
    losses = figures.curves(
        list(range(len(found["loss_by_step"]))),
        {"mean of the highest loss so far": found["loss_by_step"]},
        xlabel="PGD steps",
        ylabel="cross-entropy",
        rates=False,
    )
    count = found["examples"]
    return [
        Picture(
            "epsilons",
            sweep,
            alt="Accuracy against eps",
            caption=f"PGD on {count} images: right on the clean image and at this eps and every "
            "smaller one, with 95 % intervals. A sound measurement falls to 0 as eps grows.",
        ),
        Picture(
            "losses",
            losses,
            alt="Loss against steps",
            caption=f"PGD on {count} images: the mean over images of the highest loss so far. A "
            "curve that still rises at its end calls for more steps.",
        ),
    ]


def _gallery(config: Config, plan: Plan, run: RunDirectory, result: SuiteResult) -> list[Block]:
    fooled = np.flatnonzero(result.fooled_by >= 0)
    if not len(fooled):
        return []
    fooled = fooled[draw_rows(result.fooled_by[fooled], len(fooled), seed=config.seed)]
    if plan.images.shape[-1] not in (1, 3):
        return [f"Images of {plan.images.shape[-1]} channels cannot be shown."]
    # Alternate between the attacks, since the first one fools most images.
    turn = [
        np.sum(result.fooled_by[fooled[:k]] == result.fooled_by[fooled[k]])
        for k in range(len(fooled))
    ]
    rows = fooled[np.argsort(turn, kind="stable")[:5]]

    def predict() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        sets = {"before": plan.images[rows], "after": result.adversarial[rows]}
        return {k: advfeat.predict(plan.network.model_fn(), x) for k, x in sets.items()}, {}

    logits = run.cached("measured/gallery", predict)

    def says(which: str, place: int) -> tuple[str, float]:
        scores = np.exp(logits[which][place] - logits[which][place].max())
        best = int(scores.argmax())
        return plan.class_names[best], float(scores[best] / scores.sum())

    examples = [
        figures.Example(
            original=plan.images[row],
            perturbed=result.adversarial[row],
            label=plan.class_names[plan.labels[row]],
            new_label=says("after", place)[0],
            networks={"the network": (says("before", place), says("after", place))},
            note=result.attacks[result.fooled_by[row]].name,
        )
        for place, row in enumerate(rows)
    ]
    strip = figures.example_strip(
        examples, norm=plan.threat.norm.name, names=("true class", "taken for")
    )
    return [
        Picture(
            "gallery",
            strip,
            alt="Images, the added perturbations, and the network's predictions",
            caption=f"{len(rows)} of the {len(fooled)} fooled images, with the successful attack "
            "and the network's confidence.",
        )
    ]
