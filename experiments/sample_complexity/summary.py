"""Summarises `experiments.sample_complexity`: rates, sizes, gaps, claims and findings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.isotonic import isotonic_regression

from advfeat import stats
from advfeat.runs import runner
from advfeat.runs.report import format_number, format_rate
from advfeat.stats import Claim, Estimate
from advfeat.threats.norms import title

from ..shared.sweeps import Hits, attack_words

if TYPE_CHECKING:
    from .flags import Config
    from .plan import Plan

MEASURES = ("clean", "robust", "noise")
_FIELDS = {"clean": "clean", "robust": "robust", "noise": "robust_noise"}


@dataclasses.dataclass(frozen=True)
class Curves:
    """All hits by kind of network and measure.

    Attributes:
      sizes: of the training sets, ascending.
      test: (kind, measure) -> `[S, K, N]` bool over seeds, sizes and test points.
      train: the same on training images, a list over the K sizes of `[S, M]` each.
    """

    sizes: tuple[int, ...]
    test: dict[tuple[str, str], np.ndarray]
    train: dict[tuple[str, str], list[np.ndarray]]

    @classmethod
    def of(cls, sizes: tuple[int, ...], hits: Mapping[tuple[str, int, int], Hits]) -> Curves:
        """Builds the curves from each network's hits, by kind, size and seed."""
        kinds, seeds = ({place[axis] for place in hits} for axis in (0, 2))
        test, train = {}, {}
        for kind in kinds:
            for name, field in _FIELDS.items():

                def stacked(where: str, size: int, k: str = str(kind), f: str = field) -> Any:
                    return np.stack(
                        [hits[k, size, int(s)][f"{where}_{f}"] for s in range(len(seeds))]
                    )

                test[str(kind), name] = np.stack([stacked("test", n) for n in sizes], axis=1)
                train[str(kind), name] = [stacked("train", n) for n in sizes]
        return cls(sizes, test, train)

    def both(self, first: tuple[str, str], second: tuple[str, str]) -> np.ndarray:
        """Stacks two of the test curves, `[S, 2, K, N]`."""
        return np.stack([self.test[first], self.test[second]], axis=1)


CLEAN, ROBUST, NOISE = ("standard", "clean"), ("adversarial", "robust"), ("adversarial", "noise")


def reached(hits: np.ndarray) -> float:
    """Returns the mean, over all sizes but the largest, of accuracy relative to the largest's.

    >>> hits = np.array([[[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]])
    >>> reached(hits)
    0.5
    """
    curve = hits.mean(axis=(0, 2))
    return float(curve[:-1].mean() / max(curve[-1], 1e-9))


def needed(hits: np.ndarray, sizes: tuple[int, ...], share: float) -> float:
    """Returns log2 of the size at which a curve reaches a share of its last value.

    Between sizes, the curve is interpolated over their logarithm; it is not extrapolated below the
    first size. The curve is first made monotone (isotonic regression): otherwise the first size
    that happens to lie high enough would be taken, and chance would move it forward.

    >>> hits = np.array([[[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]])
    >>> 2 ** needed(hits, (16, 64, 256), 0.5)
    32.0
    """
    curve = isotonic_regression(hits.mean(axis=(0, 2)))
    goal = share * curve[-1]
    index = int(np.argmax(curve >= goal))
    places = np.log2(sizes)
    if index == 0:
        return float(places[0])
    part = (goal - curve[index - 1]) / (curve[index] - curve[index - 1])
    return float(places[index - 1] + part * (places[index] - places[index - 1]))


