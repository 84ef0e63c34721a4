"""Checks by other attacks: survivors of a suite must not fall to a simpler attack."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from advfeat.attacks import pgd
from advfeat.attacks.nes_gradient import with_nes_gradient
from advfeat.attacks.square import square
from advfeat.attacks.step_rules import momentum
from advfeat.evaluation.diagnostics.case import LUCK, Context, Finding, percent
from advfeat.objectives.classification import untargeted
from advfeat.objectives.losses import margin
from advfeat.threats.balls import ThreatModel, linf, threat_model
from advfeat.types import AttackFn

# Limits.
FALL = 0.02  # drop of robust accuracy due to one more attack, over all images
DROP = 0.1  # drop of the success rate as eps grows
UNREACHED = 0.02  # share of images that survive an unbounded attack

# Budgets. PGD has the same configuration in every check, so that it compiles once.
STEPS = 50  # steps of PGD
STEP_SIZES = (0.02, 0.05, 0.2)  # step sizes of PGD on survivors, over eps
RESTARTS = 2  # restarts per step size
SWEEP = (0.25, 0.5, 1.0, 2.0, 4.0)  # multiples of eps
ESTIMATED_STEPS = 20  # steps of PGD with an estimated gradient
PAIRS = 32  # pairs of forward passes per estimated gradient
LEAST_SIGMA = 1e-6  # minimum noise level of that estimate
QUERIES = 500  # queries of Square


def _pgd(threat: ThreatModel, *, step_size: float = 0.05, steps: int = STEPS) -> AttackFn:
    """Returns PGD on the margin, which does not saturate; the step size is over eps."""
    return pgd(threat, steps=steps, step_size=step_size * threat.eps, objective=untargeted(margin))


def one_step(case: Context) -> Iterator[Finding]:
    """Checks that a single step finds nothing that many steps miss."""
    rows = case.standing()
    if not len(rows):
        return
    after = np.ones(len(rows))
    for share in (0.25, 0.5, 1.0):
        threat = threat_model(case.threat.norm, share * case.threat.eps)
        step = pgd(
            threat,
            steps=1,
            step_size=threat.eps,
            random_start=False,
            objective=untargeted(margin),
        )
        after = np.minimum(after, case.after("one_step", step, rows))
    fall, words = case.fall(rows, after < 0.5, after)
    yield Finding("one_step", fall, FALL, f"A single gradient step {words}.")


def not_converged(case: Context) -> Iterator[Finding]:
    """Checks that more steps from new starts find little more."""
    rows = case.standing()
    if not len(rows):
        return
    after = np.ones(len(rows))
    for size in STEP_SIZES:
        for restart in range(RESTARTS):
            attack = _pgd(case.threat, step_size=size)
            after = np.minimum(after, case.after(f"not_converged/{size}/{restart}", attack, rows))
    fall, words = case.fall(rows, after < 0.5, after)
    what = f"PGD with {len(STEP_SIZES)} step sizes and {RESTARTS} restarts of {STEPS} steps each"
    yield Finding("not_converged", fall, FALL, f"{what} {words}.")


def black_box(case: Context) -> Iterator[Finding]:
    """Checks for gradient masking: scores alone must not find what gradients miss."""
    followed = np.zeros(len(case.images), bool)
    by_gradient, by_scores = followed.copy(), followed.copy()
    for part in case.result.attacks:
        if part.gradients:
            followed |= part.tried
            by_gradient |= part.fooled
        else:
            by_scores |= part.fooled
    only = by_scores & followed & ~by_gradient
    names = [part.name for part in case.result.attacks if not part.gradients and part.tried.any()]
    if names and followed.any():
        share = float(only.mean()) if only.sum() > LUCK else 0.0
        yield Finding(
            "black_box",
            share,
            FALL,
            f"{' and '.join(names)}, which see scores only, fooled {only.sum()} images that "
            f"survived the gradient-based attacks ({percent(share)} of all): the gradients are "
            "masked.",
        )
    rows = case.standing()
    if not len(rows):
        return
    sigma = max(0.5 * _pixel_scale(case), LEAST_SIGMA)
    attack = pgd(
        case.threat,
        steps=ESTIMATED_STEPS,
        objective=untargeted(margin),
        rule=momentum(),
        random_start=False,
    )
    network = with_nes_gradient(case.model_fn, sigma=sigma, pairs=PAIRS)
    after = case.after("estimated", attack, rows, via=network)
    fall, words = case.fall(rows, after < 0.5, after)
    yield Finding("black_box", fall, FALL, f"PGD with a gradient estimated from scores {words}.")
    searched = np.sum([p.queries for p in case.result.attacks if not p.gradients], axis=0)
    if (np.broadcast_to(searched, len(case.images))[rows] < QUERIES).any():
        after = case.after("square", square(case.threat, steps=QUERIES), rows)
        fall, words = case.fall(rows, after < 0.5, after)
        yield Finding("black_box", fall, FALL, f"Square with {QUERIES} queries {words}.")


def _pixel_scale(case: Context) -> float:
    """Estimates how far a single pixel moves within eps."""
    eps, size = float(case.threat.eps), case.images[0].size
    return min(eps if case.threat.norm.name == "linf" else eps / size**0.5, 0.5)


def growth(case: Context) -> Iterator[Finding]:
    """Checks that success grows with eps, up to 100 % for an unbounded attack."""
    rows = case.sample()
    if not len(rows):
        return
    sizes = [share * float(case.threat.eps) for share in SWEEP]
    rates = [
        float(case.fooled("growth", _pgd(threat_model(case.threat.norm, eps)), rows).mean())
        for eps in sizes
    ]
    highest = np.maximum.accumulate(rates)
    told = ", ".join(f"{percent(r)} at {eps:.3g}" for r, eps in zip(rates, sizes, strict=True))
    yield Finding(
        "not_monotone",
        float((highest - rates).max()),
        DROP,
        f"PGD fools fewer images as eps grows: {told}.",
    )
    missed = 1 - float(case.fooled("unbounded", _pgd(linf(1.0)), rows).mean())
    yield Finding(
        "unbounded",
        missed,
        UNREACHED,
        f"With every image allowed, PGD still does not fool {percent(missed)} of {len(rows)} "
        "images: it cannot be following the loss.",
    )
