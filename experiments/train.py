"""Trains one network, standard or robust, and measures it clean and under attack.

    python -m experiments.train --workdir=runs/robust --objective=adversarial --eps=1
    python -m experiments.train --workdir=runs/mnist --dataset=mnist --norm=linf --eps=0.3 \\
        --objective=adversarial --attack_steps=40 --attack_step_size=0.01

The run directory then serves as `--checkpoint=DIR` of other experiments. A killed run goes on
where its last checkpoint stands and ends bit for bit as an unbroken one.

It is not tuned beyond the presets; what was measured stands in BUILD_NOTES.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, figures, measures, models
from advfeat.keys import stream
from advfeat.report import Picture, Section, Table, format_rate, write_report
from advfeat.results import RunDirectory
from advfeat.training import OBJECTIVES, SCHEDULES, Fit
from advfeat.transforms import TRANSFORMS
from experiments import networks, runner
from experiments.config import Config as BaseConfig
from experiments.config import check_linf_eps, flag
from experiments.networks import Recipe, spec_for
from experiments.presets import chosen, preset_for

_PRESET = "Default: the data set's preset."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """The flags of this experiment."""

    objective: str = flag("standard", "What to descend.", choices=tuple(OBJECTIVES))
    norm: str = flag("l2", "Norm of the threat model.", choices=("l2", "linf", "l1"))
    eps: float | None = flag(None, "Its eps. Default: the preset's robust_eps.", kind="eps")
    attack_steps: int = flag(7, "PGD steps of adversarial training.", kind="count")
    attack_step_size: float | None = flag(
        None, "Their size. Default: 1.4 eps / steps.", kind="positive"
    )
    model: str | None = flag(
        None, f"Architecture. {_PRESET} One of {', '.join(models.names())}."
    )
    width: int | None = flag(None, "Its width. " + _PRESET, kind="count")
    bfloat16: bool = flag(False, "Compute in bfloat16 (weights and attack stay float32).")
    epochs: int | None = flag(None, "Passes over the training set. " + _PRESET, kind="count")
    batch_size: int | None = flag(None, "Examples per step. " + _PRESET, kind="count")
    learning_rate: float | None = flag(None, "The schedule's largest. " + _PRESET, kind="positive")
    schedule: str = flag("onecycle", "Of the learning rate.", choices=SCHEDULES)
    momentum: float = flag(0.9, "Of SGD (Nesterov).", kind="fraction")
    weight_decay: float = flag(5e-4, "L2 regularisation of all weights.", kind="nonnegative")
    augment: str | None = flag(
        None, "Augmentation. " + _PRESET, choices=tuple(TRANSFORMS)
    )
    train_examples: int = flag(0, "Use at most so many training images; 0: all.", kind="natural")
    held_out: float = flag(0.1, "Share of the training images held out and watched.")
    eps_grid: tuple[float, ...] | None = flag(
        None, "Where accuracy under PGD is measured. " + _PRESET, kind="eps_list"
    )
    eval_steps: int = flag(20, "PGD steps of that measurement.", kind="count")
    eval_examples: int = flag(1000, "Test images of that measurement; 0: all.", kind="natural")
    attack_batch_size: int = flag(250, "Examples attacked at a time.", kind="count")

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        if not 0 < self.held_out < 1:
            raise ValueError(f"flag --held_out={self.held_out}: must lie between 0 and 1")
        if np.isinf(self.eps or 0.0) and self.objective != "standard":
            raise ValueError("flag --eps=inf: must be finite for adversarial training")
        if self.norm != "l2" and self.eps is None:
            raise ValueError(f"flag --norm={self.norm}: give --eps with it")
        if not self.momentum < 1:
            raise ValueError(f"flag --momentum={self.momentum}: must be below 1")
        check_linf_eps(self.norm, eps=self.eps or 0.0, eps_grid=self.eps_grid or ())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      train: training images without the held-out ones.
      held_out: images in [0, 1] and labels that are watched.
      recipe: architecture and training.
      eps: of the threat model.
      eps_grid: where accuracy under PGD is measured, ascending, 0 and eps among them.
    """

    dataset: data.Dataset
    train: data.Split
    held_out: tuple[np.ndarray, np.ndarray]
    recipe: Recipe
    eps: float
    eps_grid: tuple[float, ...]