def summarise(config: Config, plan: Plan, curves: Curves, theory: dict[str, Any]) -> dict[str, Any]:
    """Returns the nested summary; every rate has an interval over seeds and points."""
    shares = {
        "standard_clean": _share(curves, CLEAN),
        "adversarial_robust": _share(curves, ROBUST),
        "adversarial_noise": _share(curves, NOISE),
    }
    summary = {
        "dataset": config.dataset,
        "classes": list(plan.dataset.class_names),
        "norm": config.norm,
        "eps": plan.eps,
        "attack": attack_words(config),
        "seeds": len(curves.test[CLEAN]),
        "sizes": list(curves.sizes),
        "evaluation_examples": len(plan.test),
        "recipe": {
            **plan.standard.summary(),
            "attack_steps": config.attack_steps,
            "eps_warmup": config.eps_warmup,
        },
        "by_size": [_at(curves, index) for index in range(len(curves.sizes))],
        "share_of_final_value": {
            **shares,
            "difference": _share_difference(curves, CLEAN, ROBUST),
            "difference_from_noise": _share_difference(curves, NOISE, ROBUST),
        },
        "size_for_share": _sizes(config, curves),
        **theory,
    }
    summary["claims"] = runner.judged(_claims(summary, curves), config)
    return summary


def _at(curves: Curves, index: int) -> dict[str, Any]:
    """Summarises one size: accuracies on test and training images, and the gaps."""
    part: dict[str, Any] = {"size": curves.sizes[index]}
    for kind in ("standard", "adversarial"):
        part[kind] = {
            where: {
                name: stats.rate(hits[:, index] if where == "test" else hits[index])
                for (k, name), hits in getattr(curves, where).items()
                if k == kind
            }
            for where in ("test", "train")
        }
    part["clean_minus_robust"] = stats.difference(
        curves.test[CLEAN][:, index], curves.test[ROBUST][:, index]
    )
    part["train_minus_test"] = {
        "standard_clean": _gap(curves, index, CLEAN),
        "adversarial_robust": _gap(curves, index, ROBUST),
        "difference": stats.computed(
            lambda train, test: _falls(train, test)[1] - _falls(train, test)[0],
            np.stack([curves.train[CLEAN][index], curves.train[ROBUST][index]], axis=1),
            curves.both(CLEAN, ROBUST)[:, :, index],
        ).in_unit("points"),
    }
    return part


