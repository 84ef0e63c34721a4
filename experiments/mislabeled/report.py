"""Step 5 of the mislabelled-data experiment: draws the figures and writes the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from advfeat import figures, stats
from advfeat.features.mislabeled import ConstructedSet
from advfeat.rows import draw_rows
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, write_report
from advfeat.threats.norms import title

from .colour_example import described, measure, probabilities
from .plan import Config, Plan
from .sets import Sets
from .sources import Sources
from .summary import CONTROL_NAMES, NAMES, Fresh, by_epoch, eps_words, findings, read_apart


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
    lead, table = _accuracy_blocks(config, summary, chance)
    sections = [
        Section("What the networks were shown", _strips(config, plan, run, networks, sets)),
        Section("What they learned from it", [table]),
        Section(
            "When they learned it",
            [_learning(config, fresh, chance, len(plan.held_out[1]))],
        ),
        Section("Robust features are misleading: is that so?", [_reading_table(config, summary)]),
        Section("Accuracy against eps", [_sweep(plan, summary, chance)]),
        Section("Which class can be turned into which", _matrices(config, plan, sets)),
    ]
    introduction = (
        f"Each of {len(plan.train)} training images of {config.dataset} was perturbed by at most "
        f"{eps_words(summary)} towards another class, as a standard network sees it, and labelled "
        "as that class: D_rand towards a random class, D_other is its part without t = y, D_det "
        "towards the next class. Fresh networks were trained on these sets only and tested on "
        + ("the original test set." if config.evaluate_on == "test" else "held-out images.")
    )
    write_report(
        run,
        summary,
        title=f"The mislabelled-data experiment: {config.dataset}",
        sentence=_sentence(config, summary, chance),
        lead=lead,
        terms=_terms(config, summary),
        findings=findings(config, summary, chance),
        introduction=introduction,
        sections=sections,
        recipe=_recipe(config, plan, summary),
    )


def _sentence(config: Config, summary: dict[str, Any], chance: float) -> str:
    """States question and answer for readers who know nothing of the experiment."""
    variant = next(v for v in ("rand", "other", "det") if v in config.variants)
    rate = summary[f"d_{variant}"]["test_accuracy"].mean
    share = f"{100 * rate:.0f}\u00a0% of unperturbed images"
    guess = f"where guessing gives {100 * chance:.0f}\u00a0%"
    return (
        "Can a network learn to recognise images from examples whose labels all look wrong to "
        f"people? Trained on such examples only ({NAMES[variant]}), networks classify {share} "
        f"correctly, {guess}."
    )


def _terms(config: Config, summary: dict[str, Any]) -> dict[str, str]:
    """Explains the terms at the top of the page."""
    drawn = "training images changed a little towards a class drawn at random"
    about = {
        "rand": f"{drawn}, and labelled as that class",
        "other": "those of D_rand whose drawn class is not their own",
        "det": "training images changed a little towards the class that follows their own in the "
        "list of classes, and labelled as that class",
    }
    return {
        **{NAMES[variant]: about[variant] for variant in about if variant in config.variants},
        "controls": "the same labels on images without this change; what they teach is not an "
        "effect of the change",
        "robust network": "one trained so that small changes do not alter its prediction; the "
        "standard network was not, and the changes were made to mislead it",
        eps_words(summary): "the largest allowed change of an image",
        "PGD": "projected gradient descent, the search for the change",
    }


def _recipe(config: Config, plan: Plan, summary: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of the run, with presets filled in."""
    made = {
        f"{name} network": {
            "model": recipe["model"],
            "width": recipe["width"],
            **{key: value for key, value in recipe.get("training", {}).items() if value},
            **{key: recipe[key] for key in ("objective", "attack_steps") if key in recipe},
            **({"eps": recipe["threat"]["eps"]} if "threat" in recipe else {}),
        }
        for name, recipe in summary["recipes"].items()
    }
    return {
        "data": f"{config.dataset}: {len(plan.train)} training, {len(plan.held_out[1])} held-out "
        f"and {len(plan.evaluation[1])} test images of {plan.dataset.num_classes} classes",
        "norm": title(plan.threat.norm),
        "eps": plan.eps,
        **plan.attack_words,
        "sources": plan.sources,
        "seeds": config.seeds,
        "seed": config.seed,
        "eps_grid": plan.eps_grid,
        **made,
    }


def _strips(
    config: Config, plan: Plan, run: RunDirectory, networks: Sources, sets: Sets
) -> list[Any]:
    """Draws a strip of examples of D_det, or of another set if absent, below photographs.

    Small grey images need visible perturbations; photographs do not.
    """
    variant = "det" if "det" in config.variants else config.variants[0]
    made = sets.training[variant, ""]()
    rows = _telling(made, config.seed)
    place = {int(example): row for row, example in enumerate(plan.train.id)}
    before = plan.train.image[[place[int(made.id[row])] for row in rows]]
    after = made.image[rows]

    def ask() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        pair = {"standard": networks.standard, "robust": networks.robust}
        said = {
            name: np.stack([probabilities(fn, before), probabilities(fn, after)])
            for name, fn in pair.items()
        }
        return said, {"examples": made.id[rows].tolist()}

    says = {
        name: tuple((shares.argmax(axis=1), shares.max(axis=1)) for shares in both)
        for name, both in run.cached("measured/strips", ask).items()
    }
    height, _, channels = plan.dataset.input_shape
    photographs = channels == 3 and height >= 24
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
                smooth=photographs,
            )
        )
    caption = (
        f"Images of {NAMES[variant]}, drawn from those that fooled the source. "
        "The network trained on this set saw the right-hand images under the new labels."
    )
    if not photographs:
        # No flag holds them: these images are the package's, whatever the data set.
        small = {"steps": 2, "most": 10} if config.dry_run else {}
        made_of = run.cached("photographs", lambda: (measure(seed=config.seed, **small), {}))
        turned = described(made_of)
        examples = [*turned.examples, *examples[: 6 - len(turned.examples)]]
        caption = f"Above: {turned.words()} Below: {caption[0].lower()}{caption[1:]}"
    figure = figures.example_strip(examples, norm=plan.threat.norm.name)
    alt = "Originals, magnified perturbations, perturbed images and the networks' predictions"
    return [Picture("examples", figure, alt=alt, caption=caption)]


