"""On a set whose examples come class by class every experiment takes what it takes of a shuffled
one: as many of each class; and what it then measures agrees within its interval."""

import dataclasses
import importlib
import json
import pathlib

import numpy as np
import pytest

from advfeat import data
from experiments.evaluate import flags as evaluate_flags, work as evaluate_work
from experiments.shared.sweeps import Points

ORDERS = ("sorted", "shuffled")
PAIR = {"standard": "zoo:digits_standard", "robust": "zoo:digits_l2_robust"}
NETWORK = {"checkpoint": "zoo:digits_l2_robust", "norm": "l2", "eps": 0.5}
FLAGS = {
    "counterfactual": PAIR | {"eval_examples": 4},
    "defences": {"eval_examples": 77},
    "evaluate": NETWORK | {"eval_examples": 123},
    "mislabeled": {"train_examples": 300},
    "representations": PAIR | {"judges": ("none",), "eval_examples": 33, "searched": 200},
    "roar": {"train_examples": 300, "eval_examples": 50, "methods": ("gradient",)},
    "saliency": PAIR | {"others": ("none",), "methods": ("gradient",)},
    "sample_complexity": {"train_examples": 300, "eval_examples": 50},
    "sanity": {"methods": ("gradient",)},
    "synthesis": PAIR | {"judges": ("none",), "eval_examples": 44},
    "tradeoff": {"train_examples": 300, "eval_examples": 50},
    "train": {"train_examples": 300},
    "transfer_learning": {"target_examples": 40, "eval_examples": 50},
}
ROWS = ("few", "inverted", "measured", "shown")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The digits twice, as files: class by class, and shuffled."""
    digits = data.load("digits")
    found = {}
    for order in ORDERS:
        arrays = {}
        for prefix, part in (("", digits.train), ("test_", digits.test)):
            rows = np.argsort(part.label, kind="stable")
            if order == "shuffled":
                rows = np.random.default_rng(0).permutation(len(part))
            arrays |= {f"{prefix}image": part.image[rows], f"{prefix}label": part.label[rows]}
        found[order] = tmp_path_factory.mktemp("sets") / f"{order}.npz"
        np.savez(found[order], **arrays)
        names = {"class_names": list(digits.class_names)}
        found[order].with_suffix(".json").write_text(json.dumps(names))
    return found


def prepared(name, dataset, **options):
    """A plan with its config."""
    module = importlib.import_module(f"experiments.{name}.plan")
    given = FLAGS[name] | options | {"dataset": str(dataset)}
    if name == "transfer_learning":
        given["target"] = given["dataset"]
    config = module.Config(workdir="unused", **given)
    return config, module.prepare(config)


def class_counts(value, path="plan"):
    """Every array of labels that a plan holds, and rows of its images: where -> class counts."""
    if isinstance(value, (data.Split, Points)):
        return {path: np.bincount(value.label, minlength=10).tolist()}
    found = {}
    if isinstance(value, (tuple, list)):
        pair = len(value) == 2 and isinstance(value[1], np.ndarray) and value[1].ndim == 1
        if pair and isinstance(value[0], np.ndarray) and value[0].ndim == 4:
            return {path: np.bincount(value[1], minlength=10).tolist()}
        for place, each in enumerate(value):
            found |= class_counts(each, f"{path}[{place}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, (type, data.Dataset)):
        for field in dataclasses.fields(value):
            each, where = getattr(value, field.name), f"{path}.{field.name}"
            if field.name in ("label", "labels"):
                found[where] = np.bincount(each, minlength=10).tolist()
            elif field.name in ROWS and isinstance(each, np.ndarray):
                found[where] = np.bincount(value.labels[each], minlength=10).tolist()
            else:
                found |= class_counts(each, where)
    return found


@pytest.mark.slow_for("synthesis")
@pytest.mark.parametrize("name", FLAGS)
def test_every_experiment_takes_as_many_of_each_class_in_any_order(sets, name):
    counts = {order: class_counts(prepared(name, sets[order])[1]) for order in ORDERS}
    assert counts["sorted"] == counts["shuffled"]
    assert counts["sorted"]
    if name in ("counterfactual", "transfer_learning"):
        return  # wrong predictions, and half of the classes: as they come
    for where, found in counts["sorted"].items():
        # 44 to 46 test images of a class, 133 to 138 training images.
        assert max(found) - min(found) <= max(2, 0.06 * max(found)), where


def test_wrong_predictions_are_drawn_of_all_classes(sets):
    found = []
    for order in ORDERS:
        _, plan = prepared("counterfactual", sets[order])
        found.append(
            [np.bincount(plan.labels[rows], minlength=10).tolist() for rows in plan.wrong.values()]
        )
    assert found[0] == found[1]
    assert all(sum(part) == 4 and max(part) < 4 for part in found[0])


def test_no_experiment_is_left_out():
    root = pathlib.Path(evaluate_flags.__file__).parents[1]
    there = {path.parent.name for path in root.glob("*/__main__.py")}
    # Drawn images have no files, times are not those of images, and the others measure nothing.
    assert there - set(FLAGS) <= {"ground_truth", "benchmark", "prepare_data", "pack"}


def test_0_is_all_in_every_command():
    seen = 0
    for name in FLAGS:
        module = importlib.import_module(f"experiments.{name}.plan")
        for field in dataclasses.fields(module.Config):
            about = field.metadata
            if about["kind"] == "natural" and field.name.endswith("examples"):
                assert "0: all" in about["help"], (name, field.name)
                seen += 1
    assert seen > 10


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_the_robust_estimate_of_a_sorted_set_is_that_of_a_shuffled_one(sets, tmp_path, attack):
    found = {}
    for order in (*ORDERS, "all"):
        path = sets["sorted" if order == "all" else order]
        found[order] = evaluate_work.run(
            evaluate_flags.Config(
                workdir=str(tmp_path / order),
                dataset=str(path),
                attack=(attack,),
                eval_examples=0 if order == "all" else 150,
                sweep_examples=0 if order == "all" else 60,
                checks=False,
                **NETWORK,
            )
        )

    def within(one, other):
        return one["low"] <= other["mean"] <= one["high"]

    whole = found["all"]
    for order in ORDERS:
        assert within(found[order]["robust_accuracy"], whole["robust_accuracy"]), order
        for here, there in zip(
            found[order]["curves"]["accuracy_by_eps"],
            whole["curves"]["accuracy_by_eps"],
            strict=True,
        ):
            assert within(here["accuracy"], there["accuracy"]), (order, here["eps"])
