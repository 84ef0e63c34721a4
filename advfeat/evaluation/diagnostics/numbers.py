"""Checks of inputs and outputs: eps, logits, claims of success, adversarial examples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from advfeat.evaluation.diagnostics.case import LUCK, Context, Finding, percent
from advfeat.evaluation.prediction import predict
from advfeat.evaluation.result import ALWAYS, NOTE
from advfeat.keys import stream
from advfeat.threats.norms import title
from advfeat.types import Randomised

# Limits. Shares refer to the images examined unless stated otherwise.
PROBABILITIES = 0.99  # share of clean images whose outputs are a probability vector
SATURATED = 0.1  # share of clean images whose softmax is exactly one-hot
DIFFERENT = 1e-4  # change of a logit between two passes, over the largest logit
FLIPS = 0.05  # share of predictions that differ, if the suite expects a random network
REFUSED = 0.01  # share of claims of success that verification does not confirm
UNROUNDED = 0.02  # share of adversarial examples that rounding to 8 bits undoes


def eps_scale(case: Context) -> Iterator[Finding]:
    """Checks the scale of eps: pixels lie in [0, 1], so an eps of 8 presumably means 8/255."""
    eps, norm = float(case.threat.eps), case.threat.norm
    widest = norm.diameter(int(np.prod(case.images.shape[1:])))
    reach = (
        f"allows every image: no two are further apart than {widest:g}"
        if eps >= widest
        else f"can turn every image into the same grey one, at most {widest / 2:g} away"
    )
    yield Finding(
        "eps_scale",
        eps,
        float(np.nextafter(widest / 2, 0)),
        f"{title(norm)} eps {eps:g} {reach}, since pixels lie in [0, 1], and no network can "
        "withstand that. An eps in grey levels has to be divided by 255.",
        ALWAYS,
    )


def outputs(case: Context) -> Iterator[Finding]:
    """Checks for probabilities in place of logits and for a softmax saturated in float32."""
    logits = case.logits.astype(np.float64)
    shares = (logits >= 0).all(1) & (logits <= 1).all(1) & (np.abs(logits.sum(1) - 1) < 1e-4)
    yield Finding(
        "probabilities",
        float(shares.mean()),
        PROBABILITIES,
        f"The network's outputs are probabilities for {percent(shares.mean())} of the images. "
        "Attacks apply a softmax themselves, and through two of them the gradient nearly vanishes: "
        "return logits.",
    )
    # Logits further below the largest one than this underflow to 0 in a float32 softmax.
    deepest = -np.log(float(np.finfo(np.float32).tiny))
    ordered = np.sort(logits, axis=1)
    one_hot = float((ordered[:, -1] - ordered[:, -2] > deepest).mean())
    yield Finding(
        "saturated",
        one_hot,
        SATURATED,
        f"With logits of up to {np.abs(logits).max():.3g} the softmax is exactly one-hot in float32"
        f" for {percent(one_hot)} of the images, and the cross-entropy has no gradient. Divide the "
        "logits by a constant: no prediction changes.",
    )


def refused(case: Context) -> Iterator[Finding]:
    """Checks for claims of success that verification rejected."""
    for part in case.result.attacks:
        claims = part.claims
        words = f"{part.name} claims to have fooled {claims} images, but"
        yield Finding(
            "outside",
            part.outside / max(claims, 1),
            0.0,
            f"{words} {part.outside} of its examples lie outside the threat model; they were not "
            "counted.",
        )
        if isinstance(case.model_fn, Randomised):
            continue  # chance, which `randomness` reports
        yield Finding(
            "unconfirmed",
            part.unconfirmed / max(claims, 1) if part.unconfirmed > LUCK else 0.0,
            REFUSED,
            f"{words} {part.unconfirmed} of its examples are classified correctly on verification; "
            "they were not counted.",
        )


def rounding(case: Context) -> Iterator[Finding]:
    """Checks for adversarial examples that do not survive rounding to 8 bits."""
    rows = np.flatnonzero(case.result.clean & ~case.result.robust)
    if not len(rows):
        return
    batch, _ = case.batch(rows)
    rounded = np.round(case.result.adversarial[batch] * 255) / np.float32(255)
    right = case.right("rounding", rounded, batch)[: len(rows)]
    lost = right >= 0.5
    back = np.where(lost, right - case.result.robust_share[rows], 0.0)
    after = float(case.result.robust_share.mean()) + back.sum() / len(case.images)
    yield Finding(
        "rounding",
        float(lost.mean()),
        UNROUNDED,
        f"Rounded to 8 bits, {lost.sum()} of {len(rows)} adversarial examples no longer fool: saved"
        f" as image files they would leave a robust accuracy of {100 * after:.1f} %.",
        NOTE,
    )


def randomness(case: Context) -> Iterator[Finding]:
    """Checks for randomness: two forward passes that differ."""
    batch, size = case.batch(case.anything())
    keys = [stream(case.key, f"checks/randomness/{look}") for look in ("once", "again")]
    once, again = (
        predict(case.model_fn, case.images[batch], batch_size=size, key=key, ids=case.ids[batch])
        for key in keys
    )
    change = float(np.abs(again - once).max() / max(np.abs(once).max(), 1e-30))
    flips = float((again.argmax(1) != once.argmax(1)).mean())
    known = isinstance(case.model_fn, Randomised)
    advice = "" if known else " Wrap it by `advfeat.types.randomised`, so that attacks know."
    if not case.result.averages:
        advice += " The suite for such networks is `rand`, which averages gradients."
    yield Finding(
        "randomised",
        *((flips, FLIPS) if case.result.averages else (change, DIFFERENT)),
        f"The network is random: between two passes its outputs change by up to {percent(change)}"
        f" of the largest, and {percent(flips)} of its predictions: attacks see one network and "
        f"are judged by another.{advice}",
        ALWAYS,
    )
