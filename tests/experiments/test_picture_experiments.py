"""Experiments that draw: representations and synthesis, at their smallest, and their parts."""

import itertools
import json

import numpy as np
import pytest
import small_networks

from advfeat import data, stats
from advfeat.features import tasks
from experiments.counterfactual import (
    flags as counterfactual_flags,
    plan as counterfactual_plan,
    work as counterfactual_work,
)
from experiments.representations import (
    flags as representations_flags,
    measures as representations_measures,
    summary as representations_summary,
    work as representations_work,
)
from experiments.shared import two_networks
from experiments.synthesis import (
    flags as synthesis_flags,
    plan as synthesis_plan,
    summary as synthesis_summary,
    tasks as synthesis_tasks,
    work as synthesis_work,
)
from experiments.synthesis.flags import TASKS

DIGITS = data.load("digits")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return small_networks.pair(tmp_path_factory, DIGITS)


def common(path, given, **options):
    networks = {name: given[name] for name in ("standard", "robust")}
    return {"workdir": str(path), "dataset": "digits", "dry_run": True, **networks, **options}


@pytest.fixture(scope="module")
def looked_into(given, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    config = representations_flags.Config(**common(path, given, judges=(given["other"],)))
    return path, representations_work.run(config)


@pytest.mark.slow
def test_representations(looked_into):
    path, summary = looked_into
    assert json.loads((path / "summary.json").read_text()) == summary
    drawn = {figure.stem for figure in (path / "figures").glob("*.png")}
    assert drawn == {
        "units",
        "directions",
        "inversion",
        "interpolation",
        "added",
        "sensitivity",
    }
    assert set(summary["ordered"]) == {"standard", "robust", "pixels"}
    layers = ["block1", "block2", "block3", "representation", "logits"]
    assert list(summary["sensitivity"]["robust"]) == layers
    assert summary["inversion"]["standard"]["from_noise"]["distance"]["mean"] >= 0
    assert len(summary["judges"]) == 1
    for found in summary["inversion"]["robust"].values():
        (metamers,) = found["metamers"].values()
        assert (metamers is None) == (found["arrived"]["mean"] == 0)


def test_metamers_are_compared_where_both_networks_arrive():
    def arrived(distance, other):
        return {
            "inverted": {
                "from_another": {
                    "distance": np.array(distance),
                    "other": {"judge": np.array(other)},
                }
            }
        }

    far, near = 2 * representations_measures.NEAR, representations_measures.NEAR / 2
    numbers = {
        "standard": arrived([near] * 40 + [far, near], [True] * 40 + [False, True]),
        "robust": arrived([near] * 40 + [near, far], [False] * 40 + [True, True]),
    }
    (claim,) = representations_summary.metamer_claims(numbers)
    assert (claim.effect.mean, claim.control.mean) == (1, 0)
    assert claim.effect.n == 40
    assert claim.verdict is None  # it is judged with the report's other claims
    assert [found.verdict for found in stats.judge([claim])] == ["holds"]
    numbers["robust"] = arrived([far] * 42, [False] * 42)
    assert representations_summary.metamer_claims(numbers) == []


def test_pixels_order_noise_by_its_strength():
    images = data.unit(DIGITS.test.image[:10])
    found = representations_measures.rank_agreements(
        representations_measures.as_pixels, images, "noise", seed=0
    )
    assert found.mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "blok"}, "--layer=blok: must be one of block1, block2"),
        ({"units": (40,)}, "--units=40: the layer representation has 32 units"),
        ({"standard": "nowhere"}, "nowhere"),
        ({"shown": 1}, "--shown=1: must be at least 2"),
        ({"inverted": 1}, "--inverted=1: must be at least 2"),
        ({"eval_examples": 1}, "--eval_examples=1: must be at least 2"),
        ({"searched": 2}, "--searched=2: must be at least 3"),
        ({"robust": "a", "judges": ("a",)}, "--judges=a: is one of the two networks"),
    ],
)
def test_bad_input_of_representations(given, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        representations_work.run(
            representations_flags.Config(**common(tmp_path / "run", given, **options))
        )
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def drawn(given, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    config = synthesis_flags.Config(**common(path, given, judges=(given["other"],)))
    return path, synthesis_work.run(config), config


@pytest.mark.slow
def test_synthesis(drawn):
    path, summary, _ = drawn
    assert json.loads((path / "summary.json").read_text()) == summary
    figures = {figure.stem for figure in (path / "figures").glob("*.png")}
    assert figures == {"attacks", *TASKS}
    (judge,) = summary["read"]
    assert set(summary["read"][judge]) == set(TASKS)
    made = {"standard", "robust"}
    assert {task: set(rows) - made for task, rows in summary["restored"].items()} == {
        "inpainting": {"mean of all", "mean of the rest"},
        "superresolution": {"nearest", "bicubic"},
    }
    assert set(summary["spread"]) == {"judge", "standard", "robust", "seeds", "real"}
    assert len(summary["claims"]) == len(TASKS)
    with np.load(path / "drawn" / "inpainting.npz") as found:
        assert found["robust"].shape == (20, 8, 8, 1)


@pytest.mark.slow
def test_no_judges_and_one_task(given, tmp_path):
    config = synthesis_flags.Config(
        **common(tmp_path / "run", given, judges=("none",), tasks=("sketch",))
    )
    summary = synthesis_work.run(config)
    assert summary["read"] == summary["spread"] == summary["restored"] == {}


def test_images_equal_to_their_originals_are_counted_and_have_no_psnr():
    images = np.random.default_rng(0).random((12, 8, 8, 1))
    found = synthesis_summary._against(
        images, np.where(np.arange(12)[:, None, None, None] < 2, images, images + 0.1)
    )
    assert found["equal"] == 2
    assert (found["psnr"].n, found["psnr"].mean) == (10, pytest.approx(20))
    assert found["ssim"].n == 12
    assert synthesis_summary._against(images, images)["psnr"] is None


def made(name, images, labels, **options):
    return synthesis_tasks.plan_tasks((name,), DIGITS, images, labels, strength=1.0, seed=0)[name]


IMAGES, LABELS = data.unit(DIGITS.test.image[:12]), DIGITS.test.label[:12]


@pytest.mark.parametrize("name", TASKS)
def test_no_column_shows_what_another_does(name):
    task = made(name, IMAGES, LABELS)
    columns = {"start": task.starts, **task.controls}
    for one, other in itertools.combinations(columns, 2):
        assert not np.array_equal(columns[one], columns[other]), (one, other)
    assert bool(task.start_is) == (name in synthesis_plan.RESTORED)
    assert task.start_is not in task.controls


def test_seeds_are_of_their_class():
    task = made("generation", IMAGES, LABELS)
    means = np.stack(
        [data.unit(DIGITS.train.image[DIGITS.train.label == k]).mean(0) for k in range(10)]
    )
    near = ((task.starts[:, None] - means[None]) ** 2).sum((2, 3, 4)).argmin(1)
    assert (near == LABELS).mean() > 0.7


@pytest.mark.slow
def test_inpainting_leaves_the_rest_exactly(drawn):
    path, _, _ = drawn
    plan = synthesis_plan.prepare(drawn[2].smallest())
    task = plan.tasks["inpainting"]
    with np.load(path / "drawn" / "inpainting.npz") as found:
        for name in ("standard", "robust"):
            moved = (found[name] != task.originals).any(-1)
            assert not moved[task.masks == 0].any()
            assert (found[name] != task.starts).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": ("sketch", "sketch")}, "names one twice"),
        ({"eps_grid": (0.0, 1.0)}, "--eps_grid=0,1: must be above 0"),
        ({"judges": ("zoo:digits_standard", "zoo:digits_standard")}, "already"),
        ({"eval_examples": 2}, "--eval_examples=2: must be at least 3"),
    ],
)
def test_bad_input_of_synthesis(given, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        synthesis_work.run(synthesis_flags.Config(**common(tmp_path / "run", given, **options)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [(9, 14), (14, 9), (13, 3)])
def test_every_task_begins_with_images_of_the_data_sets_size(size):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    split = data.Split(rng.integers(0, 256, (40, *size, 3)).astype(np.uint8), labels, np.arange(40))
    dataset = data.Dataset(name="own", class_names=("a", "b"), train=split, test=split)
    found = synthesis_tasks.plan_tasks(
        TASKS, dataset, data.unit(split.image[:4]), labels[:4], strength=1.0, seed=0
    )
    assert set(found) == set(TASKS)
    for task in found.values():
        for images in (task.starts, task.originals, *task.controls.values()):
            assert images.shape == (4, *size, 3)
        side = np.sqrt(size[0] * size[1])
        assert task.eps == pytest.approx(tasks.EPS[task.name] * side / 32)


@pytest.mark.slow
def test_a_network_that_nobody_gave_is_asked_for(given, tmp_path):
    options = common(tmp_path / "run", given)
    del options["robust"]
    with pytest.raises(ValueError, match="flag --robust: give a network for --dataset=digits"):
        synthesis_work.run(synthesis_flags.Config(**options))


def test_judges_had_no_part_in_what_they_judge(monkeypatch):
    monkeypatch.setattr(two_networks, "load_fitting", lambda reference, _: reference)

    def judges(**options):
        config = synthesis_flags.Config(workdir="run", **options)
        return tuple(two_networks.load_judges(config, DIGITS).values())

    small = {"standard": "zoo:cifar10_cnn_standard", "robust": "zoo:cifar10_cnn_l2_robust"}
    assert judges() == tuple(small.values())
    assert judges(**small) == ("zoo:cifar10_standard", "zoo:cifar10_l2_robust")
    assert judges(standard=small["standard"]) == ()  # both pairs have a part
    assert judges(dataset="digits") == judges(classes=("cat", "dog")) == judges(judges=("none",))
    assert judges(judges=("zoo:a", "zoo:b")) == ("zoo:a", "zoo:b")


@pytest.mark.slow
def test_counterfactual(given, tmp_path):
    config = counterfactual_flags.Config(**common(tmp_path / "run", given))
    summary = counterfactual_work.run(config)
    assert set(summary["networks"]) == {"standard", "robust"}
    drawn = {figure.stem for figure in (tmp_path / "run" / "figures").glob("*.png")}
    assert drawn == {"enhanced"}
    for part in summary["networks"].values():
        assert part["wrong"] == 6
        assert set(part["turned"]) == {"top", "random"}
    with np.load(tmp_path / "run" / "changed" / "robust.npz") as found:
        assert found["units_top"].shape == (6, 2)
        plan = counterfactual_plan.prepare(config)
        before = plan.images[found["places"]]
        moved = np.abs(found["image_top"] - before).reshape(6, -1).max(1)
        assert (moved > 1e-4).all()  # also where the features were off
        assert np.all(np.diff(found["gains"], axis=1) <= 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "blok"}, "--layer=blok: must be one of"),
        ({"features": 33}, "--features=33: the layer representation has 32 units"),
        ({"eps": 0.0}, "--eps=0: must be above 0"),
    ],
)
def test_bad_input_of_counterfactual(given, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        counterfactual_work.run(
            counterfactual_flags.Config(**common(tmp_path / "run", given, **options))
        )
    assert not (tmp_path / "run").exists()
