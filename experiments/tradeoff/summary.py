"""Summarises `experiments.tradeoff`: rates, differences, rank correlations and findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from advfeat import stats
from advfeat.runs import runner
from advfeat.runs.kinds import format_eps
from advfeat.runs.report import format_number, format_rate
from advfeat.stats import Claim, Estimate
from advfeat.threats.norms import title

from ..shared.sweeps import Hits, attack_words
from ..shared.words import decided

if TYPE_CHECKING:
    from .flags import Config
    from .plan import Plan

COLLAPSED = 2.0
"""A network has not learned if its clean accuracy is below this multiple of chance."""


def accuracy_by_eps(hits: np.ndarray) -> np.ndarray:
    """Returns clean accuracy at each eps `[E]`, from `[S, 2, E, N]` hits (clean, attacked)."""
    return hits[:, 0].mean(axis=(0, 2))


def fooling(hits: np.ndarray) -> np.ndarray:
    """Returns the share of clean-correct points that are fooled, at each eps `[E]`, over all seeds.

    >>> hits = np.array([[[[1, 1, 1, 0]], [[1, 0, 0, 0]]]])
    >>> fooling(hits).round(3).tolist()
    [0.667]
    """
    clean, robust = hits[:, 0].sum(axis=(0, 2)), hits[:, 1].sum(axis=(0, 2))
    return 1.0 - robust / np.maximum(clean, 1)


def rank_correlation(hits: np.ndarray) -> float:
    """Returns Spearman's correlation, over eps, of fooling rate and clean accuracy; 0 if constant.

    It is 1 if every gain in robustness costs accuracy, and -1 if both improve together.
    """
    rates = fooling(hits), accuracy_by_eps(hits)
    if any(np.ptp(rate) == 0 for rate in rates):
        return 0.0
    return float(spearmanr(*rates).statistic)


def summarise(
    config: Config, plan: Plan, hits: Mapping[tuple[str, float, int], Hits]
) -> dict[str, Any]:
    """Returns the nested summary; every rate has an interval over seeds and points."""
    seeds = 1 + max(seed for _, _, seed in hits)
    found: dict[str, Any] = {}
    stated: dict[str, list[Claim]] = {}
    for norm, grid in plan.eps.items():
        # `[S, 2, E, N]`: seeds, clean and attacked, training eps, points.
        stacked: np.ndarray = np.array(
            [
                [
                    [hits[norm, eps, seed][f"test_{what}"] for eps in grid]
                    for what in ("clean", norm)
                ]
                for seed in range(seeds)
            ]
        )
        part = _norm(plan, norm, grid, stacked)
        found[norm] = part
        stated[norm] = _claims(norm, part)
    judged = iter(runner.judged([each for part in stated.values() for each in part], config))
    claims: list[Claim] = []
    for norm, part in found.items():
        fooled, paid, *best = [next(judged) for _ in stated[norm]]
        part["tradeoff_shown"] = fooled.holds and paid.holds if decided([fooled, paid]) else None
        for claim in best:
            part["highest_between"]["verdict"] = claim.verdict
        claims += [fooled, paid, *best]
    return {
        "dataset": config.dataset,
        "classes": list(plan.dataset.class_names),
        "attack": attack_words(config),
        "seeds": seeds,
        "train_examples": len(plan.train),
        "evaluation_examples": len(plan.test),
        "recipe": {
            **plan.standard.summary(),
            "attack_steps": config.attack_steps,
            "eps_warmup": config.eps_warmup,
        },
        "norms": found,
        "claims": claims,
    }


def _norm(plan: Plan, norm: str, grid: tuple[float, ...], hits: np.ndarray) -> dict[str, Any]:
    guess = 1 / plan.dataset.num_classes
    by_eps = []
    for index, eps in enumerate(grid):
        by_eps.append(
            {
                "eps": eps,
                "clean_accuracy": stats.rate(hits[:, 0, index]),
                "robust_accuracy": stats.rate(hits[:, 1, index]),
                "fooling_rate": fooling_rate(hits[:, 0, index], hits[:, 1, index]),
                "collapsed": int((hits[:, 0, index].mean(axis=1) < COLLAPSED * guess).sum()),
            }
        )
    return {
        "eval_eps": plan.measured_at[norm],
        "by_eps": by_eps,
        "rank_correlation": stats.computed(rank_correlation, hits, limits=stats.CORRELATION),
        "smallest_less_largest": {
            "clean_accuracy": stats.difference(hits[:, 0, 0], hits[:, 0, -1]),
            "fooling_rate": _fooled_less(hits[:, :, [0, -1]]),
        },
        "highest_between": _between(grid, hits),
    }


def fooling_rate(clean: np.ndarray, robust: np.ndarray) -> Estimate:
    """Estimates the share of correctly classified points that the attack fools.

    Args:
      clean: `[S, N]` bool, correct without an attack.
      robust: `[S, N]` bool, correct under it as well.

    Returns:
      The estimate; NaN without an interval if no network classifies any point correctly.

    >>> found = fooling_rate(np.ones((1, 50), bool), np.zeros((1, 50), bool))
    >>> found.mean, round(found.low, 3), found.high
    (1.0, 0.929, 1.0)
    """
    if not clean.any():
        return Estimate(float("nan"), None, None, 0, len(clean))
    return stats.rate(clean & ~robust, among=clean)


def _fooled_less(ends: np.ndarray) -> Estimate:
    """Returns the first minus the last eps's fooling rate, in points, of `[S, 2, 2, N]` hits."""
    if not ends[:, 0].any(axis=(0, 2)).all():
        return Estimate(float("nan"), None, None, 0, len(ends), "points")
    return stats.computed(
        lambda array: fooling(array)[0] - fooling(array)[1], ends, limits=(-1.0, 1.0)
    ).in_unit("points")


