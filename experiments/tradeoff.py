"""Does robustness cost accuracy? Training eps swept from 0, for two threat models.

    python -m experiments.tradeoff --workdir=runs/tradeoff

Networks trained adversarially at each eps are measured on clean images and under attack at one
fixed eps per norm; the same networks at eps 0 (standard training) begin both lines. The claim is
that what is fooled less often is right less often (Tsipras et al. 2019,
https://arxiv.org/abs/1805.12152).
"""

from __future__ import annotations

from experiments import command
from experiments.flags.tradeoff import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

from tqdm import tqdm

from advfeat import data
from advfeat.runs.directory import RunDirectory
from advfeat.threats.balls import ThreatModel, threat_model
from experiments import runner, sweeps, tradeoff_report, tradeoff_summary
from experiments.limits import check_eps
from experiments.presets import Preset, preset_for
from experiments.recipes import Recipe
from experiments.sweeps import Hits, Job, Points

NORMS = ("l2", "linf", "l1")
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25)
"""The usual training eps, as shares of the eps of the measurement."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      train: training images.
      test: what is measured on.
      standard: recipe at eps 0.
      eps: norm -> eps of training, ascending from 0.
      measured_at: norm -> eps of the measurement.
      threats: norm -> threat model of the measurement.
    """

    dataset: data.Dataset
    train: data.Split
    test: Points
    standard: Recipe
    eps: dict[str, tuple[float, ...]]
    measured_at: dict[str, float]
    threats: dict[str, ThreatModel]


def prepare(config: Config) -> Plan:
    """Reads what the flags name and fills in the presets; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    train = sweeps.training_images(config, dataset, preset)
    measured_at = {norm: _eval_eps(config, preset, norm) for norm in config.norms}
    for norm, eps in measured_at.items():
        given = {f"eval_{norm}": eps, f"train_{norm}": getattr(config, f"train_{norm}")}
        check_eps(norm, dataset.input_shape, **given)
    threats = {norm: threat_model(norm, eps) for norm, eps in measured_at.items()}
    for threat in threats.values():
        sweeps.attacks(config, threat, dataset.num_classes)  # says now what cannot be
    return Plan(
        dataset=dataset,
        train=train,
        test=Points.of(dataset.test, 50 if config.dry_run else config.eval_examples, config.seed),
        standard=sweeps.recipe(config, dataset, preset),
        eps={norm: _train_eps(config, norm, measured_at[norm]) for norm in config.norms},
        measured_at=measured_at,
        threats=threats,
    )


def _eval_eps(config: Config, preset: Preset, norm: str) -> float:
    usual = {"l2": preset.robust_eps, "linf": preset.linf_eps}
    given = getattr(config, f"eval_{norm}")
    return usual[norm] if given is None else float(given)


def _train_eps(config: Config, norm: str, measured_at: float) -> tuple[float, ...]:
    given = getattr(config, f"train_{norm}") or tuple(
        float(f"{share * measured_at:.4g}") for share in SHARES
    )
    grid = tuple(sorted({0.0, *given}))
    return (grid[0], grid[-1]) if config.dry_run else grid


def jobs(config: Config, plan: Plan) -> dict[tuple[str, float, int], Job]:
    """Every network: (norm, eps, seed) -> what to do; that of eps 0 serves all norms."""
    found = {}
    for seed in range(sweeps.seeds(config)):
        for norm, grid in plan.eps.items():
            for eps in grid:
                # Trained for one norm, measured in it; the standard one in all.
                threats = plan.threats if eps == 0 else {norm: plan.threats[norm]}
                name = "standard" if eps == 0 else f"{norm}_{eps:g}"
                found[norm, eps, seed] = Job(
                    name=f"{name}_{seed}",
                    recipe=sweeps.robust(config, plan.standard, threat_model(norm, eps)),
                    train=plan.train,
                    points={"test": plan.test},
                    threats=threats,
                    keep=True,
                )
    return found


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, measures, draws and reports."""
    todo = jobs(config, plan)
    hits: dict[tuple[str, float, int], Hits] = {}
    with tqdm(total=len(todo) * plan.standard.how.epochs, desc="networks", unit="epoch") as bar:
        for place, job in todo.items():
            hits[place] = sweeps.measure(config, run, job, advance=bar.update)
    summary = tradeoff_summary.summarise(config, plan, hits)
    tradeoff_report.write(config, plan, run, summary)
    return summary


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="tradeoff")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
