"""Remove and retrain: does a network do worse without the pixels that a map ranks first?

    python -m experiments.roar --workdir=runs/roar

Every method's maps of a trained network (of the class it predicts, signs counted where a method has
them) say which share of the pixels of each image, training and test, is replaced by the mean of the
training pixels; networks are trained anew on what is left. The sooner their accuracy falls, the
better the map knew. Controls: pixels drawn at random, and edges (Hooker et al. 2019,
https://arxiv.org/abs/1806.10758). Which pixels are gone may itself tell the class; nothing here
takes that out. A network for every method, share and seed: digits take three minutes on two
CPU cores. Numbers: docs/results/maps.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.roar import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from advfeat import accuracy, data, figures, saliency, stats
from advfeat.evaluation.prediction import predict
from advfeat.keys import stream
from advfeat.runs.checkpoints import Network
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_rate, write_report
from experiments import networks, runner, saliency_maps, sweeps
from experiments.map_flags import check_recipe, options_of
from experiments.presets import preset_for
from experiments.recipes import Recipe
from experiments.saliency_maps import EDGES, Options, total
from experiments.sweeps import Points
from experiments.words import method_words, per_cent, terms, training_words

RANDOM = "random"
CONTROLS = (RANDOM, EDGES)
_SHOWN = 4  # images in the picture
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      train: training images.
      test: test images, as a split.
      recipe: of every network.
      options: of the methods.
      shares: of the pixels.
    """

    dataset: data.Dataset
    train: data.Split
    test: data.Split
    recipe: Recipe
    options: Options
    shares: tuple[float, ...]


def prepare(config: Config) -> Plan:
    """Reads what the flags name and fills in the presets; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    preset = preset_for(dataset)
    train = sweeps.training_images(config, dataset, preset)
    recipe = sweeps.recipe(config, dataset, preset)
    check_recipe(config, recipe)
    count = 50 if config.dry_run else config.eval_examples
    return Plan(
        dataset=dataset,
        train=train,
        test=data.subset(dataset.test, count, seed=config.seed),
        recipe=recipe,
        options=options_of(config, train),
        shares=config.shares[-1:] if config.dry_run else config.shares,
    )


def _shown(config: Config, plan: Plan) -> np.ndarray:
    return data.draw_rows(plan.test.label, _SHOWN, seed=config.seed)


def mean_pixel(split: data.Split) -> np.ndarray:
    """`[C]`, of the images' dtype."""
    mean = split.image.mean(axis=(0, 1, 2), dtype=np.float64)  # float32 stops growing at 2^24
    return (np.round(mean) if split.image.dtype == np.uint8 else mean).astype(split.image.dtype)


def removed(images: np.ndarray, rankings: np.ndarray, share: float, mean: np.ndarray) -> np.ndarray:
    """Images whose highest-ranked pixels are the mean.

    Args:
      images: `[N, H, W, C]`, uint8 or in [0, 1].
      rankings: `[N, H, W]`, the larger, the sooner.
      share: of the pixels, rounded to a whole number of them.
      mean: `[C]`, likewise.

    Returns:
      `[N, H, W, C]`, likewise; of equal ranks the first comes first.
    """
    count = round(share * rankings[0].size)
    order = np.argsort(-rankings.reshape(len(rankings), -1), axis=1, kind="stable")
    gone = np.zeros((len(images), rankings[0].size), bool)
    np.put_along_axis(gone, order[:, :count], True, axis=1)
    return np.where(gone.reshape(rankings.shape)[..., None], mean, images).astype(images.dtype)


