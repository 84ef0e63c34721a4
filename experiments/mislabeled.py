"""The mislabelled-data experiment: networks learn from images whose labels all look wrong.

    python -m experiments.mislabeled --workdir=runs/mislabeled

A standard network's training images are perturbed towards another class and labelled as that class;
a fresh network trained on them is tested on the ORIGINAL test set (Ilyas et al. 2019, section 3.2,
https://arxiv.org/abs/1905.02175). Beside each result stand its controls, and what an independently
trained robust network reads off the same images.

Digits, 2 CPU cores: 3 minutes; D_rand 91 %, D_det 50 % where unperturbed images give 10 and 0 %.
Everything measured, CIFAR-10 cats against dogs included: docs/results/mislabeled.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.mislabeled import CONTROLS, VARIANTS, Config

if __name__ == "__main__":
    command.check(Config, __doc__)

from typing import Any

from advfeat.runs.directory import RunDirectory
from experiments import (
    mislabeled_networks,
    mislabeled_report,
    mislabeled_sets,
    mislabeled_summary,
    runner,
)
from experiments.mislabeled_plan import Plan, prepare

__all__ = ["CONTROLS", "VARIANTS", "Config", "run"]


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """The experiment: networks, sets, fresh networks, measures, figures, report."""
    networks = mislabeled_networks.sources(config, plan, run)
    sets = mislabeled_sets.build(config, plan, run, networks)
    fresh = mislabeled_networks.fresh(config, plan, run, sets)
    summary = mislabeled_summary.summarise(config, plan, sets, fresh, networks)
    mislabeled_report.write(config, plan, run, networks, sets, fresh, summary)
    return summary


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="mislabeled")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
