"""Trains one network, standard or robust, and measures it clean and under attack.

    python -m experiments.train --workdir=runs/robust --objective=adversarial --eps=1
    python -m experiments.train --workdir=runs/mnist --dataset=mnist --objective=adversarial \\
        --norm=linf --eps=0.3
    python -m experiments.train --workdir=runs/trades --objective=trades --beta=6 --awp=0.01 \\
        --ema=0.99 --select=best --patience=10

The run directory then serves as `--checkpoint=DIR` of other experiments. A killed run goes on
where its last checkpoint stands and ends bit for bit as an unbroken one.

It is not tuned beyond the presets; what was measured (the second line: 99.0 % clean, 93.5 % under
PGD, in 18 minutes on one core) stands in docs/results/robust_training.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.train import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, figures, stats
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_rate, write_report
from advfeat.stats import Estimate
from advfeat.threats.norms import title
from experiments import networks, runner
from experiments.recipes import DEFAULTS
from experiments.train_plan import Plan, prepare
from experiments.words import of_norms, per_cent, terms, training_words


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, measures, draws and reports."""
    root = jax.random.key(config.seed)
    for note in plan.notes:
        print(note)
    network = networks.train(
        run, "model", stream(root, "model"), plan.recipe, plan.train, held_out=plan.held_out
    )
    fn, test = network.model_fn(), plan.dataset.test
    images, labels = data.unit(test.image), test.label
    clean = stats.rate(advfeat.accuracy(fn, images, labels))
    some = data.subset(test, 50 if config.dry_run else config.eval_examples, seed=config.seed)
    steps = 1 if config.dry_run else config.eval_steps
    with tqdm(total=len(some) * sum(e > 0 for e in plan.eps_grid), desc="PGD", unit="image") as bar:
        sweep = advfeat.evaluate_epsilons(
            stream(root, "evaluation"),
            lambda eps: advfeat.pgd(advfeat.threat_model(config.norm, eps), steps=steps),
            fn,
            data.unit(some.image),
            some.label,
            plan.eps_grid,
            batch_size=config.attack_batch_size,
            advance=bar.update,
        )
    by_eps = [
        {"eps": float(eps), "accuracy": stats.rate(row)}
        for eps, row in zip(sweep.epsilons, sweep.robust, strict=True)
    ]
    summary = {
        "dataset": config.dataset,
        "classes": list(plan.dataset.class_names),
        "objective": config.objective,
        "norm": config.norm,
        "eps": plan.eps,
        "clean_accuracy": clean,
        "robust_accuracy": by_eps[plan.eps_grid.index(plan.eps)]["accuracy"],
        "accuracy_by_eps": by_eps,
        "training": {"epochs": plan.recipe.how.epochs, **_made(network.record)},
        "notes": list(plan.notes),
        "evaluation": {"attack": "PGD", "steps": steps, "examples": len(some)},
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))),
        "claims": [],
    }
    _report(config, plan, run, summary)
    return summary


def _made(record: dict[str, Any]) -> dict[str, Any]:
    """How the network was made, and which of its epochs was kept."""
    fields = ("objective", *DEFAULTS, "label_smoothing", "awp", "ema", "swa", "selection")
    return {name: record[name] for name in fields if name in record}


def follow(config: Config, plan: Plan) -> None:
    """What the other processes of a distributed training do."""
    networks.follow(stream(jax.random.key(config.seed), "model"), plan.recipe, plan.train)


def _report(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    chance = 1 / plan.dataset.num_classes
    lines = run.metrics("train/model")
    watched = {
        "training images, as trained on": "accuracy",
        "held-out images, clean": "held_out_accuracy",
        "held-out images, under PGD": "held_out_robust_accuracy",
    }
    learning = figures.curves(
        [line["step"] for line in lines],
        {
            label: [line[name] for line in lines]
            for label, name in watched.items()
            if all(name in line for line in lines)
        },
        xlabel="epochs",
        chance=chance,
    )
    finite = [part for part in summary["accuracy_by_eps"] if np.isfinite(part["eps"])]
    sweep = figures.curves(
        [part["eps"] for part in finite],
        {"test images under PGD": [part["accuracy"] for part in finite]},
        xlabel=f"eps ({title(config.norm)}, pixels in [0, 1])",
        chance=chance,
    )
    lead = Picture(
        path=figures.save(sweep, run.figure("epsilons")),
        alt="Accuracy against eps",
        caption="Right on the clean image and under PGD at this eps and every smaller one.",
    )
    blocks: list[str | Table | Picture] = [
        Picture(
            path=figures.save(learning, run.figure("learning")),
            alt="Accuracy by epoch on training and held-out images",
            caption="After every epoch. Adversarial training is shown on its attacked images.",
        ),
        Table(
            caption="Accuracy under PGD, 95 % intervals over test points",
            columns=["eps", "accuracy"],
            rows=[[f"{part['eps']:g}", part["accuracy"]] for part in finite],
        ),
    ]
    findings = [
        f"The network is right on {format_rate(summary['clean_accuracy'])} of the test images and, "
        f"of {summary['evaluation']['examples']} of them, on "
        f"{format_rate(summary['robust_accuracy'])} under PGD at {title(config.norm)} "
        f"eps {plan.eps:g}.",
        *plan.notes,
        *_selected(summary),
        "PGD is one attack; a number to rely on needs a suite of attacks.",
    ]
    write_report(
        run.report,
        title=f"A {config.objective} network: {config.dataset}",
        sentence=(
            f"How often is a network right that was trained by {config.objective} training? About "
            f"{per_cent(summary['clean_accuracy'])} of the test images as they are, and about "
            f"{per_cent(summary['robust_accuracy'])} when PGD may change them by up to "
            f"{title(config.norm)} eps {plan.eps:g}."
        ),
        lead=lead,
        terms=terms("eps", *of_norms(config.norm), "PGD", "interval"),
        findings=findings,
        sections=[Section("Accuracy", blocks)],
        recipe={
            "data": f"{config.dataset}: {len(plan.train)} training, {len(plan.held_out[1])} "
            f"held-out, {len(plan.dataset.test)} test images of {plan.dataset.num_classes} classes",
            "network": f"{plan.recipe.spec.model}, width {plan.recipe.spec.width}",
            "objective": config.objective,
            "eps": plan.eps,
            "eps_grid": plan.eps_grid,
            **training_words(plan.recipe.record()),
            "measured by": f"PGD of {summary['evaluation']['steps']} steps",
            "seed": config.seed,
        },
        command=config.command("experiments.train"),
        record=run.record(),
        cost=run.cost(),
    )


def _selected(summary: dict[str, Any]) -> list[str]:
    """Which epoch was kept, where that is not simply the last."""
    found = summary["training"].get("selection")
    if not found or (found["select"] == "last" and not found["ended_by"]):
        return []
    why = {
        "overfitting": "catastrophic overfitting ended the training",
        "patience": "no new best for long enough ended the training",
        None: "the training went to its end",
    }[found["ended_by"]]
    chosen = (
        " (chosen for it, so flattering; the interval counts for the choice)"
        if found["select"] == "best" or found["ended_by"] == "overfitting"
        else ""
    )
    return [
        f"The weights are those of epoch {found['epoch']} of {found['epochs']}, with "
        f"{format_rate(Estimate(**found['held_out_robust_accuracy']))} of {found['examples']} "
        f"held-out images right under PGD-{found['steps']}{chosen}; {why}."
    ]


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="train", follow=follow)


if __name__ == "__main__":
    runner.main(run, Config, __doc__, distributed=True)
