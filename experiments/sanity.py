"""Do maps show what was learned? The same networks trained on labels that say nothing.

    python -m experiments.sanity --workdir=runs/sanity

The test of permuted labels (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292, section 4):
networks trained on true labels, and networks that learned the same images with permuted labels by
heart. A method whose maps are alike for both shows the image, not what was learned. Controls: two
networks trained on true labels from different initial weights differ too; maps of two different
images say how alike unrelated maps of a method are; and edges, which no network made, are the same
for all networks.

Two CPU cores: 63 seconds on digits. Numbers: docs/results/maps.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.sanity import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import accuracy, data, figures, saliency, stats
from advfeat.keys import stream
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, format_rate, write_report
from experiments import networks, runner, saliency_checks, saliency_maps, sweeps
from experiments.map_flags import check_recipe, options_of
from experiments.presets import preset_for
from experiments.recipes import Recipe
from experiments.saliency_maps import EDGES, Options
from experiments.words import capital, method_words, terms, training_words

KINDS = ("true", "again", "permuted")
"""Trained on true labels, on true labels from other weights, on permuted labels."""
MEASURES = ("rank_correlation", "ssim")
PAIRS = ("again", "permuted", "unrelated")
"""What a map of a network of true labels is compared with; "unrelated" is the next image's."""
Likeness = dict[str, dict[str, dict[str, np.ndarray]]]
"""Measure, pair, method -> `[seeds, N]`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      train: training images.
      images: `[N, H, W, C]` in [0, 1], of the test set.
      labels: `[N]`.
      recipe: of every network.
      options: of the methods.
    """

    dataset: data.Dataset
    train: data.Split
    images: np.ndarray
    labels: np.ndarray
    recipe: Recipe
    options: Options


def prepare(config: Config) -> Plan:
    """Reads what the flags name and fills in the presets; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    train = sweeps.training_images(config, dataset, preset)
    recipe = sweeps.recipe(config, dataset, preset)
    check_recipe(config, recipe)
    count = 4 if config.dry_run else max(config.measured, config.shown)
    test = data.subset(dataset.test, count, seed=config.seed)
    return Plan(
        dataset=dataset,
        train=train,
        images=data.unit(test.image),
        labels=test.label,
        recipe=recipe,
        options=options_of(config, train),
    )


def training_set(config: Config, plan: Plan, kind: str, seed: int) -> data.Split:
    """The training images, their labels as the kind wants them."""
    if kind != "permuted":
        return plan.train
    rng = np.random.default_rng(sweeps.seed_of(config, seed))
    return dataclasses.replace(plan.train, label=rng.permutation(plan.train.label))


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, maps, compares, draws and reports."""
    seeds = range(sweeps.seeds(config))
    root = jax.random.key(config.seed)
    found: dict[str, list[dict[str, np.ndarray]]] = {kind: [] for kind in KINDS}
    learned: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    tested: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    total = len(KINDS) * len(seeds) * plan.recipe.how.epochs
    with tqdm(total=total, desc="networks", unit="epoch") as bar:
        for kind in KINDS:
            for seed in seeds:
                name = f"{kind}_{seed}"
                train = training_set(config, plan, kind, seed)
                network = networks.train(
                    run, name, stream(root, name), plan.recipe, train, on_epoch=bar.update
                )
                fn = network.model_fn()
                learned[kind].append(accuracy(fn, data.unit(train.image), train.label))
                test = plan.dataset.test
                tested[kind].append(accuracy(fn, data.unit(test.image), test.label))
                found[kind].append(
                    saliency_maps.maps(
                        config.methods, network, network.variables, plan.options, plan.images,
                        plan.labels, seed=config.seed,
                    )
                )  # fmt: skip
    summary = summarise(config, plan, likeness(config, found), learned, tested)
    _report(config, plan, run, summary, {kind: maps[0] for kind, maps in found.items()})
    return summary


def likeness(config: Config, found: dict[str, list[dict[str, np.ndarray]]]) -> Likeness:
    """How alike the maps of the two kinds and of the control are, image by image."""
    compare = {
        "rank_correlation": saliency.rank_correlation,
        "ssim": saliency_checks.picture_likeness,
    }
    found = {
        **found,
        "unrelated": [
            {method: np.roll(values, 1, axis=0) for method, values in maps.items()}
            for maps in found["true"]
        ],
    }
    return {
        measure: {
            pair: {
                method: np.array([
                    [fn(a, b) for a, b in zip(one[method], other[method], strict=True)]
                    for one, other in zip(found["true"], found[pair], strict=True)
                ])
                for method in config.methods
            }
            for pair in PAIRS
        }
        for measure, fn in compare.items()
    }  # fmt: skip


