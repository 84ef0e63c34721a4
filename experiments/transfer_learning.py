"""Do robust representations transfer better? Sources of growing eps, another data set as target.

    python -m experiments.transfer_learning --workdir=runs/transfer_learning
    python -m experiments.transfer_learning --workdir=W --dataset=digits --target=mnist
    python -m experiments.transfer_learning --workdir=W --dataset=cifar10 --target=cifar10

Networks trained adversarially on the source at each eps, 0 being standard training; on a few images
of the target, a linear classifier on their frozen representation, and all of their weights
fine-tuned. Controls: representations of networks that were never trained, and training from
scratch. Source and target of one name are two halves of its classes; images of another size are
resized to the source's. The claim is that a network of some eps above 0 transfers best (Salman et
al. 2020, https://arxiv.org/abs/2007.08489), and that the best eps is not the same everywhere. Which
eps is best for one seed's networks is told by the other seeds', on training images of the target
that no network saw: neither the luck of its networks nor that of the test images enters the choice.

Two CPU cores: a minute for the default. Numbers: docs/results/pictures.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.transfer_learning import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import jax
import numpy as np
from skimage.transform import resize
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

import advfeat
from advfeat import data, figures, stats
from advfeat.evaluation.prediction import predict
from advfeat.keys import stream
from advfeat.runs.checkpoints import Network
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_rate, write_report
from advfeat.threats.balls import threat_model
from experiments import networks, runner, sweeps
from experiments.config import UsageError
from experiments.limits import check_eps
from experiments.presets import preset_for
from experiments.recipes import Recipe, fine_tuned
from experiments.sweeps import Points
from experiments.words import per_cent, terms, training_words, unless_it_holds

WAYS = ("frozen", "fine-tuned")
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Default eps of the sources, as shares of the preset's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      source: the source's data set.
      target: the target's, its images of the source's shape.
      train: the source's training images.
      shots: the target's, one set per seed.
      choice: training images of the target that are in none of these sets.
      test: test images of the target.
      standard: recipe of a source at eps 0.
      tuned: recipe of fine-tuning and of training from scratch.
      eps: of the sources, from 0.
    """

    source: data.Dataset
    target: data.Dataset
    train: data.Split
    shots: list[data.Split]
    choice: Points
    test: Points
    standard: Recipe
    tuned: Recipe
    eps: tuple[float, ...]


def prepare(config: Config) -> Plan:
    """Reads what the flags name and fills in the presets; writes nothing."""
    source_classes, target_classes = _classes(config)
    source = data.load(config.dataset, classes=source_classes, data_dir=config.data_dir)
    most = max(4 * config.seeds * config.target_examples, config.eval_examples, 1000)
    target = resized(
        data.load(config.target, classes=target_classes, data_dir=config.data_dir),
        source.input_shape,
        most=most if config.eval_examples else 0,
        seed=config.seed,
    )
    preset = preset_for(source)
    if config.target_examples < 2 * target.num_classes:
        raise ValueError(
            f"flag --target_examples={config.target_examples}: must be at least "
            f"{2 * target.num_classes}, two for each class"
        )
    check_eps("l2", source.input_shape, eps=config.eps)
    standard = sweeps.recipe(config, source, preset)
    grid = config.eps or tuple(float(f"{share * preset.robust_eps:.4g}") for share in SHARES)
    grid = tuple(sorted({0.0, *grid}))
    blank = Network(standard.spec, None, {})
    spec, _ = fine_tuned(blank, target, config.dataset)
    tuned = dataclasses.replace(
        standard, spec=spec,
        how=dataclasses.replace(
            standard.how, epochs=1 if config.dry_run else config.target_epochs,
            batch_size=min(32, config.target_examples),
            learning_rate=standard.how.learning_rate / 2,
        ),
    )  # fmt: skip
    shots = [
        data.subset(target.train, config.target_examples, seed=sweeps.seed_of(config, seed))
        for seed in range(sweeps.seeds(config))
    ]
    return Plan(
        source=source,
        target=target,
        train=sweeps.training_images(config, source, preset),
        shots=shots,
        choice=_held_out(config, target, shots),
        test=Points.of(target.test, 50 if config.dry_run else config.eval_examples, config.seed),
        standard=standard,
        tuned=tuned,
        eps=(grid[0], grid[-1]) if config.dry_run else grid,
    )


def _held_out(config: Config, target: data.Dataset, shots: list[data.Split]) -> Points:
    """Training images of the target that no network is trained on: they choose the eps."""
    rest = ~np.isin(target.train.id, np.concatenate([part.id for part in shots]))
    if rest.sum() < target.num_classes:
        raise ValueError(
            f"flag --target_examples={config.target_examples}: leaves {rest.sum()} of the target's "
            f"{len(target.train)} training images to choose the eps by; it takes "
            f"{target.num_classes}"
        )
    most = 50 if config.dry_run else config.eval_examples
    return Points.of(target.train.take(rest), most, config.seed)