def _telling(made: ConstructedSet, seed: int) -> np.ndarray:
    """Selects up to five fooled examples of different classes; any if none was fooled."""
    moved = np.flatnonzero(made.fooled & (made.label != made.original_label))
    among = moved if len(moved) else np.arange(len(made.label))
    return among[draw_rows(made.original_label[among], 5, seed=seed)]


def _accuracy_blocks(config: Config, summary: dict[str, Any], chance: float) -> list[Any]:
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
    picture = Picture(
        "accuracy", figure, alt="Bars of accuracy beside their controls", caption=caption
    )
    table = Table(
        caption="Accuracy of fresh networks, 95 % intervals over seeds and test points",
        columns=["set", "trained on", "accuracy"],
        rows=rows,
    )
    return [picture, table]


def _learning(config: Config, fresh: Fresh, chance: float, held_out: int) -> Picture:
    series = {}
    for variant in config.variants:
        for control in ("", "unperturbed"):
            if (variant, control) in fresh and (control == "" or variant == "det"):
                name = NAMES[variant] + (", unperturbed" if control else "")
                series[name] = by_epoch(fresh[variant, control].curve, held_out)
    epochs = range(1, 1 + len(next(iter(series.values()))))
    figure = figures.curves(
        list(epochs),
        series,
        xlabel="epochs",
        ylabel="accuracy on held-out original images",
        chance=chance,
    )
    caption = (
        f"{held_out} held-out original images after every epoch; bands are 95 % intervals over "
        "seeds and images, the widest that these counts allow."
    )
    return Picture("learning", figure, alt="Held-out accuracy by epoch", caption=caption)


def _reading_table(config: Config, summary: dict[str, Any]) -> Table:
    rows = []
    for variant, name in read_apart(config.variants).items():
        part = summary[f"d_{variant}"]
        for where, key in (
            ("training", "robust_network"),
            ("held-out", "robust_network_held_out"),
        ):
            read = part[key]
            rows.append(
                [
                    f"{name}, {where} images",
                    read["keeps_original_label"],
                    read["keeps_original_label_where_known"],
                    read["says_new_label"],
                ]
            )
    return Table(
        caption="Predictions of one independently trained robust network on the perturbed images, "
        "without those with t = y; intervals over images only",
        columns=["set", "original label", "… where it knew the unperturbed image", "new label"],
        rows=rows,
    )


def _sweep(plan: Plan, summary: dict[str, Any], chance: float) -> Picture:
    shown = [index for index, eps in enumerate(plan.eps_grid) if np.isfinite(eps)]
    series = {
        f"{name} network": [summary[name]["accuracy_by_eps"][i]["accuracy"] for i in shown]
        for name in ("standard", "robust")
    }
    figure = figures.curves(
        [plan.eps_grid[i] for i in shown],
        series,
        xlabel=f"eps ({eps_words(summary).split()[0]}, pixels in [0, 1])",
        ylabel="accuracy under PGD",
        chance=chance,
    )
    caption = "Right on the clean image and under PGD at this eps and every smaller one."
    return Picture(
        "epsilons", figure, alt="Accuracy against eps for both networks", caption=caption
    )


def _matrices(config: Config, plan: Plan, sets: Sets) -> list[Any]:
    """Draws source class by target class: D_rand has all pairs, D_det only the next class."""
    variant = next((v for v in ("rand", "other", "det") if v in config.variants), "det")
    made, names = sets.training[variant, ""](), list(plan.dataset.class_names)
    made = made.take(made.label != made.original_label)
    blocks: list[Any] = []
    for network, success in (
        ("standard", made.fooled),
        ("robust", sets.read[variant].says_new),
    ):
        values, counts, intervals = _turned_into(
            made.original_label, made.label, success, plan.dataset.num_classes
        )
        figure = figures.matrix(
            values,
            names,
            names,
            barlabel="predicts the target class",
            counts=counts,
            intervals=intervals,
        )
        who = "source network (attacked)" if network == "standard" else "robust network (transfer)"
        caption = f"{NAMES[variant]}: how often, in per cent, the {who} predicts the target "
        caption += "class; below, in smaller type, the 95 % interval and the number of images."
        alt = f"Matrix of source and target classes for the {network} network"
        blocks.append(Picture(f"turned_into_{network}", figure, alt=alt, caption=caption))
    return blocks


def _turned_into(
    sources: np.ndarray, targets: np.ndarray, success: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns by source and target: success rate and count `[C, C]`, interval `[C, C, 2]`."""
    shares = np.full((classes, classes), np.nan)
    intervals = np.full((classes, classes, 2), np.nan)
    counts = np.zeros((classes, classes), int)
    for source, target in np.unique(np.stack([sources, targets], axis=1), axis=0):
        hits = success[(sources == source) & (targets == target)]
        rate = stats.rate(hits)
        shares[source, target], counts[source, target] = rate.mean, len(hits)
        intervals[source, target] = rate.low, rate.high
    return shares, counts, intervals
