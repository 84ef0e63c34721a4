"""Enhance the top two features: what would have turned a wrong prediction into the right label?

    python -m experiments.counterfactual --workdir=runs/counterfactual

Test images that a network gets wrong; the two features of its representation that, made stronger,
speak most for the label against what was predicted, named by the test images that activate them
most; and the nearest image on their way that the network gets right, before and after. Standard
network beside robust network: for one the change is noise, for the other it can be seen. Control:
two features drawn at random.

By default on the samples that come with the package, of which few are predicted wrongly;
`--dataset=cifar10`, once prepared, is the whole test set (two CPU cores: 84 seconds). Numbers:
docs/results/pictures.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.counterfactual import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import data, figures, models, stats
from advfeat.evaluation.prediction import predict
from advfeat.features import counterfactuals, representations
from advfeat.keys import stream
from advfeat.runs.checkpoints import Network
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, write_report
from advfeat.stats import Estimate
from advfeat.types import Array, Key
from experiments import runner
from experiments.limits import check_eps
from experiments.pairs import PAIR, check_layer, data_words, load_pair
from experiments.words import network_words, per_cent, terms

WAYS = ("top", "random")
_BATCH = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      networks: "standard" and "robust".
      images: `[M, H, W, C]` in [0, 1], those searched.
      labels: `[M]`.
      wrong: of each network, the places of those it gets wrong.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    images: np.ndarray
    labels: np.ndarray
    wrong: dict[str, np.ndarray]


def prepare(config: Config) -> Plan:
    """Reads what the flags name and finds wrong predictions; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    check_eps("l2", dataset.input_shape, eps=config.eps)
    networks = load_pair(config, dataset)
    found = data.subset(
        dataset.test, 60 if config.dry_run else config.searched, seed=config.seed
    )
    images, wrong = data.unit(found.image), {}
    for name, network in networks.items():
        units = check_layer(config.layer, network)
        if config.features > units:
            raise ValueError(
                f"flag --features={config.features}: the layer {config.layer} has {units} units"
            )
        right = advfeat.accuracy(network.model_fn(), images, found.label)
        places = np.flatnonzero(~right)
        most = 6 if config.dry_run else config.measured
        wrong[name] = places[data.draw_rows(found.label[places], most, seed=config.seed)]
        if len(places) == 0:
            raise ValueError(
                f"flag --searched={len(images)}: the {name} network gets all of them right"
            )
    return Plan(
        dataset=dataset, networks=networks, images=images, labels=found.label, wrong=wrong
    )


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found for one network; N wrong predictions.

    Attributes:
      predicted: `[N]`.
      units: by way `[N, n]`.
      gains: `[N, n]` of the top ones.
      changed: by way `[N, H, W, C]`.
      turned: by way `[N]`, whether the label is predicted then.
      distance: by way `[N]`, L2.
      nearest: `[N]`, L2 distance of the nearest image of the label by any change.
      values: `[M, D]`, every unit for every searched image.
      off: by way `[N, n]`, which features were off before.
    """

    predicted: np.ndarray
    units: dict[str, np.ndarray]
    gains: np.ndarray
    changed: dict[str, np.ndarray]
    turned: dict[str, np.ndarray]
    distance: dict[str, np.ndarray]
    nearest: np.ndarray
    values: np.ndarray
    off: dict[str, np.ndarray]


def search(config: Config, plan: Plan, name: str) -> Found:
    """The features, the images, and the controls of one network."""
    network, places = plan.networks[name], plan.wrong[name]
    key = stream(jax.random.key(config.seed), name)
    # Features that speak for the label are often off: without the remedy nothing pulls on them.
    model = models.pullable(network.spec.build())
    split = models.split_fn(model, network.variables, layer=config.layer)
    images, labels = plan.images[places], plan.labels[places]
    predicted = np.argmax(predict(network.model_fn(), images), axis=1)
    values = representations.unit_values(network.model_fn(config.layer), plan.images)
    scale = jnp.asarray(np.maximum(values.std(axis=0), 1e-6))
    top = advfeat.attack_dataset(
        _Supporting(scale, config.features), key, split, images, (labels, predicted)
    )
    random = _drawn(key, scale, len(places), config.features)
    attack = counterfactuals.enhance(
        eps=config.eps, steps=3 if config.dry_run else config.steps, step_size=config.step_size
    )
    units = {"top": np.asarray(top.units), "random": np.asarray(random.units)}
    best = {
        way: advfeat.attack_dataset(
            attack, key, split, images, (np.asarray(weights), labels), batch_size=_BATCH
        ).best
        for way, weights in (("top", top.weights), ("random", random.weights))
    }
    nearest = advfeat.attack_dataset(
        advfeat.ddn(advfeat.l2(np.inf), steps=3 if config.dry_run else 50,
                    objective=advfeat.targeted()),
        key, network.model_fn(), images, labels, batch_size=_BATCH,
    ).best  # fmt: skip
    right = partial(advfeat.accuracy, network.model_fn(), labels=labels)
    return Found(
        predicted=predicted,
        units=units,
        gains=np.asarray(top.gains),
        changed={way: np.asarray(found.x) for way, found in best.items()},
        turned={way: right(np.asarray(found.x)) for way, found in best.items()},
        distance={way: np.asarray(found.distance) for way, found in best.items()},
        nearest=np.where(right(np.asarray(nearest.x)), nearest.distance, np.nan),
        values=values,
        off={
            way: np.take_along_axis(values[places], chosen, axis=1) <= 0
            for way, chosen in units.items()
        },
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Supporting:
    """`counterfactuals.supporting` as a function of ONE example; its aim: label, prediction."""

    scale: Array
    count: int = dataclasses.field(metadata={"static": True})

    def __call__(self, key: Key, split: Any, x: Array, y: Any) -> counterfactuals.Features:
        del key
        label, said = y
        return counterfactuals.supporting(split, x, label, said, self.scale, count=self.count)


def _drawn(key: Any, scale: Any, images: int, count: int) -> counterfactuals.Features:
    """Features drawn at random for every image, each as strong as the top ones would be."""
    units = len(scale)

    def one(key: Any) -> counterfactuals.Features:
        chosen = jax.random.choice(key, units, (count,), replace=False)
        weights = jnp.zeros(units).at[chosen].set(1.0 / scale[chosen])
        return counterfactuals.Features(chosen.astype(jnp.int32), jnp.zeros(count), weights)

    return jax.vmap(one)(jax.random.split(stream(key, "random"), images))


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Searches, measures, draws and reports."""
    found = {name: search(config, plan, name) for name in PAIR}
    for name, part in found.items():
        run.save_arrays(
            f"changed/{name}",
            {"places": plan.wrong[name], "predicted": part.predicted, "gains": part.gains,
             **{f"units_{way}": part.units[way] for way in WAYS},
             **{f"image_{way}": part.changed[way] for way in WAYS}},
            {},
        )  # fmt: skip
    summary = _summary(config, found)
    _report(config, plan, run, found, summary)
    return summary


