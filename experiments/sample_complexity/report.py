"""Draws the figures and writes the report of `experiments.sample_complexity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advfeat import figures
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Block, Picture, Section, Table, write_report

from ..shared.words import of_norms, terms, training_words
from .summary import eps_words, findings

if TYPE_CHECKING:
    from .flags import Config
    from .plan import Plan


def write(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    """Draws the figures and writes `report.html`."""
    lead, table = _accuracy(plan, summary)
    sections = [
        Section("Accuracy on test images", [table]),
        Section("From training to test images", _gaps(plan, summary)),
        Section("The Gaussian model", _gaussian(summary["gaussian"])),
        Section("The Bernoulli model", _bernoulli(summary["bernoulli"])),
    ]
    how = summary["recipe"]["training"]
    write_report(
        run,
        summary,
        title=f"Does robust generalisation need more data? {config.dataset}",
        sentence=_sentence(summary),
        lead=lead,
        terms=terms("eps", *of_norms(config.norm), "attack", "PGD", "interval"),
        findings=findings(summary),
        introduction=(
            f"{summary['seeds']} networks per size and kind, each seed with training sets of its "
            "own, the smaller ones parts of the larger. Small sets are repeated, so that every "
            f"network gets as many updates ({how['epochs']} passes over {summary['sizes'][-1]} "
            f"images). Adversarial training is at {eps_words(summary)} with "
            f"{summary['recipe']['attack_steps']} PGD steps; robust accuracy is at the same eps, "
            f"under {summary['attack']}, on {summary['evaluation_examples']} test images."
        ),
        sections=sections,
        recipe={
            "data": f"{config.dataset}: {', '.join(map(str, summary['sizes']))} training and "
            f"{summary['evaluation_examples']} test images of {plan.dataset.num_classes} classes",
            **training_words(summary["recipe"]),
            "eps": eps_words(summary),
            "attack": summary["attack"],
            "seeds": summary["seeds"],
        },
    )


def _sentence(summary: dict[str, Any]) -> str:
    """States question and answer in one paragraph."""
    least, most = summary["by_size"][0], summary["by_size"][-1]

    def share(kind: str, name: str) -> str:
        small, large = (part[kind]["test"][name].mean for part in (least, most))
        return f"{100 * small / large:.0f}\u00a0%" if large > 0 else "nothing"

    return (
        "Does it take more data to be robust than to be accurate? With "
        f"{summary['sizes'][0]} training images instead of {summary['sizes'][-1]}, standard "
        f"networks keep {share('standard', 'clean')} of their accuracy on unchanged images, "
        f"adversarially trained ones {share('adversarial', 'robust')} of theirs under attack."
    )


def _of(summary: dict[str, Any], kind: str, where: str, name: str) -> list[Any]:
    return [part[kind][where][name] for part in summary["by_size"]]


def _accuracy(plan: Plan, summary: dict[str, Any]) -> tuple[Picture, Table]:
    chart = figures.curves(
        summary["sizes"],
        {
            "standard, clean": _of(summary, "standard", "test", "clean"),
            "standard, attacked": _of(summary, "standard", "test", "robust"),
            "adversarial, clean": _of(summary, "adversarial", "test", "clean"),
            "adversarial, attacked": _of(summary, "adversarial", "test", "robust"),
            "adversarial, noise": _of(summary, "adversarial", "test", "noise"),
        },
        xlabel="training images",
        ylabel="accuracy on test images",
        chance=1 / plan.dataset.num_classes,
        log=True,
    )
    rows = [
        [
            part["size"],
            part["standard"]["test"]["clean"],
            part["standard"]["test"]["robust"],
            part["adversarial"]["test"]["clean"],
            part["adversarial"]["test"]["robust"],
            part["adversarial"]["test"]["noise"],
            part["clean_minus_robust"],
        ]
        for part in summary["by_size"]
    ]
    return (
        Picture(
            "accuracy",
            chart,
            alt="Accuracy against the number of training images, five curves",
            caption="Standard and adversarial training; clean images, images under attack and "
            "under noise of the same norm. Bands: 95 % intervals over networks and test images. "
            "A curve that still rises at its end has not reached its final value, which "
            "overstates its share.",
        ),
        Table(
            caption="Accuracy on test images, 95 % intervals over networks and images; the last "
            "column is standard, clean minus adversarial, attacked, on the same images",
            columns=[
                "images",
                "standard, clean",
                "standard, attacked",
                "adversarial, clean",
                "adversarial, attacked",
                "adversarial, noise",
                "clean less attacked",
            ],
            rows=rows,
        ),
    )


def _gaps(plan: Plan, summary: dict[str, Any]) -> list[Block]:
    chart = figures.curves(
        summary["sizes"],
        {
            "standard, clean: training": _of(summary, "standard", "train", "clean"),
            "standard, clean: test": _of(summary, "standard", "test", "clean"),
            "adversarial, attacked: training": _of(summary, "adversarial", "train", "robust"),
            "adversarial, attacked: test": _of(summary, "adversarial", "test", "robust"),
        },
        xlabel="training images",
        chance=1 / plan.dataset.num_classes,
        log=True,
    )
    rows = [
        [
            part["size"],
            part["standard"]["train"]["clean"],
            part["train_minus_test"]["standard_clean"],
            part["adversarial"]["train"]["robust"],
            part["train_minus_test"]["adversarial_robust"],
        ]
        for part in summary["by_size"]
    ]
    return [
        Picture(
            "gap",
            chart,
            alt="Accuracy on training and test images against the number of training images",
            caption="Each network on its own training images and on test images: the gap between "
            "the two lines of a kind is its generalisation gap.",
        ),
        Table(
            caption="Accuracy on training images, and how much of it is lost on test images",
            columns=[
                "images",
                "standard, clean",
                "lost on test images",
                "adversarial, attacked",
                "lost on test images",
            ],
            rows=rows,
        ),
    ]


def _gaussian(model: dict[str, Any]) -> list[Block]:
    parts = model["by_count"]
    chart = figures.curves(
        [part["count"] for part in parts],
        {
            "standard error": [part["standard"] for part in parts],
            "robust error": [part["robust"] for part in parts],
            "least of any learner": [part["least"] for part in parts],
            "lower bound": [part["lower_bound"] for part in parts],
            "upper bound, standard": [part["upper_bound"]["standard"] for part in parts],
            "upper bound, robust": [part["upper_bound"]["robust"] for part in parts],
        },
        xlabel="training examples",
        ylabel="error",
        log=True,
    )
    above = sum(sum(part["draws_above_upper_bound"].values()) for part in parts)
    rows = [
        [
            part["count"],
            part["standard"],
            part["robust"],
            part["least"],
            part["lower_bound"],
            part["upper_bound"]["standard"],
            part["upper_bound"]["robust"],
        ]
        for part in parts
    ]
    return [
        f"x ~ N(y · mean, {model['noise']:.3g}² I) in {model['dim']:,} dimensions, the mean drawn "
        f"from N(0, I), L∞ eps {model['eps']:g}; the learner is the mean of y · x. Errors are "
        f"exact given what was learned, and averaged over {model['draws']} draws of mean and "
        "examples.",
        Picture(
            "gaussian",
            chart,
            alt="Standard and robust error of the Gaussian model against the number of examples",
            caption="The learner's errors, the least expected robust error of all learners, and "
            "the paper's bounds: the lower one holds for all learners (Theorem 11), the upper "
            "ones for this learner (Theorems 18 and 21).",
        ),
        f"The upper bounds may fail with a probability of {model['failure_probability']:.2g}; of "
        f"{2 * model['draws'] * len(parts):,} simulated errors {above} exceeded theirs. Corollary "
        f"23's simpler lower bound applies up to {model['lower_bound_count']:.2g} examples here.",
        Table(
            caption="Errors with 95 % intervals over draws, and bounds",
            columns=[
                "examples",
                "standard",
                "robust",
                "least of any learner",
                "lower bound",
                "upper bound, standard",
                "upper bound, robust",
            ],
            rows=rows,
        ),
    ]


def _bernoulli(model: dict[str, Any]) -> list[Block]:
    parts = model["by_count"]
    chart = figures.curves(
        [part["count"] for part in parts],
        {
            "standard error": [part["standard"] for part in parts],
            "robust error": [part["robust"] for part in parts],
            "robust error behind a threshold": [part["threshold"] for part in parts],
        },
        xlabel="training examples",
        ylabel="error",
        log=True,
    )
    return [
        f"Each of {model['dim']} coordinates of -1 or 1 agrees with the label in "
        f"{50 + 100 * model['bias']:.1f} %; L∞ eps {model['eps']:g}. Here the need for data "
        "depends on the kind of classifier: a threshold undoes the adversary, a linear classifier "
        "must average it away.",
        Picture(
            "bernoulli",
            chart,
            alt="Errors of the Bernoulli model against the number of examples",
            caption=f"Exact errors of the sum of y · x, mean over {model['draws']} draws. The "
            "standard error and the error behind a threshold are the same.",
        ),
    ]
