"""Summarises `experiments.defences`: rates with intervals, verdicts and claims."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from advfeat import stats
from advfeat.evaluation.result import SuiteResult
from advfeat.runs import runner
from advfeat.runs.report import format_rate
from advfeat.stats import Claim, Estimate

from ..shared.words import decided
from .flags import Config
from .plan import PLAIN, ROBUST, SHOWN, Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result for one network.

    Attributes:
      clean: `[N]` in [0, 1], share of the network's draws that are correct on the clean image; 0
        or 1 unless the network is random.
      fgsm: `[N]`, the same under FGSM.
      result: result of the suite, with its checks.
    """

    clean: np.ndarray
    fgsm: np.ndarray
    result: SuiteResult

    @classmethod
    def of(cls, weak: SuiteResult, strong: SuiteResult) -> Verdict:
        """Takes expectations over draws: in most draws a random network may be right everywhere."""
        return cls(clean=weak.clean_share, fgsm=weak.robust_share, result=strong)


def summarise(config: Config, plan: Plan, verdicts: dict[str, Verdict]) -> dict[str, Any]:
    """Returns the summary: numbers with intervals, and claims."""
    plain = verdicts[PLAIN]
    # The gain of each defence over the undefended network, with simultaneous intervals.
    gains, by_fgsm = (
        stats.together(
            {name: stats.difference(hits(verdicts[name]), hits(plain)) for name in plan.defences}
        )
        for hits in (lambda verdict: verdict.result.robust_share, lambda verdict: verdict.fgsm)
    )

    def entry(name: str, verdict: Verdict) -> dict[str, Any]:
        result = verdict.result
        return {
            "clean_accuracy": stats.rate(verdict.clean),
            "fgsm_accuracy": stats.rate(verdict.fgsm),
            "robust_accuracy": result.robust_accuracy,
            "after_attack": {part.name: part.robust_accuracy for part in result.attacks},
            "warnings": [warned._asdict() for warned in result.warnings],
            "codes": sorted({warned.code for warned in result.warnings}),
            "trusted": result.trusted,
            "gain": gains.get(name),
            "gain_under_fgsm": by_fgsm.get(name),
            "broken": None if config.dry_run else name in gains and broken(gains[name]),
        }

    found = {name: entry(name, verdict) for name, verdict in verdicts.items()}
    return {
        "dataset": config.dataset,
        "norm": config.norm,
        "eps": plan.eps,
        "attacks": [part.name for part in plain.result.attacks],
        "examples": len(plan.labels),
        "networks": found,
        "claims": runner.judged(_claims(plan, verdicts, found), config),
    }


def broken(gain: Estimate) -> bool:
    """Returns whether the suite leaves, decidably, a gain of less than five points."""
    return gain.high is not None and gain.high < stats.MARGIN


def _claims(plan: Plan, verdicts: dict[str, Verdict], found: dict[str, Any]) -> list[Claim]:
    # Per image, the share of defences and draws that stand; the defences are fixed, not a sample.
    fgsm = np.mean([verdicts[name].fgsm for name in plan.defences], axis=0)
    suite = np.mean([verdicts[name].result.robust_share for name in plan.defences], axis=0)
    seen = [caught(found[name]) for name in plan.defences]
    alarms = [found[name]["trusted"] is False for name in (PLAIN, ROBUST)]
    plain, robust = (verdicts[name].result.robust_share for name in (PLAIN, ROBUST))
    return [
        stats.claim(
            "FGSM alone calls broken defences more robust than a suite of attacks does.",
            stats.rate(fgsm),
            stats.rate(suite),
            paired=stats.difference(fgsm, suite),
        ),
        stats.claim(
            "Broken defences are broken by the suite or not trusted; honest networks are trusted.",
            stats.rate(seen),
            stats.rate(alarms),
        ),
        stats.claim(
            "Adversarial training makes a network more robust, under the suite as well.",
            stats.rate(robust),
            stats.rate(plain),
            paired=stats.difference(robust, plain),
        ),
    ]


def caught(entry: dict[str, Any]) -> bool:
    """Returns whether the suite breaks the network, or the checks distrust it.

    A network that was not checked is not distrusted.
    """
    return bool(entry["broken"]) or entry["trusted"] is False


def outcome(entry: dict[str, Any], name: str) -> str:
    """Returns the verdict in a word or two."""
    trusted = {True: "trusted", False: "not trusted", None: "not checked"}[entry["trusted"]]
    if name in (PLAIN, ROBUST):
        return trusted
    words = ["broken"] if entry["broken"] else []
    words += [] if entry["trusted"] else [trusted]
    return ", ".join(words) or "NOT CAUGHT"


def findings(plan: Plan, summary: dict[str, Any]) -> list[str]:
    """States the findings of this run in plain words."""
    found = summary["networks"]
    kept = (
        f"The undefended network keeps {format_rate(found[PLAIN]['robust_accuracy'])} under the "
        f"suite, the adversarially trained one {format_rate(found[ROBUST]['robust_accuracy'])}."
    )
    if not decided(summary["claims"]):
        return [kept]
    missed = [SHOWN[name] for name in plan.defences if not caught(found[name])]
    fooled = sum(
        gain.low is not None and gain.low > 0
        for gain in (found[name]["gain_under_fgsm"] for name in plan.defences)
    )
    count = len(plan.defences)
    return [
        f"Under FGSM alone {fooled} of {count} broken defences look better than no "
        "defence, by intervals that hold for all together.",
        f"{count - len(missed)} of {count} are broken by the suite or marked as not to be "
        "trusted." + (f" Not caught: {', '.join(missed)}." if missed else ""),
        kept,
    ]
