"""Broken defences: what FGSM says of each, what a suite of attacks says, and what the checks say.

    python -m experiments.defences --workdir=runs/defences

One small network, eighteen ways to make it look robust, and an adversarially trained one beside
them. A defence is caught if the suite leaves, decidably, less than five points more of it than of
the undefended network, or if the checks of `advfeat.evaluation.diagnostics` say not to trust the
number.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.defences import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, figures, stats
from advfeat.evaluation import broken_defences
from advfeat.evaluation.result import SuiteResult
from advfeat.evaluation.robust_accuracy import evaluate
from advfeat.evaluation.suites import Suite, resolve, shortened
from advfeat.keys import stream
from advfeat.runs.checkpoints import Network
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_rate, write_report
from advfeat.stats import Claim, Estimate
from advfeat.threats.norms import title
from advfeat.training import Fit
from advfeat.types import Array, ModelFn
from experiments import networks, runner
from experiments.config import format_eps
from experiments.limits import check_eps
from experiments.networks import spec_for
from experiments.presets import preset_for
from experiments.recipes import Recipe
from experiments.words import of_norms, terms

SHOWN = {name: name.replace("_", " ") for name in broken_defences.DEFENCES}
PLAIN, ROBUST = "no defence", "adversarial training"
IN_ONE_PICTURE = 7  # labels of more would touch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      standard: how the undefended networks are made.
      robust: how the adversarially trained one is made.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      threat: what the attacks may do.
      defences: which ones.
      attack: the suite.
    """

    dataset: data.Dataset
    standard: Recipe
    robust: Recipe
    images: np.ndarray
    labels: np.ndarray
    threat: advfeat.ThreatModel
    defences: tuple[str, ...]
    attack: Suite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found of one network.

    Attributes:
      clean: `[N]` bool, right on the clean image.
      fgsm: `[N]` bool, right under FGSM as well.
      result: of the suite with its checks.
    """

    clean: np.ndarray
    fgsm: np.ndarray
    result: SuiteResult


def prepare(config: Config) -> Plan:
    """Reads what the flags name; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    some = 20 if config.dry_run else config.num_examples
    test = data.subset(dataset.test, some, seed=config.seed)
    check_eps(config.norm, dataset.input_shape, eps=config.eps)
    threat = advfeat.threat_model(config.norm, config.eps)
    suite = resolve(config.attack, threat, num_classes=dataset.num_classes)
    preset = preset_for(dataset)
    epochs = 1 if config.dry_run else config.epochs
    standard = Recipe(
        spec=spec_for(dataset, config.model, width=config.width),
        how=Fit(epochs=epochs, batch_size=preset.batch_size, learning_rate=preset.learning_rate),
    )
    robust = dataclasses.replace(
        standard, how=dataclasses.replace(standard.how, epochs=2 * epochs), threat=threat
    )
    return Plan(
        dataset=dataset,
        standard=standard,
        robust=robust,
        images=data.unit(test.image),
        labels=test.label,
        threat=threat,
        defences=config.defences[::6] if config.dry_run else config.defences,
        attack=shortened(suite) if config.dry_run else suite,
    )


def _affine(weights: Mapping[str, Array], x: Array) -> Array:
    return x @ weights["kernel"] + weights["bias"]


def halves(network: Network) -> broken_defences.Halves:
    """A network cut before its last layer."""
    head = jax.tree_util.Partial(_affine, network.variables["params"]["classifier"])
    return broken_defences.Halves(network.model_fn("representation"), head)


