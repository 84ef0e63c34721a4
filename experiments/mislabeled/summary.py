"""Summarises the mislabelled-data experiment: rates, claims and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advfeat import stats
from advfeat.models.network import Network
from advfeat.runs import runner
from advfeat.runs.report import format_rate
from advfeat.stats import Claim, Estimate
from advfeat.threats.norms import title

from ..shared.eps_sweep import by_eps as accuracy_by_eps
from ..shared.recipes import Recipe
from .fresh import FreshResult
from .plan import Config, Plan
from .sets import Reading, Sets
from .sources import Sources

NAMES = {"rand": "D_rand", "other": "D_other", "det": "D_det"}
CONTROL_NAMES = {
    "unperturbed": "same labels, images unperturbed",
    "noise": "same labels, noise of the same norm",
    "feature_free": "no network's features (class patterns)",
    "robust_source": "built from the robust network",
}
Fresh = Mapping[tuple[str, str], FreshResult]


def summarise(
    config: Config, plan: Plan, sets: Sets, fresh: Fresh, networks: Sources
) -> dict[str, Any]:
    """Returns the nested summary; every rate has an interval."""

    at = plan.eps_grid.index(plan.eps)
    summary: dict[str, Any] = {
        "dataset": config.dataset,
        "classes": list(plan.dataset.class_names),
        "norm": plan.threat.norm.name,
        "eps": plan.eps,
        "attack": plan.attack_words,
        "sources": plan.sources,
        "evaluated_on": config.evaluate_on,
        "train_examples": len(plan.train),
        "evaluation_examples": len(plan.evaluation[1]),
        "recipes": {
            "standard": _recipe(plan.source, plan.given_source),
            "robust": _recipe(plan.robust, plan.given_robust),
            "fresh": _recipe(plan.fresh, None),
        },
    }
    for name, standing in networks.standing.items():
        summary[name] = {
            "clean_accuracy": stats.rate(networks.clean[name]),
            "robust_accuracy": stats.rate(standing[at]),
            "accuracy_by_eps": accuracy_by_eps(plan.eps_grid, standing),
        }
    for variant in config.variants:
        summary[f"d_{variant}"] = _variant(config, sets, fresh, variant, len(plan.held_out[1]))
    claims = _claims(config, plan, summary, sets, fresh, networks)
    judged = dict(zip(claims, runner.judged(list(claims.values()), config), strict=True))
    for variant in config.variants:
        beside = judged.get((variant, "controls"))
        summary[f"d_{variant}"]["beside_controls"] = None if beside is None else beside.verdict
    summary["claims"] = list(judged.values())
    return summary


def _recipe(recipe: Recipe, given: Network | None) -> dict[str, Any]:
    """Returns the actual architecture and training: flags and presets together."""
    if given is None:
        return recipe.summary()
    return {"model": given.spec.model, "width": given.spec.width, **given.record}


def _variant(
    config: Config, sets: Sets, fresh: Fresh, variant: str, held_out: int
) -> dict[str, Any]:
    made = sets.training[variant, ""]()
    result = fresh[variant, ""]
    part = {
        "test_accuracy": stats.rate(result.hits),
        "held_out_accuracy_by_epoch": by_epoch(result.curve, held_out),
        "training_labels_fitted": float(result.fitted.mean()),
        "examples": len(made.label),
        "source_fooled": stats.rate(made.fooled),
        "mean_distance": float(made.distance.mean()),
        "robust_network": _read_rates(sets.read[variant]),
        "robust_network_held_out": _read_rates(sets.read_held_out[variant]),
        "controls": {
            control: stats.rate(fresh[variant, control].hits) for control in config.controls or ()
        },
    }
    if variant == "det":
        part["test_accuracy_by_next_label"] = stats.rate(result.hits_next)
    return part


def by_epoch(curve: np.ndarray, images: int) -> list[Estimate | None]:
    """Returns the accuracy after each epoch; None if a kill left a gap in a network's log.

    Args:
      curve: `[seeds, epochs]`, accuracy on held-out images.
      images: number of held-out images. Which of them were classified correctly is not stored, so
        the intervals are the widest possible: those of networks that err on the same images.
    """
    return [
        None if np.isnan(column).any() else stats.counted(np.rint(column * images), images)
        for column in np.asarray(curve, np.float64).T
    ]


def _read_rates(reading: Reading) -> dict[str, Any]:
    known = reading.known
    return {
        "keeps_original_label": stats.rate(reading.keeps),
        "keeps_original_label_where_known": (
            stats.rate(reading.keeps, among=known) if known.any() else None
        ),
        "says_new_label": stats.rate(reading.says_new),
    }


def read_apart(variants: Sequence[str]) -> dict[str, str]:
    """Returns the sets whose readings differ, with their names.

    Readings leave out t = y, so that D_rand's is D_other's: with both sets it is one.
    """
    both = {"rand", "other"} <= set(variants)
    kept = [variant for variant in variants if not (both and variant == "other")]
    names = {variant: NAMES[variant] for variant in kept}
    return names | ({"rand": f"{NAMES['rand']} and {NAMES['other']} (t ≠ y)"} if both else {})


def _claims(
    config: Config,
    plan: Plan,
    summary: dict[str, Any],
    sets: Sets,
    fresh: Fresh,
    networks: Sources,
) -> dict[tuple[str, str], Claim]:
    """Returns the claims, keyed by set and comparison."""
    claims = {}
    for variant in config.variants:
        part, name = summary[f"d_{variant}"], NAMES[variant]
        controls = dict(part["controls"])
        robust_source = controls.pop("robust_source", None)
        if controls:
            text = (
                f"The perturbations of {name} are features: a network trained on nothing else "
                "classifies the original test set better than one trained on the same labels "
                "with unperturbed, noisy or feature-free images."
            )
            paired = [
                stats.difference(fresh[variant, ""].hits, fresh[variant, control].hits)
                for control in controls
            ]
            claims[variant, "controls"] = stats.claim(
                text, part["test_accuracy"], *controls.values(), paired=paired
            )
        if robust_source:
            text = (
                f"They are the non-robust ones: {name} teaches more than the same set built from "
                "the robust network, at the same eps."
            )
            hits = fresh[variant, ""].hits, fresh[variant, "robust_source"].hits
            claims[variant, "robust_source"] = stats.claim(
                text, part["test_accuracy"], robust_source, paired=stats.difference(*hits)
            )
    for variant, name in read_apart(config.variants).items():
        read, reading = summary[f"d_{variant}"]["robust_network"], sets.read[variant]
        text = (
            f"The robust features of {name} are misleading: where t ≠ y the robust network reads "
            "the original label off more images than the new one."
        )
        claims[variant, "reading"] = stats.claim(
            text,
            read["keeps_original_label"],
            read["says_new_label"],
            paired=stats.difference(reading.keeps, reading.says_new),
        )
    at = plan.eps_grid.index(plan.eps)
    robust, standard = networks.standing["robust"][at], networks.standing["standard"][at]
    claims["", "robust"] = stats.claim(
        f"Adversarial training makes the network more robust at {eps_words(summary)}.",
        stats.rate(robust),
        stats.rate(standard),
        paired=stats.difference(robust, standard),
    )
    return claims


def eps_words(summary: Mapping[str, Any]) -> str:
    """Describes the size of the perturbations, as in "L2 eps 0.5"."""
    sign = title(summary["norm"])
    return f"{sign} eps {summary['eps']:g}"


def findings(config: Config, summary: dict[str, Any], chance: float) -> list[str]:
    """States the findings of this run in plain words."""
    where = "original test set" if config.evaluate_on == "test" else "held-out original images"
    lines = [
        f"The standard network classifies {format_rate(summary['standard']['clean_accuracy'])} of "
        f"the {where} correctly, and {format_rate(summary['standard']['robust_accuracy'])} under "
        f"PGD at {eps_words(summary)}; the robust one "
        f"{format_rate(summary['robust']['clean_accuracy'])} "
        f"and {format_rate(summary['robust']['robust_accuracy'])}."
    ]
    for variant in config.variants:
        part = summary[f"d_{variant}"]
        name = NAMES[variant]
        line = (
            f"Trained on nothing but {name}, fresh networks classify "
            f"{format_rate(part['test_accuracy'])} of the {where} correctly "
            f"(chance: {100 * chance:.0f} %)"
        )
        if part["controls"]:
            line += _beside_controls(part["controls"], part["beside_controls"])
        line += f"; the source was fooled on {format_rate(part['source_fooled'])} of its images"
        lines.append(line + ".")
    for variant, name in read_apart(config.variants).items():
        part = summary[f"d_{variant}"]
        read = part["robust_network"]
        lines.append(
            f"On the images of {name} the robust network predicts the original label in "
            f"{format_rate(read['keeps_original_label'])} and the new one in "
            f"{format_rate(read['says_new_label'])} (on held-out images, perturbed alike: "
            f"{format_rate(part['robust_network_held_out']['keeps_original_label'])} the original "
            "one)."
        )
    return lines


def _beside_controls(controls: Mapping[str, Any], verdict: str | None) -> str:
    """Describes the strongest control without features, and the set from the robust network."""
    plain = {name: rate for name, rate in controls.items() if name != "robust_source"}
    words = ""
    if plain:
        control, strongest = stats.chosen(plain)  # its interval accounts for the selection
        words = f"; the strongest control, {CONTROL_NAMES[control]}, gives {format_rate(strongest)}"
        if verdict not in (None, "holds"):
            words += f", so that here the features are not shown to explain it ({verdict})"
    if "robust_source" in controls:
        words += f"; the set built from the robust network {format_rate(controls['robust_source'])}"
    return words