def _classes(config: Config) -> tuple[Any, Any]:
    """The classes of source and target: as given, or two halves of one data set's."""
    if config.target != config.dataset or config.classes is not None:
        return config.classes, config.target_classes
    names = data.load(config.dataset, data_dir=config.data_dir).class_names
    half = len(names) // 2
    if half < 2:
        raise UsageError(f"flag --dataset={config.dataset}: has too few classes for two halves")
    return tuple(names[:half]), tuple(names[half:])


def resized(
    dataset: data.Dataset, shape: tuple[int, ...], *, most: int, seed: int
) -> data.Dataset:
    """A data set with images of another size, smoothed where they shrink.

    Args:
      dataset: what is resized.
      shape: `(H, W, C)`.
      most: images of each split that are kept, 0 for all: resizing takes its time.
      seed: which ones.

    Raises:
      ValueError: for images of another number of channels.
    """
    if tuple(dataset.input_shape) == tuple(shape):
        return dataset
    if dataset.input_shape[2] != shape[2]:
        raise ValueError(
            f"flag --target={dataset.name}: has {dataset.input_shape[2]} channels, the source "
            f"{shape[2]}"
        )

    def scaled(split: data.Split) -> data.Split:
        part = data.subset(split, most, seed=seed)
        found = resize(data.unit(part.image), (len(part), *shape), order=1, anti_aliasing=True)
        return dataclasses.replace(part, image=np.round(255 * found).astype(np.uint8))

    return dataclasses.replace(dataset, train=scaled(dataset.train), test=scaled(dataset.test))


def frozen_hits(network: Network, shots: data.Split, test: Points) -> np.ndarray:
    """`[N]`, which test images a linear classifier on the frozen representation gets right."""
    fn = network.model_fn("representation")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.1))
    classifier.fit(predict(fn, data.unit(shots.image)), shots.label)
    return np.asarray(classifier.predict(predict(fn, test.image)) == test.label)


