"""Step 5 of the mislabelled-data experiment: the summary, the figures and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import advfeat
from advfeat import figures, measures
from advfeat.constructed import ConstructedSet
from advfeat.report import Picture, Section, Table, format_rate, write_report
from advfeat.results import RunDirectory
from experiments.mislabeled_networks import FreshResult, Sources
from experiments.mislabeled_sets import Sets

if TYPE_CHECKING:
    from experiments.mislabeled import Config, Plan

NAMES = {"rand": "D_rand", "other": "D_other", "det": "D_det"}
CONTROL_NAMES = {
    "unperturbed": "same labels, images unperturbed",
    "noise": "same labels, noise of the same norm",
    "feature_free": "no network's features (class patterns)",
    "robust_source": "built from the robust network",
}
Fresh = Mapping[tuple[str, str], FreshResult]


def summarise(
    config: Config, plan: Plan, run: RunDirectory, networks: Sources, sets: Sets, fresh: Fresh
) -> dict[str, Any]:
    """The nested summary; every rate with its interval."""

    at = plan.eps_grid.index(plan.eps)
    summary: dict[str, Any] = {
        "dataset": config.dataset,
        "classes": list(plan.dataset.class_names),
        "norm": plan.threat.norm.name,
        "eps": plan.eps,
        "attack": plan.attack_words,
        "sources": plan.sources,
        "evaluated_on": config.evaluate_on,
        "train_examples": len(plan.train),
        "evaluation_examples": len(plan.evaluation[1]),
    }
    for name, standing in networks.standing.items():
        summary[name] = {
            "clean_accuracy": measures.rate(standing[plan.eps_grid.index(0.0)]),
            "robust_accuracy": measures.rate(standing[at]),
            "accuracy_by_eps": [
                {"eps": eps, "accuracy": measures.rate(row)}
                for eps, row in zip(plan.eps_grid, standing, strict=True)
            ],
        }
    for variant in config.variants:
        summary[f"d_{variant}"] = _variant(config, sets, fresh, variant)
    summary["claims"] = _claims(config, summary)
    return summary


def _variant(config: Config, sets: Sets, fresh: Fresh, variant: str) -> dict[str, Any]:
    made, read = sets.training[variant, ""], sets.read[variant]
    result = fresh[variant, ""]
    known = read["robust_clean"] == made.original_label
    controls = {
        control: measures.rate(fresh[variant, control].hits) for control in config.controls or ()
    }
    return {
        "test_accuracy": measures.rate(result.hits),
        "test_accuracy_by_next_label": measures.rate(result.hits_new),
        "held_out_accuracy_by_epoch": result.curve.mean(axis=0).round(4).tolist(),
        "training_labels_fitted": float(result.fitted.mean()),
        "examples": len(made.label),
        "source_fooled": measures.rate(made.fooled),
        "mean_distance": float(made.distance.mean()),
        "robust_network": {
            "keeps_original_label": measures.rate(read["robust"] == made.original_label),
            "keeps_original_label_where_known": (
                measures.rate(read["robust"][known] == made.original_label[known])
                if known.any()
                else None
            ),
            "says_new_label": measures.rate(
                (read["robust"] == made.label) & (made.label != made.original_label)
            ),
        },
        "controls": controls,
    }


def _claims(config: Config, summary: dict[str, Any]) -> list[dict[str, Any]]:
    claims = []
    for variant in config.variants:
        part = summary[f"d_{variant}"]
        controls = dict(part["controls"])
        robust_source = controls.pop("robust_source", None)
        if controls:
            text = (
                f"The perturbations of {NAMES[variant]} are features: a network trained on nothing "
                "else classifies the original test set better than one trained on the same labels "
                "with unperturbed, noisy or feature-free images."
            )
            claims.append(measures.claim(text, part["test_accuracy"], *controls.values()))
        if robust_source:
            text = (
                f"They are the non-robust ones: {NAMES[variant]} teaches more than the same set "
                "built from the robust network, at the same eps."
            )
            claims.append(measures.claim(text, part["test_accuracy"], robust_source))
        read = part["robust_network"]
        text = (
            f"The robust features of {NAMES[variant]} are misleading: the robust network reads "
            "the original label off more images than the new one."
        )
        claims.append(
            measures.claim(text, read["keeps_original_label"], read["says_new_label"])
        )
    robust, standard = summary["robust"], summary["standard"]
    claims.append(
        measures.claim(
            f"Adversarial training makes the network robust at {_eps(summary)}.",
            robust["robust_accuracy"],
            standard["robust_accuracy"],
        )
    )
    return claims


def _eps(summary: Mapping[str, Any]) -> str:
    sign = {"l2": "L2", "linf": "L∞", "l1": "L1"}[summary["norm"]]
    return f"{sign} eps {summary['eps']:g}"


def findings(config: Config, summary: dict[str, Any], chance: float) -> list[str]:
    """What was found in this run, in plain words."""
    where = "original test set" if config.evaluate_on == "test" else "held-out original images"
    lines = [
        f"The standard network is right on {format_rate(summary['standard']['clean_accuracy'])} of "
        f"the {where} and on {format_rate(summary['standard']['robust_accuracy'])} under PGD at "
        f"{_eps(summary)}; the robust one on {format_rate(summary['robust']['clean_accuracy'])} "
        f"and {format_rate(summary['robust']['robust_accuracy'])}."
    ]
    for variant in config.variants:
        part = summary[f"d_{variant}"]
        name, mean = NAMES[variant], part["test_accuracy"]["mean"]
        line = (
            f"Trained on nothing but {name}, fresh networks are right on "
            f"{format_rate(part['test_accuracy'])} of the {where} (a guess: {100 * chance:.0f} %)"
        )
        if part["controls"]:
            line += _beside_controls(part["controls"], mean)
        lines.append(line + ".")
        read = part["robust_network"]
        lines.append(
            f"Off the images of {name} the robust network reads the original label in "
            f"{format_rate(read['keeps_original_label'])} and the new one in "
            f"{format_rate(read['says_new_label'])}; the source network was fooled on "
            f"{format_rate(part['source_fooled'])}."
        )
    return lines


def _beside_controls(controls: Mapping[str, Any], mean: float) -> str:
    """The strongest control without features, and the set built from the robust network."""
    plain = {name: rate for name, rate in controls.items() if name != "robust_source"}
    words = ""
    if plain:
        control, strongest = max(plain.items(), key=lambda item: item[1]["mean"])
        words = f"; the strongest control, {CONTROL_NAMES[control]}, gives {format_rate(strongest)}"
        if mean <= strongest["mean"]:
            words += ", so that here the features do not explain it"
    if "robust_source" in controls:
        words += f"; the set built from the robust network {format_rate(controls['robust_source'])}"
    return words


def write(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    networks: Sources,
    sets: Sets,
    fresh: Fresh,
    summary: dict[str, Any],
) -> None:
    """Draws the figures and writes `report.html`."""
    chance = 1.0 / plan.dataset.num_classes
    sections = [
        Section("What the networks were shown", _strips(config, plan, run, networks, sets)),
        Section("What they learned from it", _accuracy_blocks(config, run, summary, chance)),
        Section("When they learned it", [_learning(config, run, fresh, chance)]),
        Section(
            "Robust features are misleading: is that so?", [_reading_table(config, summary)]
        ),
        Section("Accuracy against eps", [_sweep(plan, run, summary, chance)]),
        Section("Which class can be turned into which", _matrices(config, plan, run, sets)),
    ]
    introduction = (
        f"Each of {len(plan.train)} training images of {config.dataset} was perturbed by at most "
        f"{_eps(summary)} towards another class, as a standard network sees it, and labelled as "
        "that class: D_rand towards a random class, D_other is its part without t = y, D_det "
        "towards the next class. Fresh networks were trained on these sets only and tested on "
        + ("the original test set." if config.evaluate_on == "test" else "held-out images.")
    )
    write_report(
        run.report,
        title=f"The mislabelled-data experiment: {config.dataset}",
        findings=findings(config, summary, chance),
        introduction=introduction,
        sections=sections,
        claims=summary["claims"],
        command=config.command("experiments.mislabeled"),
        record=run.record(),
        cost=run.cost(),
    )


def _picture(run: RunDirectory, name: str, figure: Any, alt: str, caption: str) -> Picture:
    return Picture(path=figures.save(figure, run.figure(name)), alt=alt, caption=caption)


def _strips(
    config: Config, plan: Plan, run: RunDirectory, networks: Sources, sets: Sets
) -> list[Any]:
    """A strip of examples for D_det, or for whichever set there is."""
    variant = "det" if "det" in config.variants else config.variants[0]
    made = sets.training[variant, ""]
    rows = _telling(made, sets.read[variant], plan.dataset.num_classes)
    place = {int(example): row for row, example in enumerate(plan.train.id)}
    before = plan.train.image[[place[int(made.id[row])] for row in rows]]
    after = made.image[rows]
    says = {
        "standard": (_confident(networks.standard, before), _confident(networks.standard, after)),
        "robust": (_confident(networks.robust, before), _confident(networks.robust, after)),
    }
    names = plan.dataset.class_names
    examples = []
    for index, row in enumerate(rows):
        spoken = {
            network: tuple((names[label[index]], float(sure[index])) for label, sure in pair)
            for network, pair in says.items()
        }
        examples.append(
            figures.Example(
                original=before[index],
                perturbed=after[index],
                label=names[made.original_label[row]],
                new_label=names[made.label[row]],
                networks=spoken,  # type: ignore[arg-type]
            )
        )
    figure = figures.example_strip(examples, norm=plan.threat.norm.name)
    caption = (
        f"Images of {NAMES[variant]}, the first of each class that fooled the standard network. "
        "The network trained on this set saw the right-hand images under the new labels."
    )
    alt = "Originals, magnified perturbations and perturbed images with what networks say of them"
    return [_picture(run, "examples", figure, alt, caption)]


def _telling(made: ConstructedSet, read: Mapping[str, np.ndarray], classes: int) -> list[int]:
    """The first fooled example of up to five classes; any first examples if none was fooled."""
    moved = made.fooled & (made.label != made.original_label)
    rows = [
        int(np.flatnonzero(moved & (made.original_label == c))[0])
        for c in range(classes)
        if (moved & (made.original_label == c)).any()
    ]
    if 0 < len(rows) < 4:
        more = [int(row) for row in np.flatnonzero(moved)[:5] if int(row) not in rows]
        rows = (rows + more)[:4]
    return rows[:5] or list(range(min(3, len(made.label))))


def _confident(fn: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted labels and their softmax probabilities."""
    logits = advfeat.predict(fn, images).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares.argmax(axis=1), shares.max(axis=1)