def _summary(config: Config, found: dict[str, Found]) -> dict[str, Any]:
    claims = [
        stats.claim(
            f"{name.capitalize()} network: its top {config.features} features, enhanced, turn the "
            "wrong prediction into the label more often than as many drawn at random.",
            stats.rate(part.turned["top"]), stats.rate(part.turned["random"]),
            paired=stats.difference(part.turned["top"], part.turned["random"]),
        )
        for name, part in found.items()
    ]  # fmt: skip
    return {
        "dataset": config.dataset,
        "layer": config.layer,
        "features": config.features,
        "eps": config.eps,
        "networks": {
            name: {
                "wrong": len(part.predicted),
                "turned": {way: stats.rate(part.turned[way]) for way in WAYS},
                "distance": {
                    way: _mean(part.distance[way][part.turned[way]]) for way in WAYS
                },
                "off": {way: float(part.off[way].mean()) for way in WAYS},
                "nearest": _mean(part.nearest[~np.isnan(part.nearest)]),
            }
            for name, part in found.items()
        },
        "claims": runner.judged(claims, config),
    }  # fmt: skip


def _mean(values: np.ndarray) -> Estimate | None:
    return stats.mean(values, limits=(0.0, np.inf)) if len(values) else None


def _report(
    config: Config, plan: Plan, run: RunDirectory, found: dict[str, Found], summary: dict[str, Any]
) -> None:
    rows = [
        [f"{name}, {way} {config.features}", part["turned"][way],
         format_number(part["distance"][way]), format_number(part["nearest"]),
         f"{100 * part['off'][way]:.0f} %"]
        for name, part in summary["networks"].items() for way in WAYS
    ]  # fmt: skip
    write_report(
        run.report,
        title=f"Enhance the top {config.features} features: {config.dataset}",
        sentence=(
            f"Is a wrong prediction put right by making the {config.features} features stronger "
            "that speak most for the true class? "
            + "; ".join(
                f"in {per_cent(part['turned']['top'])} of the {part['wrong']} errors of the {name} "
                f"network ({per_cent(part['turned']['random'])} with features drawn at random)"
                for name, part in summary["networks"].items()
            ).capitalize()
            + "."
        ),
        lead=_picture(config, plan, run, found),
        terms=terms(
            "feature", "unit", "robust network", "L2", "interval",
            enhanced="the image is changed, within an L2 distance, until the units react more",
        ),
        findings=[
            f"{name.capitalize()} network: enhancing the top {config.features} features turns "
            f"{100 * part['turned']['top'].mean:.0f} % of {part['wrong']} wrong predictions "
            f"into the label (as many at random: {100 * part['turned']['random'].mean:.0f} %), "
            f"by a change of {format_number(part['distance']['top'])} in L2."
            for name, part in summary["networks"].items()
        ],
        introduction=(
            f"Features are units of the layer {config.layer!r}. Enhanced are those that speak most "
            f"for the label against the prediction, within an L2 distance of {config.eps:g}. "
            + data_words(plan.dataset)
        ),
        sections=[
            Section("How often", [
                Table(
                    caption="Wrong predictions turned into the label; the distance of those that "
                    "were, beside that of the nearest image of the label by any change",
                    columns=["network, features", "turned", "L2 distance", "nearest of all",
                             "features that were off"],
                    rows=rows,
                )
            ]),
        ],
        recipe={
            **{f"{name} network": network_words(getattr(config, name), plan.networks[name])
               for name in PAIR},
            "data": data_words(plan.dataset).removeprefix("Data: "),
            "layer": config.layer,
            "eps": config.eps,
            "steps": config.steps,
            "seed": config.seed,
        },
        claims=summary["claims"],
        command=config.command("experiments.counterfactual"),
        record=run.record(),
        cost=run.cost(),
    )  # fmt: skip


