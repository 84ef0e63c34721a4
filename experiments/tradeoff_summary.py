"""The summary of `experiments.tradeoff`: rates, differences, rank correlations and plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from advfeat import measures
from advfeat.measures import HOLDS
from advfeat.norms import title
from advfeat.report import format_rate
from experiments.config import format_eps
from experiments.sweeps import Hits, attack_steps, attack_words

if TYPE_CHECKING:
    from experiments.tradeoff import Config, Plan

COLLAPSED = 2.0
"""A network whose clean accuracy is below so many times a guess has not learned."""


def accuracy(hits: np.ndarray) -> np.ndarray:
    """Clean accuracy at each eps `[E]`, of `[S, 2, E, N]` hits (clean, attacked)."""
    return hits[:, 0].mean(axis=(0, 2))


def fooling(hits: np.ndarray) -> np.ndarray:
    """The share of clean-correct points that are fooled, at each eps `[E]`, over all seeds.

    >>> hits = np.array([[[[1, 1, 1, 0]], [[1, 0, 0, 0]]]])
    >>> fooling(hits).round(3).tolist()
    [0.667]
    """
    clean, robust = hits[:, 0].sum(axis=(0, 2)), hits[:, 1].sum(axis=(0, 2))
    return 1.0 - robust / np.maximum(clean, 1)


def rank_correlation(hits: np.ndarray) -> float:
    """Spearman's, over eps, of fooling rate and clean accuracy; 0 where one of them is constant.

    It is 1 where every gain in robustness is paid for, and -1 where both improve together.
    """
    rates = fooling(hits), accuracy(hits)
    if any(np.ptp(rate) == 0 for rate in rates):
        return 0.0
    return float(stats.spearmanr(*rates).statistic)


def summarise(
    config: Config, plan: Plan, hits: Mapping[tuple[str, float, int], Hits]
) -> dict[str, Any]:
    """The nested summary; every rate with its interval over seeds and points."""
    seeds = 1 + max(seed for _, _, seed in hits)
    found, claims = {}, []
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
        claims += _claims(norm, part, stacked)
    return {
        "dataset": config.dataset,
        "classes": list(plan.dataset.class_names),
        "attack": attack_words(config),
        "seeds": seeds,
        "train_examples": len(plan.train),
        "evaluation_examples": len(plan.test),
        "recipe": {"model": plan.standard.spec.model, "width": plan.standard.spec.width,
                   **plan.standard.record(), "attack_steps": attack_steps(config),
                   "eps_warmup": config.eps_warmup},
        "norms": found,
        "claims": claims,
    }  # fmt: skip


def _norm(plan: Plan, norm: str, grid: tuple[float, ...], hits: np.ndarray) -> dict[str, Any]:
    guess = 1 / plan.dataset.num_classes
    by_eps = []
    for index, eps in enumerate(grid):
        one = hits[:, :, [index]]
        by_eps.append(
            {
                "eps": eps,
                "clean_accuracy": measures.rate(hits[:, 0, index]),
                "robust_accuracy": measures.rate(hits[:, 1, index]),
                "fooling_rate": measures.computed(
                    lambda array: fooling(array)[0], one, limits=(0.0, 1.0)
                ),
                "collapsed": int((hits[:, 0, index].mean(axis=1) < COLLAPSED * guess).sum()),
            }
        )
    ends = hits[:, :, [0, -1]]
    best = int(np.argmax(accuracy(hits)))
    return {
        "eval_eps": plan.measured_at[norm],
        "by_eps": by_eps,
        "rank_correlation": measures.computed(rank_correlation, hits, limits=(-1.0, 1.0)),
        "smallest_less_largest": {
            "clean_accuracy": measures.difference(hits[:, 0, 0], hits[:, 0, -1]),
            "fooling_rate": measures.computed(
                lambda array: fooling(array)[0] - fooling(array)[1], ends, limits=(-1.0, 1.0)
            ),
        },
        "highest_clean_accuracy": {
            "eps": grid[best],
            "less_smallest": measures.difference(hits[:, 0, best], hits[:, 0, 0]),
            "less_largest": measures.difference(hits[:, 0, best], hits[:, 0, -1]),
        },
    }


def _claims(norm: str, part: dict[str, Any], hits: np.ndarray) -> list[dict[str, Any]]:
    first, last = part["by_eps"][0], part["by_eps"][-1]
    apart = part["smallest_less_largest"]
    name, top = title(norm), format_eps(last["eps"])
    claims = [
        measures.claim(
            f"{name}: trained at the largest eps ({top}), networks are fooled less often at eps "
            f"{format_eps(part['eval_eps'])} than trained at 0.",
            first["fooling_rate"],
            last["fooling_rate"],
            paired=apart["fooling_rate"],
        ),
        measures.claim(
            f"{name}: they are less accurate on clean images (trained at 0, beside at {top}).",
            first["clean_accuracy"],
            last["clean_accuracy"],
            paired=apart["clean_accuracy"],
        ),
    ]
    part["tradeoff_shown"] = all(claim["verdict"] == HOLDS for claim in claims)
    return claims


def correlation_words(found: Mapping[str, Any]) -> str:
    """A correlation with its interval."""
    return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def findings(summary: dict[str, Any]) -> list[str]:
    """What was found in this run, in plain words."""
    return [_finding(norm, part) for norm, part in summary["norms"].items()]


def _finding(norm: str, part: dict[str, Any]) -> str:
    first, last, name = part["by_eps"][0], part["by_eps"][-1], title(norm)
    shown = "is shown" if part["tradeoff_shown"] else "is not shown"
    words = (
        f"{name}: that a lower fooling rate costs clean accuracy {shown} between training at eps 0 "
        f"and at {format_eps(last['eps'])}. Fooled at eps {format_eps(part['eval_eps'])}: "
        f"{format_rate(first['fooling_rate'])} against {format_rate(last['fooling_rate'])}; right "
        f"on clean images: {format_rate(first['clean_accuracy'])} against "
        f"{format_rate(last['clean_accuracy'])}."
    )
    best = part["highest_clean_accuracy"]
    if 0 < best["eps"] < last["eps"]:
        words += (
            " The clean accuracy is not monotone: it is highest at eps "
            f"{format_eps(best['eps'])}, by {_points(best['less_smallest'])} percentage points "
            f"above eps 0 and by {_points(best['less_largest'])} above the largest (chosen after "
            "the fact, so flattering)."
        )
    words += (
        " Rank correlation of fooling rate and clean accuracy over eps (1: all robustness is paid "
        f"for): {correlation_words(part['rank_correlation'])}."
    )
    collapsed = sum(point["collapsed"] for point in part["by_eps"])
    if collapsed:
        words += (
            f" {collapsed} of the networks did not learn at all (clean accuracy near a guess): "
            "their eps says nothing of a price."
        )
    return words


def _points(found: Mapping[str, Any]) -> str:
    return f"{100 * found['mean']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