def chosen_by_others(hits: dict[str, np.ndarray]) -> list[str]:
    """For each seed the name that is best for the mean of all other seeds; of equal ones the first.

    What is then compared, on other points and by the seed's own networks, had no part in the
    choice, and is as good on average as it is elsewhere.

    Args:
      hits: by name `[S, N]`, S at least 2, on points of their own.

    >>> hits = {"a": np.array([[1, 1], [0, 0]]), "b": np.array([[0, 0], [1, 1]])}
    >>> chosen_by_others(hits)
    ['b', 'a']
    """
    seeds = len(next(iter(hits.values())))
    return [
        max(hits, key=lambda name: np.delete(hits[name], seed, axis=0).mean())
        for seed in range(seeds)
    ]


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, transfers, draws and reports."""
    root, seeds = jax.random.key(config.seed), range(sweeps.seeds(config))
    hits: dict[str, dict[str, list[np.ndarray]]] = {way: {} for way in WAYS}
    own: dict[str, list[np.ndarray]] = {}
    # One pass over both, the choice's first.
    points = Points(
        np.concatenate([plan.choice.image, plan.test.image]),
        np.concatenate([plan.choice.label, plan.test.label]),
    )
    per_seed = len(plan.eps) * (plan.standard.how.epochs + plan.tuned.how.epochs)
    total = len(seeds) * (per_seed + plan.tuned.how.epochs)
    with tqdm(total=total, desc="networks", unit="epoch") as bar:
        for seed in seeds:
            blank = Network(
                plan.standard.spec, plan.standard.variables(stream(root, f"blank_{seed}")), {}
            )
            starts: dict[str, Network | None] = {"none": None}
            for eps in plan.eps:
                name = f"source_{eps:g}_{seed}"
                recipe = sweeps.robust(config, plan.standard, threat_model("l2", eps))
                starts[f"{eps:g}"] = networks.train(
                    run, name, stream(root, name), recipe, plan.train, on_epoch=bar.update
                )
            for name, start in starts.items():
                found = frozen_hits(start or blank, plan.shots[seed], points)
                hits["frozen"].setdefault(name, []).append(found)
                hits["fine-tuned"].setdefault(name, []).append(
                    sweeps.clean_hits(
                        config, run, f"tuned_{name}_{seed}",
                        dataclasses.replace(plan.tuned, start=start, start_name=name),
                        plan.shots[seed], points, advance=bar.update,
                    )
                )  # fmt: skip
                if start is not None:
                    test = plan.source.test
                    own.setdefault(name, []).append(
                        advfeat.accuracy(start.model_fn(), data.unit(test.image), test.label)
                    )
    summary = _summary(config, plan, hits, own)
    _report(config, plan, run, summary)
    return summary


def _summary(
    config: Config,
    plan: Plan,
    hits: dict[str, dict[str, list[np.ndarray]]],
    own: dict[str, list[np.ndarray]],
) -> dict[str, Any]:
    claims, best = [], {}
    choice, test = (
        {way: {name: np.array(rows)[:, part] for name, rows in found.items()}
         for way, found in hits.items()}
        for part in (slice(None, len(plan.choice)), slice(len(plan.choice), None))
    )  # fmt: skip
    for way in WAYS:
        robust = [name for name in test[way] if name not in ("none", "0")]
        names = chosen_by_others({name: choice[way][name] for name in robust})
        mine = np.stack([test[way][name][seed] for seed, name in enumerate(names)])
        plain = test[way]["0"]
        best[way] = {"eps": [float(name) for name in names], "target_accuracy": stats.rate(mine)}
        claims.append(
            stats.claim(
                f"{way.capitalize()}: a robust source transfers better than the standard one (its "
                "eps chosen by the other seeds' networks, on held-out training images).",
                stats.rate(mine), stats.rate(plain), paired=stats.difference(mine, plain),
            )
        )  # fmt: skip
    return {
        "source": {"dataset": config.dataset, "classes": list(plan.source.class_names)},
        "target": {"dataset": config.target, "classes": list(plan.target.class_names)},
        "seeds": sweeps.seeds(config),
        "train_examples": len(plan.train),
        "target_examples": len(plan.shots[0]),
        "evaluation_examples": len(plan.test),
        "recipe": {"model": plan.standard.spec.model, "width": plan.standard.spec.width,
                   **plan.standard.record(), "attack_steps": sweeps.attack_steps(config),
                   "eps_warmup": config.eps_warmup},
        "eps": list(plan.eps),
        "choice_examples": len(plan.choice),
        "source_accuracy": {name: stats.rate(np.array(rows)) for name, rows in own.items()},
        "target_accuracy": {
            way: {name: stats.rate(rows) for name, rows in found.items()}
            for way, found in test.items()
        },
        "chosen": best,
        "claims": runner.judged(claims, config),
    }  # fmt: skip


def _report(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    found = summary["target_accuracy"]
    names = [f"{eps:g}" for eps in plan.eps]
    series = {way: [found[way][name] for name in names] for way in WAYS}
    series |= {
        f"{way}, without a source": [found[way]["none"]] * len(names) for way in WAYS
    }  # fmt: skip
    chart = figures.curves(
        list(plan.eps), series, xlabel="L2 eps of the source's training",
        ylabel="accuracy on the target's test images", chance=1 / plan.target.num_classes,
    )  # fmt: skip
    lead = Picture(
        path=figures.save(chart, run.figure("transfer")),
        alt="Accuracy on the target against the eps of the source",
        caption="Frozen: a linear classifier on the representation. Fine-tuned: all weights. Bands "
        "are 95 % intervals over test images and seeds.",
    )
    told = "; ".join(
        f"{way}, {per_cent(best['target_accuracy'])} of the target's test images are recognised "
        f"from a robust source and {per_cent(found[way]['0'])} from the standard one"
        f"{unless_it_holds(claim)}"
        for (way, best), claim in zip(summary["chosen"].items(), summary["claims"], strict=True)
    )
    write_report(
        run.report,
        title=f"Do robust representations transfer better? {config.dataset} to {config.target}",
        sentence="Does a robust network make a better start for another task than a standard one? "
        f"{told[0].upper()}{told[1:]}.",
        lead=lead,
        terms=terms(
            "eps", "L2", "robust network", "representation", "interval",
            source="the network trained first, on the first task; the target is the second task",
            frozen="the source's representation stays as it is and only a linear classifier is "
            "trained; fine-tuned: all weights are trained on",
        ),
        findings=[
            f"{way.capitalize()}: robust source {format_rate(best['target_accuracy'])} (eps "
            f"{', '.join(f'{eps:g}' for eps in best['eps'])}, each chosen by the other seeds' "
            f"networks, on held-out images); standard source {format_rate(found[way]['0'])}; "
            f"without a source {format_rate(found[way]['none'])}."
            for way, best in summary["chosen"].items()
        ],
        introduction=(
            f"Sources: {summary['seeds']} networks per eps, classes "
            f"{', '.join(summary['source']['classes'])}, {summary['train_examples']} images. "
            f"Target: classes {', '.join(summary['target']['classes'])}, "
            f"{summary['target_examples']} training images, another draw for each seed, "
            f"{summary['evaluation_examples']} test images. The eps of a seed is chosen by the "
            f"other seeds' networks, on {summary['choice_examples']} training images of the target "
            "that no network saw."
        ),
        sections=[
            Section("Accuracy on the target", [
                Table(caption="With 95 % intervals over test images and seeds",
                      columns=["source", "on its own test set", *WAYS],
                      rows=[[name if name == "none" else f"eps {name}",
                             summary["source_accuracy"].get(name),
                             *(found[way][name] for way in WAYS)] for name in ("none", *names)]),
            ]),
        ],
        recipe={
            "source": f"{config.dataset}, {summary['train_examples']} images",
            "target": f"{config.target}, {summary['target_examples']} training, "
            f"{summary['choice_examples']} choosing and {summary['evaluation_examples']} test "
            "images",
            **training_words(summary["recipe"]),
            "eps": plan.eps,
            "seeds": summary["seeds"],
        },
        claims=summary["claims"],
        command=config.command("experiments.transfer_learning"),
        record=run.record(),
        cost=run.cost(),
    )  # fmt: skip


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="transfer_learning")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
