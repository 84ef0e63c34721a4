"""Draws the figures and writes the report of `experiments.train`."""

from __future__ import annotations

from typing import Any

import numpy as np

from advfeat import figures
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Block, Picture, Section, Table, format_rate, write_report
from advfeat.stats import Estimate
from advfeat.threats.norms import title

from ..shared.networks import count
from ..shared.words import of_norms, per_cent, terms, training_words
from .flags import Config
from .plan import Plan


def write(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    """Draws the figures and writes `report.html`."""
    chance = 1 / plan.dataset.num_classes
    lines = run.metrics("train/model")
    watched = {
        "training images, as trained on": "accuracy",
        "held-out images, clean": "held_out_accuracy",
        "held-out images, under PGD": "held_out_robust_accuracy",
    }
    learning = figures.curves(
        [line["step"] for line in lines],
        {
            label: [line[name] for line in lines]
            for label, name in watched.items()
            if all(name in line for line in lines)
        },
        xlabel="epochs",
        chance=chance,
    )
    finite = [part for part in summary["accuracy_by_eps"] if np.isfinite(part["eps"])]
    sweep = figures.curves(
        [part["eps"] for part in finite],
        {"test images under PGD": [part["accuracy"] for part in finite]},
        xlabel=f"eps ({title(config.norm)}, pixels in [0, 1])",
        chance=chance,
    )
    lead = Picture(
        "epsilons",
        sweep,
        alt="Accuracy against eps",
        caption="Right on the clean image and under PGD at this eps and every smaller one.",
    )
    blocks: list[Block] = [
        Picture(
            "learning",
            learning,
            alt="Accuracy by epoch on training and held-out images",
            caption="After every epoch. Adversarial training is shown on its attacked images.",
        ),
        Table(
            caption="Accuracy under PGD, 95 % intervals over test points",
            columns=["eps", "accuracy"],
            rows=[[f"{part['eps']:g}", part["accuracy"]] for part in finite],
        ),
    ]
    findings = [
        f"The network classifies {format_rate(summary['clean_accuracy'])} of the test images "
        f"correctly and, of {summary['evaluation']['examples']} of them, "
        f"{format_rate(summary['robust_accuracy'])} under PGD at {title(config.norm)} "
        f"eps {plan.eps:g}.",
        *plan.notes,
        *_selected(summary),
        "PGD is a single attack; a reliable number needs a suite of attacks.",
    ]
    write_report(
        run,
        summary,
        title=f"A {config.objective} network: {config.dataset}",
        sentence=(
            f"How robust is a network trained by {config.objective} training? It classifies about "
            f"{per_cent(summary['clean_accuracy'])} of the test images correctly as they are, and "
            f"about {per_cent(summary['robust_accuracy'])} when PGD may change them by up to "
            f"{title(config.norm)} eps {plan.eps:g}."
        ),
        lead=lead,
        terms=terms("eps", *of_norms(config.norm), "PGD", "interval"),
        findings=findings,
        sections=[Section("Accuracy", blocks)],
        recipe={
            "data": f"{config.dataset}: {count(plan.train)} training, {len(plan.held_out)} "
            f"held-out, {len(plan.dataset.test)} test images of {plan.dataset.num_classes} classes",
            "network": f"{plan.recipe.spec.model}, width {plan.recipe.spec.width}",
            "objective": config.objective,
            "eps": plan.eps,
            "eps_grid": plan.eps_grid,
            **training_words(plan.recipe.record()),
            "measured by": f"PGD of {summary['evaluation']['steps']} steps",
            "seed": config.seed,
        },
    )


def _selected(summary: dict[str, Any]) -> list[str]:
    """States which epoch was kept, unless it is simply the last."""
    found = summary["training"].get("selection")
    if not found or (found["select"] == "last" and not found["ended_by"]):
        return []
    why = {
        "overfitting": "catastrophic overfitting ended the training",
        "patience": "the training ended after too long without a new best",
        None: "the training ran to its end",
    }[found["ended_by"]]
    chosen = (
        " (selected by this number, which is optimistic; the interval accounts for it)"
        if found["select"] == "best" or found["ended_by"] == "overfitting"
        else ""
    )
    return [
        f"The weights are those of epoch {found['epoch']} of {found['epochs']}, with "
        f"{format_rate(Estimate(**found['held_out_robust_accuracy']))} of {found['examples']} "
        f"held-out images correct under PGD-{found['steps']}{chosen}; {why}."
    ]
