"""Diagnostics of a robust accuracy: checks that the suite of attacks was strong enough.

A failed attack proves only that the attack failed, not that the network is robust. The checks
follow Carlini et al. (2019), "On Evaluating Adversarial Robustness",
https://arxiv.org/abs/1902.06705, and Athalye et al. (2018), https://arxiv.org/abs/1802.00420. Each
examines at most `MOST` images, survivors first, and compares one value with one limit. The limits
were calibrated on undefended networks, with a safety margin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advfeat.evaluation.diagnostics.attacks import black_box, growth, not_converged, one_step
from advfeat.evaluation.diagnostics.case import MOST, Check, Context, Finding
from advfeat.evaluation.diagnostics.numbers import eps_scale, outputs, randomness, refused, rounding
from advfeat.evaluation.diagnostics.slopes import finite_gradients, gradients
from advfeat.evaluation.result import TrustWarning

__all__ = [
    "CHECKS",
    "MOST",
    "Check",
    "Context",
    "Finding",
    "black_box",
    "eps_scale",
    "examine",
    "finite_gradients",
    "gradients",
    "growth",
    "look",
    "not_converged",
    "one_step",
    "outputs",
    "randomness",
    "refused",
    "rounding",
]

CHECKS: dict[str, Check] = {
    "eps_scale": Check(eps_scale, free=True),
    "outputs": Check(outputs, free=True),
    "refused": Check(refused, free=True),
    "finite_gradients": Check(finite_gradients, free=True),
    "randomness": Check(randomness, free=True),
    "gradients": Check(gradients),
    "one_step": Check(one_step),
    "not_converged": Check(not_converged),
    "black_box": Check(black_box),
    "growth": Check(growth),
    "rounding": Check(rounding),
}
"""The checks by name, cheapest first. The free ones are without an attack: two passes over `MOST`
images, four gradients per survivor. A check of your own is one more entry."""


def look(
    case: Context, *, free: bool = False, on_check: Callable[[str], Any] | None = None
) -> list[Finding]:
    """Returns the findings of all checks, warnings or not; arguments as for `examine`.

    A check that raises becomes a finding, so that the results of the attacks are never lost.
    """
    found: list[Finding] = []
    failed: dict[str, list[str]] = {}
    free = free or not case.result.clean.any()
    for name, check in CHECKS.items():
        if free and not check.free:
            continue
        if on_check is not None:
            on_check(name)
        try:
            found += check.look(case)
        except Exception as error:  # user networks may raise anything
            line = (str(error).strip().splitlines() or [""])[0]
            failed.setdefault(f"{type(error).__name__}: {line}", []).append(name)
    for error_line, names in failed.items():
        found.append(
            Finding(
                "unchecked",
                1.0,
                0.0,
                f"{', '.join(names)}: could not be checked ({error_line}). This is neither "
                "evidence for the robust accuracy nor against it.",
            )
        )
    return found


def examine(
    case: Context, *, free: bool = False, on_check: Callable[[str], Any] | None = None
) -> list[TrustWarning]:
    """Runs the checks and returns the warnings about a suite's result.

    Args:
      case: the network, its data and the suite's result.
      free: whether to run only the free checks.
      on_check: called with each check's name before it starts.

    Returns:
      One `TrustWarning` per finding above its limit; empty if all is well.
    """
    seen = look(case, free=free, on_check=on_check)
    return [TrustWarning(s.code, s.sentence, s.severity) for s in seen if s.value > s.limit]