def _picture(config: Config, plan: Plan, run: RunDirectory, found: dict[str, Found]) -> Picture:
    """The rows of one network above those of the other; as many turned as there are of all."""
    order = {
        name: data.draw_rows(part.turned["top"], config.shown, seed=config.seed)
        for name, part in found.items()
    }
    before = np.concatenate([plan.images[plan.wrong[name][order[name]]] for name in found])
    after = np.concatenate([part.changed["top"][order[name]] for name, part in found.items()])
    factor = figures.magnification(after - before)
    columns: dict[str, list[Any]] = {
        "after": list(after),
        f"change × {factor}": list(np.clip(0.5 + factor * (after - before), 0, 1)),
    }
    for rank in range(min(config.features, 2)):
        best = [
            plan.images[representations.extremes(part.values[:, unit], 2)[0]]
            for name, part in found.items() for unit in part.units["top"][order[name], rank]
        ]  # fmt: skip
        for example in range(2):
            columns[f"feature {rank + 1}, {'ab'[example]}"] = [pair[example] for pair in best]
    labels = [
        label for name, part in found.items() for label in _labels(plan, name, part, order[name])
    ]
    grid = figures.map_grid(
        list(before), columns, display="as_is", labels=labels, first="before"
    )
    turned = " and ".join(
        f"{int(part.turned['top'][order[name]].sum())} of the {len(order[name])} of the {name} "
        "network"
        for name, part in found.items()
    )
    return Picture(
        path=figures.save(grid, run.figure("enhanced")),
        alt="Wrongly predicted images of both networks before and after enhancing two features",
        caption="On the left the network, the label, what was said of the image, and the units "
        f"enhanced. Those that were turned come first: {turned} are predicted as the label after. "
        "On the right, the two test images that activate each feature most.",
    )


def _labels(plan: Plan, name: str, part: Found, order: np.ndarray) -> list[str]:
    names = plan.dataset.class_names
    return [
        f"{name}\n{names[plan.labels[place]]}, said\n{names[said]}; units\n"
        + ", ".join(str(unit) for unit in part.units["top"][row, :2])
        for row, place, said in zip(order, plan.wrong[name][order], part.predicted[order],
                                    strict=True)
    ]  # fmt: skip


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="counterfactual")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