def _accuracy_blocks(
    config: Config, run: RunDirectory, summary: dict[str, Any], chance: float
) -> list[Any]:
    groups, rows = {}, []
    for variant in config.variants:
        part = summary[f"d_{variant}"]
        group = {"trained on the perturbed images": part["test_accuracy"]}
        group |= {CONTROL_NAMES[name]: rate for name, rate in part["controls"].items()}
        groups[NAMES[variant]] = group
        rows += [[NAMES[variant], name, rate] for name, rate in group.items()]
    label = "accuracy on the original test set"
    if config.evaluate_on == "held_out":
        label = "accuracy on held-out original images"
    figure = figures.bars(groups, chance=chance, ylabel=label)
    caption = "Strong: fresh networks trained on the set. Muted: the same labels, its controls."
    picture = _picture(run, "accuracy", figure, "Bars of accuracy beside their controls", caption)
    table = Table(
        caption="Accuracy of fresh networks, 95 % intervals over seeds and test points",
        columns=["set", "trained on", "accuracy"],
        rows=rows,
    )
    return [picture, table]


def _learning(config: Config, run: RunDirectory, fresh: Fresh, chance: float) -> Picture:
    series = {}
    for variant in config.variants:
        for control in ("", "unperturbed"):
            if (variant, control) in fresh and (control == "" or variant == "det"):
                curve = fresh[variant, control].curve
                name = NAMES[variant] + (", unperturbed" if control else "")
                series[name] = [
                    {"mean": column.mean(), "low": column.min(), "high": column.max()}
                    for column in curve.T
                ]
    epochs = range(1, 1 + len(next(iter(series.values()))))
    figure = figures.curves(
        list(epochs),
        series,
        xlabel="epochs",
        ylabel="accuracy on held-out original images",
        chance=chance,
    )
    caption = "Held-out original images after every epoch; the band is the range over seeds."
    return _picture(run, "learning", figure, "Held-out accuracy by epoch", caption)