def summarise(
    config: Config,
    plan: Plan,
    alike: Likeness,
    learned: dict[str, list[np.ndarray]],
    tested: dict[str, list[np.ndarray]],
) -> dict[str, Any]:
    """Means with intervals, and a claim for each method."""

    ranks = alike["rank_correlation"]
    claims = [
        stats.claim(
            f"{capital(method_words(method))} maps of networks that learned other labels "
            "are less alike than those of two networks that learned the same (rank correlation).",
            stats.mean(ranks["again"][method], limits=stats.CORRELATION),
            stats.mean(ranks["permuted"][method], limits=stats.CORRELATION),
            paired=stats.mean(ranks["again"][method] - ranks["permuted"][method]),
            margin=stats.SMALL,
        )
        for method in config.methods
    ]  # fmt: skip
    return {
        "dataset": config.dataset,
        "seeds": sweeps.seeds(config),
        "images": len(plan.images),
        "train_examples": len(plan.train),
        "recipe": {"model": plan.recipe.spec.model, "width": plan.recipe.spec.width,
                   **plan.recipe.record()},
        "learned": {kind: stats.rate(np.array(hits)) for kind, hits in learned.items()},
        "test_accuracy": {kind: stats.rate(np.array(hits)) for kind, hits in tested.items()},
        "likeness": {
            measure: {
                pair: {method: stats.mean(values, limits=stats.CORRELATION)
                       for method, values in methods.items()}
                for pair, methods in pairs.items()
            }
            for measure, pairs in alike.items()
        },
        "claims": runner.judged(claims, config),
    }  # fmt: skip


def _report(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    summary: dict[str, Any],
    first: dict[str, dict[str, np.ndarray]],
) -> None:
    blocks: list[Any] = []
    words = {
        "rank_correlation": "rank correlation of two maps (100 %: the same)",
        "ssim": "SSIM of two pictures (100 %: the same)",
    }
    for measure in MEASURES:
        pairs = summary["likeness"][measure]
        chart = figures.bars(
            {
                method.replace("_", "\n"): {"same labels": pairs["again"][method],
                                            "permuted labels": pairs["permuted"][method],
                                            "another image": pairs["unrelated"][method]}
                for method in config.methods
            },
            ylabel=words[measure],
        )  # fmt: skip
        blocks.append(
            Picture(
                path=figures.save(chart, run.figure(measure)),
                alt=f"{words[measure]}, a pair of bars for each method",
                caption="Maps of a network trained on true labels beside those of another one "
                "trained on the same labels, of one that learned permuted labels, and of another "
                "image. Where the second bar is as high as the first, the map does not show what "
                "was learned. (Edges are the same for all networks: 100 %.)",
            )
        )

    blocks.append(
        Table(
            caption="Means with 95 % intervals over images and seeds",
            columns=["method", "rank correlation, same labels", "permuted labels",
                     "another image", "SSIM, same labels", "permuted labels", "another image"],
            rows=[
                [method_words(method),
                 *(format_number(summary["likeness"][measure][pair][method])
                   for measure in MEASURES for pair in PAIRS)]
                for method in config.methods
            ],
        )
    )  # fmt: skip
    some = data.draw_rows(plan.labels, config.shown, seed=config.seed)
    grid = figures.map_grid(
        [plan.images[index] for index in some for _ in KINDS],
        {
            method_words(method): [first[kind][method][index] for index in some for kind in KINDS]
            for method in config.methods
        } | {EDGES: [saliency.edges(plan.images[index]) for index in some for _ in KINDS]},
        display="heat",
        labels=[kind for _ in some for kind in KINDS],
    )  # fmt: skip
    blocks.append(
        Picture(
            path=figures.save(grid, run.figure("maps")),
            alt="A row per image and network, a column per method",
            caption="Networks that learned true labels, true labels from other weights, and "
            "permuted labels.",
        )
    )
    lead, *blocks = blocks
    method = "gradient" if "gradient" in config.methods else config.methods[0]
    same, permuted = (
        summary["likeness"][MEASURES[0]][pair][method] for pair in ("again", "permuted")
    )
    write_report(
        run.report,
        title=f"Do maps show what was learned? {config.dataset}",
        sentence=(
            "Does a saliency map show what a network has learned, or only the image? Two networks "
            "that learned the same labels have maps of rank correlation "
            f"{same.mean:.2f} (method: {method_words(method)}), a network that learned "
            f"permuted labels and one that learned the true ones of {permuted.mean:.2f}."
        ),
        lead=lead,
        terms=terms(
            "saliency map", "interval",
            **{
                "permuted labels": "training labels exchanged at random: what can be learned from "
                "them has nothing to do with what is seen",
                "rank correlation": "1 where two maps order the pixels alike, 0 where one says "
                "nothing of the other",
            },
        ),
        findings=[
            f"Of permuted labels {format_rate(summary['learned']['permuted'])} were learned"
            + (" (by heart)" if summary["learned"]["permuted"].low > 0.95 else
               " (too few for this test: train longer)")
            + "; those networks are right on "
            f"{format_rate(summary['test_accuracy']['permuted'])} of the test images "
            f"(true labels: {format_rate(summary['test_accuracy']['true'])})."
        ],
        introduction=(
            f"{summary['seeds']} networks of each kind, {summary['train_examples']} training "
            f"images, maps of {summary['images']} test images."
        ),
        sections=[Section("How alike maps are", blocks)],
        recipe={
            "data": f"{config.dataset}: {summary['train_examples']} training images, maps of "
            f"{summary['images']} test images",
            **training_words(plan.recipe.record()),
            "seeds": summary["seeds"],
        },
        claims=summary["claims"],
        command=config.command("experiments.sanity"),
        record=run.record(),
        cost=run.cost(),
    )


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="sanity")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
