"""Measures how robust a network is: AutoAttack, or attacks you name, and whether to believe it.

    python -m experiments.evaluate --workdir=runs/evaluated --checkpoint=runs/robust \\
        --attack=autoattack --norm=l2 --eps=1 --num_examples=445

`--attack` is a suite (autoattack, standard, plus, rand, quick) or attacks with commas, run one
after the other on what the ones before them left (`--each`: each on all images). A killed run goes
on with the images it had not decided. The checks and the curves mostly compile, however few images
there are: for a quick look, `--nochecks --nocurves`. Time and numbers stand in
docs/results/evaluation.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.evaluate import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, stats
from advfeat.attacks.ascent import by_score
from advfeat.checks import check_logits
from advfeat.evaluation.suites import Suite, resolve, shortened
from advfeat.keys import stream
from advfeat.rows import draw_rows
from advfeat.runs.checkpoints import Network, check_fits, load_network
from advfeat.runs.directory import RunDirectory
from advfeat.runs.files import checksum
from advfeat.threats.balls import ThreatModel, threat_model
from experiments import evaluate_report, runner
from experiments.evaluate_journal import Journal, check_same_problem
from experiments.limits import check_eps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      network: what is attacked.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      ids: `[N]`, the images' places in the test set.
      class_names: of the data set.
      threat: the threat model.
      suite: the attacks by name; in a dry run each in short.
      fingerprint: of the network's weights and of the images.
    """

    network: Network
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]
    threat: ThreatModel
    suite: Suite
    fingerprint: str


def prepare(config: Config) -> Plan:
    """Reads what the flags name; writes nothing."""
    assert config.checkpoint is not None
    assert config.eps is not None
    network = load_network(config.checkpoint)
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    check_fits(
        network,
        class_names=tuple(dataset.class_names),
        input_shape=dataset.input_shape,
        reference=config.checkpoint,
    )
    threat = threat_model(config.norm, config.eps)
    check_eps(config.norm, dataset.input_shape, eps=config.eps)
    named: Any = config.attack
    if config.pgd_options():
        named = {"pgd": advfeat.pgd(threat, **config.pgd_options())}
    suite = resolve(named, threat, num_classes=dataset.num_classes)  # says now what cannot be
    test = data.subset(
        dataset.test, 20 if config.dry_run else config.num_examples, seed=config.seed
    )
    images = data.unit(test.image)
    logits = advfeat.predict(network.model_fn(), images, batch_size=config.batch_size)
    check_logits(logits, name=f"checkpoint {config.checkpoint}")
    known = checksum([network.variables, images, test.label, test.id])
    if not config.overwrite:
        check_same_problem(config.workdir, known)
    return Plan(
        network=network,
        images=images,
        labels=test.label,
        ids=test.id,
        class_names=tuple(dataset.class_names),
        threat=threat,
        suite=shortened(suite) if config.dry_run else suite,
        fingerprint=known,
    )


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Attacks, looks for reasons not to believe it, draws and reports."""
    fn = plan.network.model_fn()
    root = jax.random.key(config.seed)
    with Journal(run, plan.fingerprint) as journal:
        result = advfeat.evaluate(
            stream(root, "suite"),
            fn,
            plan.images,
            plan.labels,
            threat=plan.threat,
            suite=plan.suite,
            sequential=not config.each,
            batch_size=config.batch_size,
            ids=plan.ids,
            checks=config.checks and not config.dry_run,
            done=journal.done,
            on_part=journal.part,
            on_attack=journal.attack,
            on_check=journal.check,
        )
        seconds = journal.seconds()
    attacks = [
        dataclasses.replace(part, seconds=seconds.get(part.name, part.seconds))
        for part in result.attacks
    ]
    result = dataclasses.replace(result, attacks=tuple(attacks))
    print(result)
    run.save_arrays(
        "adversarial",
        {
            "image": plan.images,
            "label": plan.labels,
            "id": plan.ids,
            "adversarial": result.adversarial,
            "clean": result.clean,
            "robust": result.robust,
            "fooled_by": result.fooled_by,
            "distance": result.distance,
        },
        {
            "checkpoint": config.checkpoint,
            "threat": {"norm": config.norm, "eps": config.eps},
            "attacks": [part.name for part in result.attacks],
            "fooled_by": "place in attacks; -1: stands, -2: wrong without an attack",
        },
    )
    summary = {
        "dataset": config.dataset,
        "norm": config.norm,
        "eps": config.eps,
        "num_examples": len(plan.labels),
        "suite": result.suite,
        "clean_accuracy": result.clean_accuracy,
        "robust_accuracy": result.robust_accuracy,
        "attacks": {
            part.name: {
                "robust_accuracy": part.robust_accuracy,
                "tried": int(part.tried.sum()),
                "fooled": int(part.fooled.sum()),
                "forward_passes": part.forward_passes,
                "gradients": part.gradients,
                "seconds": part.seconds,
            }
            for part in result.attacks
        },
        "trusted": result.trusted,
        "warnings": [warned._asdict() for warned in result.warnings],
        "curves": _curves(config, plan, fn),
        "claims": [],
    }
    evaluate_report.write(config, plan, run, result, summary)
    return summary


def _curves(config: Config, plan: Plan, fn: advfeat.ModelFn) -> dict[str, Any]:
    """Accuracy against eps, and the highest loss so far against steps, on some of the images."""
    rows = draw_rows(plan.labels, config.sweep_examples, seed=config.seed)
    images, labels = plan.images[rows], plan.labels[rows]
    key, eps = stream(jax.random.key(config.seed), "curves"), float(plan.threat.eps)
    norm, steps = plan.threat.norm, 2 if config.dry_run else 20
    if not config.curves or not np.isfinite(eps) or eps == 0:
        return {}
    grid = [eps * share for share in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)]
    with tqdm(total=len(grid) * len(labels), desc="curves", unit="image") as bar:
        sweep = advfeat.evaluate_epsilons(
            key,
            lambda e: advfeat.pgd(threat_model(norm, e), steps=steps),
            fn,
            images,
            labels,
            grid,
            batch_size=config.batch_size,
            advance=bar.update,
        )
        by_step = advfeat.loss_by_step(
            key, advfeat.pgd(plan.threat, steps=2 * steps, prefer=by_score), fn, images, labels,
            batch_size=config.batch_size,
        )
        bar.update(len(labels))
    return {
        "examples": len(labels),
        "accuracy_by_eps": [
            {"eps": e, "accuracy": stats.rate(row)}
            for e, row in zip(grid, sweep.robust, strict=True)
        ],
        "loss_by_step": [float(value) for value in by_step.mean(axis=0)],
    }


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="evaluate")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