def _reading_table(config: Config, summary: dict[str, Any]) -> Table:
    rows = []
    for variant in config.variants:
        part = summary[f"d_{variant}"]
        read = part["robust_network"]
        rows.append(
            [
                NAMES[variant],
                part["source_fooled"],
                read["keeps_original_label"],
                read["keeps_original_label_where_known"],
                read["says_new_label"],
            ]
        )
    return Table(
        caption="What an independently trained robust network reads off the perturbed images",
        columns=[
            "set",
            "source network says the new label",
            "robust network says the original label",
            "… of images it knew unperturbed",
            "robust network says the new label (t ≠ y)",
        ],
        rows=rows,
    )


def _sweep(plan: Plan, run: RunDirectory, summary: dict[str, Any], chance: float) -> Picture:
    shown = [index for index, eps in enumerate(plan.eps_grid) if np.isfinite(eps)]
    series = {
        f"{name} network": [summary[name]["accuracy_by_eps"][i]["accuracy"] for i in shown]
        for name in ("standard", "robust")
    }
    figure = figures.curves(
        [plan.eps_grid[i] for i in shown],
        series,
        xlabel=f"eps ({_eps(summary).split()[0]}, pixels in [0, 1])",
        ylabel="accuracy under PGD",
        chance=chance,
    )
    caption = "Right on the clean image and under PGD at this eps and every smaller one."
    return _picture(run, "epsilons", figure, "Accuracy against eps for both networks", caption)


def _matrices(config: Config, plan: Plan, run: RunDirectory, sets: Sets) -> list[Any]:
    """Source class by target class: D_rand has all pairs, D_det only the next class."""
    variant = next((v for v in ("rand", "other", "det") if v in config.variants), "det")
    made, names = sets.training[variant, ""], list(plan.dataset.class_names)
    blocks: list[Any] = []
    for network, success in (
        ("standard", made.fooled),
        ("robust", sets.read[variant]["robust"] == made.label),
    ):
        values = measures.turned_into(
            made.original_label, made.label, success, plan.dataset.num_classes
        )
        figure = figures.matrix(values, names, names, barlabel="says the target class")
        who = "source network (attacked)" if network == "standard" else "robust network (transfer)"
        caption = f"{NAMES[variant]}: how often the {who} says the target class."
        alt = f"Matrix of source and target classes for the {network} network"
        blocks.append(_picture(run, f"turned_into_{network}", figure, alt, caption))
    return blocks