def _subjects(config: Config, plan: Plan, run: RunDirectory) -> dict[str, ModelFn]:
    """Every network to look at, by name; trained where the run does not hold them yet."""
    root, split = jax.random.key(config.seed), plan.dataset.train

    def made(name: str, recipe: Recipe) -> broken_defences.Halves:
        return halves(networks.train(run, name, stream(root, name), recipe, split))

    members = [made(f"standard_{index}", plan.standard) for index in range(3)]
    honest = broken_defences.Honest(
        network=members[0],
        members=members,
        images=plan.images,
        levels=255 if plan.dataset.test.image.dtype == np.uint8 else 16,
    )
    return {
        PLAIN: members[0],
        ROBUST: made("adversarial", plan.robust),
        **{name: broken_defences.DEFENCES[name](honest) for name in plan.defences},
    }


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, attacks every network twice, checks, draws and reports."""
    subjects = _subjects(config, plan, run)
    # One family: the attacks compile once for all of them.
    family = dict(zip(subjects, broken_defences.one_of(list(subjects.values())), strict=True))
    where: dict[str, Any] = {"threat": plan.threat, "batch_size": config.batch_size}
    verdicts = {}
    for name, fn in tqdm(family.items(), desc="defences", unit="network"):
        key = stream(jax.random.key(config.seed), "attacks")
        data_ = (plan.images, plan.labels)
        weak = evaluate(key, fn, *data_, suite=["fgsm"], checks=False, **where)
        strong = evaluate(key, fn, *data_, suite=plan.attack, **where)
        verdicts[name] = Verdict(clean=weak.clean, fgsm=weak.robust, result=strong)
        run.log(len(verdicts), stage=f"defences/{name}", robust=float(strong.robust.mean()))
    summary = _summary(config, plan, verdicts)
    _report(config, plan, run, summary)
    return summary


def _summary(config: Config, plan: Plan, verdicts: dict[str, Verdict]) -> dict[str, Any]:
    plain = verdicts[PLAIN]
    # What each defence adds to the undefended network, all of them read together.
    gains, by_fgsm = (
        stats.together({name: stats.difference(hits(verdicts[name]), hits(plain))
                        for name in plan.defences})
        for hits in (lambda verdict: verdict.result.robust, lambda verdict: verdict.fgsm)
    )  # fmt: skip

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
            "broken": name in gains and broken(gains[name]),
        }

    found = {name: entry(name, verdict) for name, verdict in verdicts.items()}
    return {
        "dataset": config.dataset,
        "norm": config.norm,
        "eps": config.eps,
        "attacks": [part.name for part in plain.result.attacks],
        "examples": len(plan.labels),
        "networks": found,
        "claims": runner.judged(_claims(plan, verdicts, found), config),
    }


def broken(gain: Estimate) -> bool:
    """Whether the suite leaves, decidably, less than five points more than without a defence."""
    return gain.high is not None and gain.high < stats.MARGIN


def _claims(
    plan: Plan, verdicts: dict[str, Verdict], found: dict[str, Any]
) -> list[Claim]:
    # By image, the share of the defences that stand: they are these, no sample of all there are.
    fgsm = np.mean([verdicts[name].fgsm for name in plan.defences], axis=0)
    suite = np.mean([verdicts[name].result.robust for name in plan.defences], axis=0)
    caught = [found[name]["broken"] or not found[name]["trusted"] for name in plan.defences]
    alarms = [not found[name]["trusted"] for name in (PLAIN, ROBUST)]
    plain, robust = verdicts[PLAIN].result.robust, verdicts[ROBUST].result.robust
    return [
        stats.claim(
            "FGSM alone calls broken defences more robust than a suite of attacks does.",
            stats.rate(fgsm),
            stats.rate(suite),
            paired=stats.difference(fgsm, suite),
        ),
        stats.claim(
            "Broken defences are broken by the suite or not trusted; honest networks are trusted.",
            stats.rate(caught),
            stats.rate(alarms),
        ),
        stats.claim(
            "Adversarial training makes a network more robust, under the suite as well.",
            stats.rate(robust),
            stats.rate(plain),
            paired=stats.difference(robust, plain),
        ),
    ]


def _caught(entry: dict[str, Any]) -> bool:
    return bool(entry["broken"] or not entry["trusted"])


def _outcome(entry: dict[str, Any], name: str) -> str:
    if name in (PLAIN, ROBUST):
        return "trusted" if entry["trusted"] else "not trusted"
    words = ["broken"] if entry["broken"] else []
    words += [] if entry["trusted"] else ["not trusted"]
    return ", ".join(words) or "NOT CAUGHT"


def _findings(plan: Plan, summary: dict[str, Any]) -> list[str]:
    found = summary["networks"]
    missed = [
        SHOWN[name]
        for name in plan.defences
        if found[name]["trusted"] and not found[name]["broken"]
    ]
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
        f"The undefended network keeps {format_rate(found[PLAIN]['robust_accuracy'])} under the "
        f"suite, the adversarially trained one {format_rate(found[ROBUST]['robust_accuracy'])}.",
    ]


def _report(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    found = summary["networks"]
    honest, wrapped = [PLAIN, ROBUST], list(plan.defences)
    pictures = []
    for number, start in enumerate(range(0, len(wrapped), IN_ONE_PICTURE - 1), 1):
        groups = {
            SHOWN.get(name, name).replace(" ", "\n"): {
                "under FGSM": found[name]["fgsm_accuracy"],
                "under the suite": found[name]["robust_accuracy"],
            }
            for name in [*honest, *wrapped[start : start + IN_ONE_PICTURE - 1]]
        }
        figure = figures.bars(groups, ylabel="accuracy under attack")
        pictures.append(
            Picture(
                path=figures.save(figure, run.figure(f"defences_{number}")),
                alt="Bars of accuracy under FGSM and under the suite for each network",
                caption="Blue: what FGSM reports. Grey: what the suite leaves of it.",
            )
        )
    table = Table(
        caption="Accuracy, 95 % intervals over test points",
        columns=["network", "outcome", "clean", "FGSM", "suite", "warnings"],
        rows=[
            [
                SHOWN.get(name, name),
                _outcome(entry, name),
                entry["clean_accuracy"],
                entry["fgsm_accuracy"],
                entry["robust_accuracy"],
                ", ".join(entry["codes"]) or None,
            ]
            for name, entry in found.items()
        ],
    )
    reasons = [
        [SHOWN.get(name, name), warned["code"], warned["sentence"]]
        for name, entry in found.items()
        for warned in entry["warnings"]
    ]
    blocks: list[str | Table | Picture] = ["No check gave a warning."]
    if reasons:
        columns = ["network", "code", "what was seen"]
        blocks = [Table(caption="Every warning", columns=columns, rows=reasons)]
    write_report(
        run.report,
        title=f"Broken defences: {config.dataset}",
        sentence=(
            "Does a defence that one weak attack cannot break keep its promise? By FGSM alone "
            f"{len(plan.defences)} broken defences are right about "
            f"{100 * np.mean([found[name]['fgsm_accuracy'].mean for name in plan.defences]):.0f}"
            "\u00a0% of the attacked images on average; after a whole suite of attacks "
            f"{100 * np.mean([found[name]['robust_accuracy'].mean for name in plan.defences]):.0f}"
            f"\u00a0% are left, and {sum(_caught(found[name]) for name in plan.defences)} of "
            f"{len(plan.defences)} are broken or marked as not to be trusted."
        ),
        lead=pictures[0],
        terms=terms(
            "eps", *of_norms(config.norm), "FGSM", "robust accuracy", "interval",
            **{
                "suite": "several different attacks, one after the other on what is left",
                "defence": "something put before or behind a network that is to make it robust; "
                "these hide the gradient and do not",
            },
        ),
        findings=_findings(plan, summary),
        introduction=(
            f"{summary['examples']} test images, {title(config.norm)} eps "
            f"{format_eps(config.eps)}, "
            f"attacked one after the other by {', '.join(summary['attacks'])}. Each defence wraps "
            "the same standard network, so what is left beyond that network's own robust accuracy "
            "is an attack that failed."
        ),
        sections=[
            Section("FGSM beside the suite", [*pictures[1:], table]),
            Section("Why not to believe it", blocks),
        ],
        recipe={
            "data": f"{config.dataset}: {summary['examples']} test images",
            "norm": title(config.norm),
            "eps": format_eps(config.eps),
            "attacks": list(summary["attacks"]),
            "seed": config.seed,
        },
        claims=summary["claims"],
        command=config.command("experiments.defences"),
        record=run.record(),
        cost=run.cost(),
    )


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="defences")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