def _between(grid: tuple[float, ...], hits: np.ndarray) -> dict[str, Any] | None:
    """Compares the highest clean accuracy at an inner eps with that at either end.

    It is selected after the fact; both intervals account for the selection.
    """
    inner = range(1, len(grid) - 1)
    if not inner:
        return None
    less = [
        stats.chosen({k: stats.difference(hits[:, 0, k], hits[:, 0, end]) for k in inner})
        for end in (0, -1)
    ]
    (best, less_smallest), (_, less_largest) = less
    return {"eps": grid[best], "less_smallest": less_smallest, "less_largest": less_largest}


def _claims(norm: str, part: dict[str, Any]) -> list[Claim]:
    first, last = part["by_eps"][0], part["by_eps"][-1]
    apart, best = part["smallest_less_largest"], part["highest_between"]
    name, top = title(norm), format_eps(last["eps"])
    claims = [
        stats.claim(
            f"{name}: trained at the largest eps ({top}), networks are fooled less often at eps "
            f"{format_eps(part['eval_eps'])} than trained at 0.",
            first["fooling_rate"],
            last["fooling_rate"],
            paired=apart["fooling_rate"],
        ),
        stats.claim(
            f"{name}: they are less accurate on clean images (trained at 0, beside at {top}).",
            first["clean_accuracy"],
            last["clean_accuracy"],
            paired=apart["clean_accuracy"],
        ),
    ]
    if best:
        (inner,) = (point for point in part["by_eps"] if point["eps"] == best["eps"])
        claims.append(
            stats.claim(
                f"{name}: clean accuracy is not monotone in eps: trained at "
                f"{format_eps(best['eps'])}, the highest of {len(part['by_eps']) - 2} chosen after "
                f"the fact, networks are more accurate than trained at 0 and at {top}.",
                inner["clean_accuracy"],
                first["clean_accuracy"],
                last["clean_accuracy"],
                paired=[best["less_smallest"], best["less_largest"]],
            )
        )
    return claims


def findings(summary: dict[str, Any]) -> list[str]:
    """States the findings of this run in plain words."""
    return [_finding(norm, part) for norm, part in summary["norms"].items()]


def _finding(norm: str, part: dict[str, Any]) -> str:
    first, last, name = part["by_eps"][0], part["by_eps"][-1], title(norm)
    shown = {
        True: ", that a lower fooling rate costs clean accuracy is shown",
        False: ", that a lower fooling rate costs clean accuracy is not shown",
        None: "",
    }[part["tradeoff_shown"]]
    words = (
        f"{name}, between training at eps 0 and at {format_eps(last['eps'])}{shown}. Fooled at eps "
        f"{format_eps(part['eval_eps'])}: "
        f"{format_rate(first['fooling_rate'])} against {format_rate(last['fooling_rate'])}; "
        f"correct on clean images: {format_rate(first['clean_accuracy'])} against "
        f"{format_rate(last['clean_accuracy'])}."
    )
    best = part["highest_between"]
    if best and min(best[end].mean for end in ("less_smallest", "less_largest")) > 0:
        verdict = best.get("verdict")
        words += (
            f" The clean accuracy is highest at eps {format_eps(best['eps'])}, "
            f"{format_rate(best['less_smallest'])} above eps 0 and "
            f"{format_rate(best['less_largest'])} above the largest (selected after the fact, "
            "which is optimistic, but the intervals account for the selection)"
            + ("" if verdict is None else f"; that it is not monotone: {verdict}")
            + "."
        )
    words += (
        " Rank correlation of fooling rate and clean accuracy over eps (1: every gain in "
        f"robustness costs accuracy): {format_number(part['rank_correlation'])}."
    )
    collapsed = sum(point["collapsed"] for point in part["by_eps"])
    if collapsed:
        words += (
            f" {collapsed} of the networks did not learn at all (clean accuracy near chance): "
            "their eps says nothing about a trade-off."
        )
    return words
