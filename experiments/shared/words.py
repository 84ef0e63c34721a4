"""What the first lines of reports have in common: the field's words explained, and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advfeat.models.network import Network
from advfeat.stats import Claim
from advfeat.threats.norms import title

TERMS = {
    "eps": "the most that an image may be changed, in units of pixels from 0 (black) to 1 (white)",
    "L2": "the length of a change: the root of the sum of its squares over all pixels",
    "L∞": "the largest change of any pixel",
    "attack": "a search for a small change of an image that makes a network err",
    "PGD": "projected gradient descent, the usual attack: steps along the gradient, kept within "
    "eps",
    "FGSM": "an attack of one single step along the gradient's signs",
    "robust accuracy": "the share of test images that a network gets right unchanged and after "
    "every attack that was tried",
    "robust network": "one trained on attacked images, so that small changes do not alter what it "
    "says; the standard network was trained on images as they are",
    "fooling rate": "of the images that a network gets right, the share that an attack makes it "
    "get wrong",
    "saliency map": "for one image, how much each pixel matters to what a network says, by one "
    "method",
    "representation": "what a network has made of an image just before it decides on a class: one "
    "number for each of its units",
    "unit": "one of the numbers of a representation",
    "feature": "a pattern in images that a unit or a network reacts to",
    "independent network": "one that had no part in making an image and only says what it sees in "
    "it",
    "interval": "in brackets: where the true value lies, at 95 %",
}


def terms(*names: str, **more: str) -> dict[str, str]:
    """Explanations of these words, in this order, and of a page's own."""
    return {**{name: TERMS[name] for name in names}, **more}


def of_norms(*norms: str) -> list[str]:
    """The words of norms by the names that flags have, each once."""
    return [word for word in dict.fromkeys(map(title, norms)) if word in TERMS]


def per_cent(estimate: Any) -> str:
    """A rate in a sentence, without its interval, which stands further down."""
    return f"{100 * estimate.mean:.0f}\u00a0%"


def network_words(reference: str, network: Network) -> str:
    """A network as a recipe names it."""
    spec = network.spec
    width = f", width {spec.width}" if spec.width else ""
    return f"{reference} ({spec.model}{width})"


def training_words(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A training as a recipe names it: what was given and what presets filled in."""
    training = {key: value for key, value in recipe.get("training", {}).items() if value}
    rest = {
        key: value for key, value in recipe.items() if key != "training" and value is not None
    }
    return {**rest, **training}


_METHODS = {
    "smoothgrad": "SmoothGrad",
    "smoothgrad_squared": "SmoothGrad squared",
    "vargrad": "VarGrad",
    "grad_cam": "Grad-CAM",
    "lime": "LIME",
    "gradient_times_input": "gradient × input",
}


def method_words(name: str) -> str:
    """A saliency method as its authors write it."""
    return _METHODS.get(name, name.replace("_", " "))


def capital(words: str) -> str:
    """The words as a heading begins them."""
    return words[:1].upper() + words[1:]


def unless_it_holds(claim: Claim) -> str:
    """A claim's verdict in brackets, for a sentence that would else say more than was shown."""
    return "" if claim.verdict is None or claim.holds else f" ({claim.verdict})"