def _falls(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Returns training minus test accuracy, from `[S, 2, M]` and `[S, 2, N]`."""
    return train.mean(axis=(0, 2)) - test.mean(axis=(0, 2))


def _gap(curves: Curves, index: int, which: tuple[str, str]) -> Estimate:
    return stats.computed(
        lambda train, test: train.mean() - test.mean(),
        curves.train[which][index],
        curves.test[which][:, index],
        limits=(-1.0, 1.0),
    ).in_unit("points")


def _share(curves: Curves, which: tuple[str, str]) -> Estimate:
    return stats.computed(reached, curves.test[which], limits=(0.0, np.inf)).in_unit("rate")


def _share_difference(curves: Curves, first: tuple[str, str], second: tuple[str, str]) -> Estimate:
    return stats.computed(
        lambda both: reached(both[:, 0]) - reached(both[:, 1]), curves.both(first, second)
    ).in_unit("points")


def _sizes(config: Config, curves: Curves) -> dict[str, Any]:
    """Returns the sizes at which curves reach the share of their final value, and their ratio."""
    ends = (float(np.log2(curves.sizes[0])), float(np.log2(curves.sizes[-1])))
    found: dict[str, Any] = {"share": config.share}
    for name, which in (("standard_clean", CLEAN), ("adversarial_robust", ROBUST)):
        hits = curves.test[which]
        log = stats.computed(
            lambda array: needed(array, curves.sizes, config.share), hits, limits=ends
        )
        found[name] = _power(log)
        found[f"{name}_at_most"] = log.mean == ends[0]
    log = stats.computed(
        lambda both: (
            needed(both[:, 1], curves.sizes, config.share)
            - needed(both[:, 0], curves.sizes, config.share)
        ),
        curves.both(CLEAN, ROBUST),
    )
    found["times_as_many"] = _power(log)
    found["times_as_many_at_least"] = found["standard_clean_at_most"]
    return found


def _power(log: Estimate) -> Estimate:
    return log.mapped(lambda value: 2.0**value)


def _claims(summary: dict[str, Any], curves: Curves) -> list[Claim]:
    shares, last = summary["share_of_final_value"], summary["by_size"][-1]["train_minus_test"]
    first = summary["gaussian"]["by_count"][0]
    return [
        stats.claim(
            "Robust generalisation needs more data: over the smaller training sets, clean accuracy "
            "(standard training) has reached a larger share of its final value than robust "
            "accuracy (adversarial training).",
            shares["standard_clean"],
            shares["adversarial_robust"],
            paired=shares["difference"],
        ),
        stats.claim(
            "It is the attack, not the size of the perturbations: under noise of the same norm the "
            "same adversarially trained networks have reached a larger share of their final value.",
            shares["adversarial_noise"],
            shares["adversarial_robust"],
            paired=shares["difference_from_noise"],
        ),
        stats.claim(
            f"At all {curves.sizes[-1]} training images, robust accuracy (adversarial training) "
            "falls further from training to test images than clean accuracy (standard training).",
            last["adversarial_robust"],
            last["standard_clean"],
            paired=last["difference"],
            margin=stats.MARGIN,
        ),
        stats.claim(
            "In the Gaussian model, after one example the least robust error of any learner is "
            "above the standard error of a simple one.",
            first["least"],
            first["standard"],
            margin=stats.MARGIN,
        ),
    ]


def eps_words(summary: Mapping[str, Any]) -> str:
    """Describes the threat model in words."""
    return f"{title(summary['norm'])} eps {summary['eps']:g}"


def _size_words(sizes: Mapping[str, Any], name: str) -> str:
    about = "at most " if sizes[f"{name}_at_most"] else ""
    return f"{about}{format_number(sizes[name], 0)}"


def findings(summary: dict[str, Any]) -> list[str]:
    """States the findings of this run in plain words."""
    parts, sizes = summary["by_size"], summary["size_for_share"]
    few, many = parts[0], parts[-1]
    share = f"{100 * sizes['share']:.0f} %"

    def pair(part: Mapping[str, Any]) -> str:
        clean, robust = part["standard"]["test"]["clean"], part["adversarial"]["test"]["robust"]
        return f"{format_rate(clean)} and {format_rate(robust)}"

    told = [
        f"With {few['size']} training images, clean accuracy (standard training) and robust "
        f"accuracy (adversarial training, {eps_words(summary)}) are {pair(few)}; with "
        f"{many['size']} they are {pair(many)}.",
        f"Clean accuracy reaches {share} of its final value at "
        f"{_size_words(sizes, 'standard_clean')} training images, robust accuracy at "
        f"{_size_words(sizes, 'adversarial_robust')}: "
        + ("at least " if sizes["times_as_many_at_least"] else "")
        + f"{format_number(sizes['times_as_many'], 1)} times as many.",
        "From training to test images, at the largest size, robust accuracy falls by "
        f"{format_rate(many['train_minus_test']['adversarial_robust'])} and clean accuracy by "
        f"{format_rate(many['train_minus_test']['standard_clean'])}.",
        "The adversarially trained networks are right on "
        f"{format_rate(few['adversarial']['test']['clean'])} (fewest images) and "
        f"{format_rate(many['adversarial']['test']['clean'])} (most) of the clean test images, and "
        f"on {format_rate(few['adversarial']['test']['noise'])} and "
        f"{format_rate(many['adversarial']['test']['noise'])} under noise of the same norm.",
    ]
    model = summary["gaussian"]
    first, goal = model["by_count"][0], model["count_for_goal"]
    enough = model["upper_bound_count"]
    promised = f"from {enough:,.0f} on" if np.isfinite(enough) else "for no number of them"
    told.append(
        f"Gaussian model in {model['dim']:,} dimensions: one example gives a standard error of "
        f"{format_rate(first['standard'])}, a robust error of {format_rate(first['robust'])}, and "
        f"no learner's is below {format_rate(first['least'])} on average. An error of 1 % takes "
        f"{_count(goal['standard'], model)} (standard), {_count(goal['robust'], model)} (robust) "
        f"and, for the best of all learners, {_count(goal['least'], model)} examples; the paper "
        f"promises it {promised}."
    )
    return told


def _count(found: Mapping[str, int | None], model: Mapping[str, Any]) -> str:
    """Formats the range of counts in which the mean error reaches the goal."""
    beyond = f"more than {model['by_count'][-1]['count']:,}"
    first, last = (
        beyond if found[end] is None else f"{found[end]:,}" for end in ("earliest", "latest")
    )
    return first if first == last else f"{first} to {last}"
