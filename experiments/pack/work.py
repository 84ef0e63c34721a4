"""Runs `experiments.pack`: writes a trained network and its card to the zoo."""

from __future__ import annotations

import dataclasses
import importlib.resources
import pathlib
from typing import Any

import advfeat
from advfeat import data, stats, zoo
from advfeat.runs.checkpoints import load_network
from advfeat.runs.config import UsageError
from advfeat.runs.files import read_json

from ..shared.flags import train
from ..shared.images import load_in_memory
from .flags import Config

LOST = 0.002  # maximum loss of accuracy by half precision


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: is the run finished? ({error})") from None


def _command(name: str, flags: dict[str, Any]) -> str:
    """Returns the run's command line, with a directory named like the network."""
    fields = {field.name for field in dataclasses.fields(train.Config)}
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in flags.items()
        if key in fields and key != "data_dir"
    }
    config = train.Config(workdir=f"runs/{name}", **given)
    return config.command("experiments.train")


def _numbers(config: Config, summary: dict[str, Any]) -> dict[str, Any]:
    keep = ["clean_accuracy", "norm", "eps", "robust_accuracy", "accuracy_by_eps", "evaluation"]
    numbers = {key: summary[key] for key in keep}
    if config.evaluation is not None:
        suite = _read(pathlib.Path(config.evaluation) / "summary.json")
        keep = ["suite", "norm", "eps", "num_examples", "clean_accuracy", "robust_accuracy"]
        keep += ["trusted"]
        numbers["suite"] = {key: suite[key] for key in keep}
    return numbers


def run(config: Config) -> dict[str, Any]:
    """Writes the network and its card, and returns the card."""
    try:
        config.validate()
        folder = pathlib.Path(config.run)
        record, summary = _read(folder / "run.json"), _read(folder / "summary.json")
        network = load_network(config.run)
        flags = record["flags"]
        classes = tuple(flags["classes"]) if flags["classes"] else None
        test = load_in_memory(flags["dataset"], classes=classes, data_dir=config.data_dir).test
        images, labels = data.unit(test.image), test.label
        before, after = (
            advfeat.correct(each.model_fn(), images, labels)
            for each in (network, zoo.halved(network))
        )
        if before.mean() - after.mean() > LOST:
            raise UsageError(
                f"half precision costs accuracy: {after.mean():.4f} after {before.mean():.4f}"
            )
        about = {
            "command": _command(config.name, flags),
            "dataset": flags["dataset"],
            "training": network.record,
            "numbers": {**_numbers(config, summary), "packed_accuracy": stats.rate(after)},
            "versions": record["versions"],
        }
        where = config.folder or str(importlib.resources.files(zoo))
        size = zoo.pack(where, config.name, network, about)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    print(f"{config.name}: {size / 1e6:.2f} MB, accuracy {100 * after.mean():.2f} % in {where}")
    return about
