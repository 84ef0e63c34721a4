"""Robust generalisation needs more data: accuracy over the size of the training set.

    python -m experiments.sample_complexity --workdir=runs/sample_complexity

Standard and adversarially trained networks on nested training sets that double in size, each with
as many updates (Schmidt et al. 2018, https://arxiv.org/abs/1804.11285, section 5); beside them the
paper's Gaussian and Bernoulli models, where errors are exact and bounds are known.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.sample_complexity import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import data
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory
from advfeat.threats.balls import ThreatModel, threat_model
from experiments import (
    runner,
    sample_complexity_report,
    sample_complexity_summary,
    sample_theory,
    sweeps,
)
from experiments.limits import check_eps
from experiments.presets import preset_for
from experiments.recipes import Recipe
from experiments.sweeps import Hits, Job, Points

KINDS = ("standard", "adversarial")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      train: the training images that the sets are drawn from.
      test: what is measured on.
      sizes: of the training sets, ascending.
      threat: of training and measurement.
      eps: its eps, as given.
      standard: recipe of the standard networks.
      gaussian: the Gaussian model.
      bernoulli: the Bernoulli model.
    """

    dataset: data.Dataset
    train: data.Split
    test: Points
    sizes: tuple[int, ...]
    threat: ThreatModel
    eps: float
    standard: Recipe
    gaussian: sample_theory.Model
    bernoulli: sample_theory.Model


def prepare(config: Config) -> Plan:
    """Reads what the flags name and fills in the presets; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    train = sweeps.training_images(config, dataset, preset)
    usual = preset.linf_eps if config.norm == "linf" else preset.robust_eps
    eps = usual if config.eps is None else config.eps
    check_eps(config.norm, dataset.input_shape, eps=eps)
    threat = threat_model(config.norm, eps)
    sweeps.attacks(config, threat, dataset.num_classes)  # says now what cannot be
    dim = 100 if config.dry_run else config.dim
    return Plan(
        dataset=dataset,
        train=train,
        test=Points.of(dataset.test, 50 if config.dry_run else config.eval_examples, config.seed),
        sizes=_sizes(config, len(train), dataset.num_classes),
        threat=threat,
        eps=float(eps),
        standard=sweeps.recipe(config, dataset, preset),
        gaussian=sample_theory.gaussian_model(
            dim=dim,
            noise=config.noise or 0.64 * dim**0.25,
            eps=config.model_eps,
            draws=config.draws,
            short=config.dry_run,
        ),
        bernoulli=sample_theory.bernoulli_model(short=config.dry_run),
    )


def _sizes(config: Config, total: int, classes: int) -> tuple[int, ...]:
    """Those asked for, or all images halved while two of each class are left, up to five times."""
    if config.sizes is None:
        halved = [total // 2**k for k in range(2 if config.dry_run else 6)]
        sizes = tuple(sorted(size for size in halved if size >= 2 * classes))
        if len(sizes) < 2:
            raise ValueError(f"{total} training images are too few to halve: give --sizes")
        return sizes
    if config.sizes[0] < classes:
        raise ValueError(
            f"flag --sizes={config.sizes[0]}: must be at least {classes}, one for each class"
        )
    if config.sizes[-1] > total:
        raise ValueError(
            f"flag --sizes={config.sizes[-1]}: there are {total} training images"
            + (" in a dry run" if config.dry_run else " (see --train_examples)")
        )
    return config.sizes


def jobs(config: Config, plan: Plan) -> dict[tuple[str, int, int], Job]:
    """Every network: (kind, size, seed) -> what to do. A seed's training sets are nested."""
    found = {}
    robust = sweeps.robust(config, plan.standard, plan.threat)
    recipes = {"standard": plan.standard, "adversarial": robust}
    drawn = {seed: _nested(config, plan, seed) for seed in range(sweeps.seeds(config))}
    for size in plan.sizes:
        for seed, parts in drawn.items():
            part = parts[size]
            points = {
                "test": plan.test,
                "train": Points.of(part, config.eval_examples, config.seed),
            }
            for kind in KINDS:
                found[kind, size, seed] = Job(
                    name=f"{kind}_{size}_{seed}",
                    recipe=recipes[kind],
                    train=_repeated(part, plan.sizes[-1]),
                    points=points,
                    threats={"robust": plan.threat},
                    noise=True,
                )
    return found


def _nested(config: Config, plan: Plan, seed: int) -> dict[int, data.Split]:
    """A seed's training sets by size, each drawn from the next larger one."""
    found, part = {}, plan.train
    for size in sorted(plan.sizes, reverse=True):
        part = data.subset(part, size, seed=sweeps.seed_of(config, seed))
        found[size] = part
    return found


def _repeated(part: data.Split, count: int) -> data.Split:
    """The images over and over, so that every set gets as many updates of the same shape."""
    rows = np.resize(np.arange(len(part)), count)
    return data.Split(part.image[rows], part.label[rows], np.arange(count))


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, measures, simulates, draws and reports."""
    todo = jobs(config, plan)
    hits: dict[tuple[str, int, int], Hits] = {}
    with tqdm(total=len(todo) * plan.standard.how.epochs, desc="networks", unit="epoch") as bar:
        for place, job in todo.items():
            hits[place] = sweeps.measure(config, run, job, advance=bar.update)
    root = stream(jax.random.key(config.seed), "theory")
    theory = {
        "gaussian": sample_theory.simulate_gaussian(root, plan.gaussian),
        "bernoulli": sample_theory.simulate_bernoulli(root, plan.bernoulli),
    }
    curves = sample_complexity_summary.Curves.of(plan.sizes, hits)
    summary = sample_complexity_summary.summarise(config, plan, curves, theory)
    sample_complexity_report.write(config, plan, run, summary)
    return summary


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="sample_complexity")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