def prepare(config: Config) -> Plan:
    """Reads what the flags name and fills in the presets; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    most = 200 if config.dry_run else config.train_examples
    split = data.subset(dataset.train, most, seed=config.seed)
    kept, held = data.held_out(split, fraction=config.held_out, seed=config.seed)
    if len(held) < 1 or len(kept) < dataset.num_classes:
        raise ValueError(
            f"flag --train_examples={len(split)}: too few to hold out {config.held_out:g} of them"
        )
    watched = data.subset(held, 1000, seed=config.seed)
    robust = config.objective == "adversarial"
    prefix = "robust_" if robust else ""
    eps = preset.robust_eps if config.eps is None else config.eps
    check_linf_eps(config.norm, eps=eps)

    def option(name: str) -> Any:
        given = getattr(config, name)
        return getattr(preset, prefix + name) if given is None else given

    how = Fit(
        epochs=1 if config.dry_run else option("epochs"),
        batch_size=chosen(config, preset, "batch_size"),
        learning_rate=option("learning_rate"),
        schedule=config.schedule,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        augment=option("augment"),
    )
    model = chosen(config, preset, "model")
    usual = preset.robust_width if robust else preset.width
    width = config.width or (usual if model == preset.model else None)
    recipe = Recipe(
        spec=spec_for(dataset, model, width=width, bfloat16=config.bfloat16),
        how=how,
        threat=advfeat.threat_model(config.norm, eps) if robust else None,
        attack_steps=1 if config.dry_run else config.attack_steps,
        attack_step_size=config.attack_step_size,
    )
    grid = {*chosen(config, preset, "eps_grid"), eps, 0.0}
    if config.norm == "linf" and config.eps_grid is None:
        grid = {0.0, *(eps * share for share in (0.25, 0.5, 0.75, 1.0, 1.5) if eps * share <= 1)}
    grid = {0.0, eps} if config.dry_run else grid
    return Plan(
        dataset=dataset,
        train=kept,
        held_out=(data.unit(watched.image), watched.label),
        recipe=recipe,
        eps=float(eps),
        eps_grid=tuple(sorted(grid)),
    )


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, measures, draws and reports."""
    root = jax.random.key(config.seed)
    network = networks.train(
        run, "model", stream(root, "model"), plan.recipe, plan.train, held_out=plan.held_out
    )
    fn, test = network.model_fn(), plan.dataset.test
    images, labels = data.unit(test.image), test.label
    clean = measures.rate(advfeat.accuracy(fn, images, labels))
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
        {"eps": float(eps), "accuracy": measures.rate(row)}
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
        "evaluation": {"attack": "PGD", "steps": steps, "examples": len(some)},
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))),
        "claims": [],
    }
    _report(config, plan, run, summary)
    return summary


def _report(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    chance = 1 / plan.dataset.num_classes
    lines = run.metrics("train/model")
    learning = figures.curves(
        [line["step"] for line in lines],
        {
            "training images, as trained on": [line["accuracy"] for line in lines],
            "held-out images, clean": [line["held_out_accuracy"] for line in lines],
        },
        xlabel="epochs",
        chance=chance,
    )
    finite = [part for part in summary["accuracy_by_eps"] if np.isfinite(part["eps"])]
    sweep = figures.curves(
        [part["eps"] for part in finite],
        {"test images under PGD": [part["accuracy"] for part in finite]},
        xlabel=f"eps ({config.norm}, pixels in [0, 1])",
        chance=chance,
    )
    blocks: list[str | Table | Picture] = [
        Picture(
            path=figures.save(learning, run.figure("learning")),
            alt="Accuracy by epoch on training and held-out images",
            caption="After every epoch. Adversarial training is shown on its attacked images.",
        ),
        Picture(
            path=figures.save(sweep, run.figure("epsilons")),
            alt="Accuracy against eps",
            caption="Right on the clean image and under PGD at this eps and every smaller one.",
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
        f"{format_rate(summary['robust_accuracy'])} under PGD at {config.norm} eps {plan.eps:g}.",
        "PGD is one attack; a number to rely on needs a suite of attacks.",
    ]
    write_report(
        run.report,
        title=f"A {config.objective} network: {config.dataset}",
        findings=findings,
        sections=[Section("Accuracy", blocks)],
        command=config.command("experiments.train"),
        record=run.record(),
        cost=run.cost(),
    )


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="train")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