def ranking_of(
    config: Config, plan: Plan, network: Network, split: data.Split, name: str
) -> np.ndarray:
    """`[N, H, W]` float32, by a method or a control.

    Maps are of the class that the network predicts: those of the label would tell it to the
    networks that are trained on what is left.
    """
    images = data.unit(split.image)
    if name == RANDOM:
        rng = np.random.default_rng([config.seed, len(split)])
        return rng.random(images.shape[:3], np.float32)
    if name == EDGES:
        return total(np.array([saliency.edges(image) for image in images])).astype(np.float32)
    predicted = np.argmax(predict(network.model_fn(), images), axis=1)
    maps = saliency_maps.maps(
        (name,), network, network.variables, plan.options, images, predicted, seed=config.seed
    )
    return saliency_maps.ranking(name, maps[name]).astype(np.float32)


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Trains, maps, removes, trains again, draws and reports."""
    root = jax.random.key(config.seed)
    names = (*config.methods, *CONTROLS)
    seeds = range(sweeps.seeds(config))
    epochs = (1 + len(names) * len(plan.shares) * len(seeds)) * plan.recipe.how.epochs
    shown: dict[str, np.ndarray] = {}
    hits: dict[tuple[str, float], np.ndarray] = {}
    with tqdm(total=epochs, desc="networks", unit="epoch") as bar:
        network = networks.train(
            run, "whole", stream(root, "whole"), plan.recipe, plan.train, on_epoch=bar.update
        )
        mean = mean_pixel(plan.train)
        for name in names:  # one after the other: maps of a whole training set are large
            before = [
                ranking_of(config, plan, network, part, name) for part in (plan.train, plan.test)
            ]
            shown[name] = before[1][_shown(config, plan)]
            for share in plan.shares:
                hits[name, share] = np.array([
                    _retrained(config, plan, run, before, (name, share, seed), mean, bar)
                    for seed in seeds
                ])  # fmt: skip
    whole = Points.of(plan.test, 0, config.seed)
    clean = accuracy(network.model_fn(), whole.image, whole.label)
    summary = summarise(config, plan, clean, hits)
    _report(config, plan, run, summary, shown)
    return summary


def _retrained(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    before: list[np.ndarray],
    which: tuple[str, float, int],
    mean: np.ndarray,
    bar: Any,
) -> np.ndarray:
    """One network trained without pixels: which test images it gets right, without them too."""
    name, share, seed = which
    parts = [
        dataclasses.replace(split, image=removed(split.image, rankings, share, mean))
        for split, rankings in zip((plan.train, plan.test), before, strict=True)
    ]
    return sweeps.clean_hits(
        config, run, f"{name}_{share:g}_{seed}", plan.recipe, parts[0],
        Points(data.unit(parts[1].image), parts[1].label), advance=bar.update,
    )  # fmt: skip


def summarise(
    config: Config, plan: Plan, clean: np.ndarray, hits: dict[tuple[str, float], np.ndarray]
) -> dict[str, Any]:
    """Accuracy by method and share, the areas under the curves, and a claim for each method."""
    names = (*config.methods, *CONTROLS)
    # `[S, N]`: the share of the shares at which an image is right.
    means = {
        name: np.mean([hits[name, share] for share in plan.shares], axis=0) for name in names
    }
    areas = {name: stats.rate(array) for name, array in means.items()}
    claims = [
        stats.claim(
            f"Without the pixels that {name.replace('_', ' ')} ranks first, networks err more "
            "often than without pixels drawn at random (mean error over the shares).",
            areas[name].complement(), areas[RANDOM].complement(),
            paired=stats.difference(1.0 - means[name], 1.0 - means[RANDOM]),
        )
        for name in config.methods
    ]  # fmt: skip
    return {
        "dataset": config.dataset,
        "seeds": sweeps.seeds(config),
        "train_examples": len(plan.train),
        "evaluation_examples": len(plan.test),
        "recipe": {"model": plan.recipe.spec.model, "width": plan.recipe.spec.width,
                   **plan.recipe.record()},
        "shares": list(plan.shares),
        "whole": stats.rate(clean),
        "accuracy": {
            name: [stats.rate(hits[name, share]) for share in plan.shares] for name in names
        },
        "mean_accuracy": areas,
        "claims": runner.judged(claims, config),
    }  # fmt: skip


def _report(
    config: Config,
    plan: Plan,
    run: RunDirectory,
    summary: dict[str, Any],
    rankings: dict[str, np.ndarray],
) -> None:
    chart = figures.curves(
        [0.0, *plan.shares],
        {method_words(name): [summary["whole"], *values]
         for name, values in summary["accuracy"].items()},
        xlabel="share of the pixels removed, those ranked first",
        ylabel="accuracy of networks trained without them",
        chance=1 / plan.dataset.num_classes,
    )  # fmt: skip
    mean, images = mean_pixel(plan.train), plan.test.image[_shown(config, plan)]
    share = plan.shares[len(plan.shares) // 2]
    strips = figures.map_grid(
        list(images),
        {method_words(name): list(data.unit(removed(images, values, share, mean)))
         for name, values in rankings.items()},
        display="as_is",
    )  # fmt: skip
    together = stats.together(summary["mean_accuracy"])
    ranked = sorted(together.items(), key=lambda item: item[1].mean)
    lead = Picture(
        path=figures.save(chart, run.figure("roar")),
        alt="Accuracy against the share of pixels removed, a line per method",
        caption="The lower a line, the better the map knew what matters.",
    )
    best = min(ranked, key=lambda item: item[1].mean)
    worse = sum(claim.holds for claim in summary["claims"])
    write_report(
        run.report,
        title=f"Remove and retrain: {config.dataset}",
        sentence=(
            "Do saliency maps know which pixels a network needs? Networks were trained anew "
            "without the pixels that each map ranks first: random pixels leave them "
            f"{per_cent(summary['mean_accuracy'][RANDOM])} right, the pixels of the best map "
            f"({best[0].replace('_', ' ')}) {per_cent(best[1])}; {worse} of {len(config.methods)} "
            "methods are decidably better than random."
        ),
        lead=lead,
        terms=terms(
            "saliency map", "interval",
            random="pixels drawn by chance, the control: a map that knows nothing does as well",
        ),
        findings=[
            "From the map that knew best to the one that knew least (mean accuracy over the "
            "shares): " + ", ".join(
                f"{name.replace('_', ' ')} {format_rate(rate)}" for name, rate in ranked
            ) + ". The order was found after the fact; the intervals hold for all of them together."
        ],
        introduction=(
            f"{summary['seeds']} networks for every method and share, trained on "
            f"{summary['train_examples']} images and measured on {summary['evaluation_examples']} "
            "test images from which pixels were removed by the same map."
        ),
        sections=[
            Section("Accuracy without the pixels", [
                Table(caption="Accuracy with 95 % intervals over test images and seeds",
                      columns=["method", *(f"{100 * s:.0f} % removed" for s in plan.shares)],
                      rows=[[method_words(name), *rates]
                            for name, rates in summary["accuracy"].items()]),
                Picture(path=figures.save(strips, run.figure("removed")),
                        alt="Test images without the pixels that each method ranks first",
                        caption=f"{100 * share:.0f} % of the pixels removed."),
            ]),
        ],
        recipe={
            "data": f"{config.dataset}: {summary['train_examples']} training and "
            f"{summary['evaluation_examples']} test images of {plan.dataset.num_classes} classes",
            **training_words(summary["recipe"]),
            "shares": plan.shares,
            "seeds": summary["seeds"],
        },
        claims=summary["claims"],
        command=config.command("experiments.roar"),
        record=run.record(),
        cost=run.cost(),
    )  # fmt: skip


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="roar")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
