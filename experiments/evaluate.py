"""Measures how robust a network is: AutoAttack, or attacks you name, and whether to believe it.

    python -m experiments.evaluate --workdir=runs/evaluated --checkpoint=runs/robust \\
        --attack=autoattack --norm=l2 --eps=1 --num_examples=445

`--attack` is a suite (autoattack, standard, plus, rand, quick) or attacks with commas, run one
after the other on what the ones before them left (`--each`: each on all images). A killed run goes
on with the images it had not decided. The checks and the curves mostly compile, however few images
there are: for a quick look, `--nochecks --nocurves`. Time and numbers stand in BUILD_NOTES.md,
"Evaluation".
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data, measures
from advfeat.attacks import ATTACKS, NORMS_OF
from advfeat.checkpoints import Network, check_fits, load_network
from advfeat.checks import check_logits
from advfeat.keys import stream
from advfeat.results import RunDirectory
from advfeat.sampling import draw_rows
from advfeat.suites import SUITES, resolve
from advfeat.threat import ThreatModel, threat_model
from advfeat.types import AttackFn
from experiments import evaluate_report, runner
from experiments.config import Config as BaseConfig
from experiments.config import flag
from experiments.evaluate_journal import Journal, check_same_problem, fingerprint
from experiments.limits import check_linf_eps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """The flags of this experiment."""

    checkpoint: str | None = flag(None, "The network: DIR, DIR:NAME or zoo:NAME (required).")
    attack: tuple[str, ...] = flag(
        ("autoattack",),
        "A suite, or attacks in the order they are to run.",
        choices=(*SUITES, *ATTACKS),
    )
    steps: int | None = flag(None, "--attack=pgd: steps [40].", kind="count")
    restarts: int | None = flag(None, "--attack=pgd: restarts [1].", kind="count")
    step_size: float | None = flag(
        None, "--attack=pgd: size of a step [2.5 eps / steps].", kind="positive"
    )
    each: bool = flag(False, "Each attack sees every image, not only those that still stand.")
    norm: str = flag("linf", "Norm of the threat model.", choices=("linf", "l2", "l1"))
    eps: float | None = flag(None, "Its eps, pixels in [0, 1], as in 8/255 (required).", kind="eps")
    num_examples: int = flag(1000, "Test images, drawn by the seed; 0: all.", kind="natural")
    batch_size: int = flag(250, "Images attacked at a time: bounds the memory.", kind="count")
    checks: bool = flag(True, "Look for reasons not to believe the number (--nochecks: do not).")
    curves: bool = flag(
        True, "Measure accuracy against eps and loss against steps (--nocurves: do not)."
    )
    sweep_examples: int = flag(
        200, "Images of those curves, drawn from the others; 0: all.", kind="natural"
    )

    def validate(self) -> None:
        """Checks what one flag alone cannot."""
        super().validate()
        for name in ("checkpoint", "eps"):
            if getattr(self, name) is None:
                raise ValueError(f"flag --{name} is missing")
        check_linf_eps(self.norm, eps=self.eps or 0.0)
        chosen = f"--attack={','.join(self.attack)}"
        given = f"flag {chosen}"
        suites = [name for name in self.attack if name in SUITES]
        if suites and len(self.attack) > 1:
            raise ValueError(f"{given}: the suite {suites[0]} stands alone")
        if len(set(self.attack)) != len(self.attack):
            raise ValueError(f"{given}: names one twice")
        for name in self.attack:
            if self.norm not in NORMS_OF.get(name, (self.norm,)):
                raise ValueError(
                    f"{given}: {name} is defined for --norm={' or '.join(NORMS_OF[name])}, "
                    f"not for {self.norm}"
                )
        for name, value in self.pgd_options().items():
            if self.attack != ("pgd",):
                raise ValueError(
                    f"flag --{name}={value}: is for --attack=pgd alone, not for {chosen}"
                )

    def pgd_options(self) -> dict[str, Any]:
        """Those of PGD's flags that were given."""
        given = {name: getattr(self, name) for name in ("steps", "restarts", "step_size")}
        return {name: value for name, value in given.items() if value is not None}


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
      suite: names of the attacks, or of a suite, or attacks by name.
      fingerprint: of the network's weights and of the images.
    """

    network: Network
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]
    threat: ThreatModel
    suite: tuple[str, ...] | dict[str, AttackFn]
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
    _check_eps_scale(config, threat, dataset.input_shape)
    suite: Any = ("fgsm", "pgd") if config.dry_run else config.attack
    if config.pgd_options() and not config.dry_run:
        suite = {"pgd": advfeat.pgd(threat, **config.pgd_options())}
    resolve(suite, threat, num_classes=dataset.num_classes)  # says now what cannot be
    test = data.subset(
        dataset.test, 20 if config.dry_run else config.num_examples, seed=config.seed
    )
    images = data.unit(test.image)
    logits = advfeat.predict(network.model_fn(), images, batch_size=config.batch_size)
    check_logits(logits, name=f"checkpoint {config.checkpoint}")
    known = fingerprint([*jax.tree.leaves(network.variables), images, test.label, test.id])
    if not config.overwrite:
        check_same_problem(config.workdir, known)
    return Plan(
        network=network,
        images=images,
        labels=test.label,
        ids=test.id,
        class_names=tuple(dataset.class_names),
        threat=threat,
        suite=suite,
        fingerprint=known,
    )


def _check_eps_scale(config: Config, threat: ThreatModel, shape: tuple[int, int, int]) -> None:
    widest, eps = threat.norm.diameter(math.prod(shape)), float(threat.eps)
    if widest < eps < math.inf:
        raise ValueError(
            f"flag --eps={eps:g}: must be at most {widest:.4g}, or inf, for {config.norm} and "
            f"images of {'x'.join(map(str, shape))}, no two of which are further apart; an eps in "
            "grey levels has to be divided by 255"
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
    """Accuracy against eps, and the best loss so far against steps, on some of the images."""
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
            key, advfeat.pgd(plan.threat, steps=2 * steps), fn, images, labels,
            batch_size=config.batch_size,
        )
        bar.update(len(labels))
    return {
        "examples": len(labels),
        "accuracy_by_eps": [
            {"eps": e, "accuracy": measures.rate(row)}
            for e, row in zip(grid, sweep.robust, strict=True)
        ],
        "loss_by_step": [float(value) for value in by_step.mean(axis=0)],
    }


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="evaluate")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
