"""Wording shared by reports: explanations of the field's terms, recipes, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advfeat.models.network import Network
from advfeat.stats import Claim
from advfeat.threats.norms import title

TERMS = {
    "eps": "the largest allowed change of an image, in units of pixels from 0 (black) to 1 (white)",
    "L2": "the length of a change: the square root of the sum of its squares over all pixels",
    "L∞": "the largest change of any pixel",
    "attack": "a search for a small change of an image that makes a network err",
    "PGD": "projected gradient descent, the standard attack: steps along the gradient, kept within "
    "eps",
    "FGSM": "an attack of a single step along the gradient's signs",
    "robust accuracy": "the share of test images that a network classifies correctly both "
    "unchanged and after every attack that was tried",
    "robust network": "one trained on attacked images, so that small changes do not alter its "
    "prediction; the standard network was trained on unchanged images",
    "fooling rate": "among the images that a network classifies correctly, the share that an "
    "attack makes it misclassify",
    "saliency map": "for one image, how much each pixel matters to a network's prediction, "
    "according to one method",
    "representation": "a network's description of an image just before it decides on a class: one "
    "number for each of its units",
    "unit": "one of the numbers of a representation",
    "feature": "a pattern in images that a unit or a network reacts to",
    "independent network": "one that took no part in making an image and only classifies it",
    "interval": "in brackets: where the true value lies, with 95 % confidence",
}


def terms(*names: str, **more: str) -> dict[str, str]:
    """Returns the explanations of these terms, in this order, and of the page's own terms."""
    return {**{name: TERMS[name] for name in names}, **more}


def of_norms(*norms: str) -> list[str]:
    """Returns the explained terms of norms, given by the flags' names, without duplicates."""
    return [word for word in dict.fromkeys(map(title, norms)) if word in TERMS]


def per_cent(estimate: Any) -> str:
    """Formats a rate for a sentence, without its interval, which appears further down."""
    return f"{100 * estimate.mean:.0f}\u00a0%"


def network_words(reference: str, network: Network) -> str:
    """Describes a network for a recipe."""
    spec = network.spec
    width = f", width {spec.width}" if spec.width else ""
    return f"{reference} ({spec.model}{width})"


def training_words(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Describes a training for a recipe: flags and presets together."""
    training = {key: value for key, value in recipe.get("training", {}).items() if value}
    rest = {key: value for key, value in recipe.items() if key != "training" and value is not None}
    return {**rest, **training}


def steps_words(attacks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the steps of a suite's attacks, for a recipe; attacks without steps are left out."""
    return {
        name.replace("_", " "): int(attack.steps)
        for name, attack in attacks.items()
        if hasattr(attack, "steps")
    }


def capital(words: str) -> str:
    """Capitalises the first letter, for a heading."""
    return words[:1].upper() + words[1:]


def decided(claims: Sequence[Claim]) -> bool:
    """Returns whether verdicts may be told: not in a dry run, whose claims have none."""
    return all(claim.verdict is not None for claim in claims)


def unless_it_holds(claim: Claim) -> str:
    """Returns the verdict in brackets if the claim does not hold, so as not to overstate it."""
    return "" if claim.verdict is None or claim.holds else f" ({claim.verdict})"
