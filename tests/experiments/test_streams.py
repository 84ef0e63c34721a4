"""`--stream`: training and evaluation of sets that stay on disk."""

import json

import jax
import numpy as np
import pytest
from imagenet_like import WANTED, picture, pictures, small_cifar, tiny, written

from advfeat.runs import journal as evaluate_journal, pieces, runner
from advfeat.runs.cache import VARIABLE as CACHE_VARIABLE
from advfeat.runs.checkpoints import load_network
from advfeat.runs.config import UsageError
from experiments.evaluate import (
    flags as evaluate_flags,
    plan as evaluate_plan,
    work as evaluate_work,
)
from experiments.shared import progress
from experiments.train import flags as train_flags, plan as train_plan, work as train_work

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("grain")

SET = {"dataset": "restricted_imagenet", "stream": True}
SMALL = {
    "image_size": 12,
    "model": "mlp",
    "width": 8,
    "batch_size": 16,
    "objective": "adversarial",
    "eps": 0.3,
    "attack_steps": 1,
    "eval_steps": 1,
    "eval_examples": 20,
    "eps_grid": (0.0,),
    "epochs": 3,
    "select": "best",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    small_cifar(path)
    return tiny(path, each=4)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("labels")))
        yield


def training(path, folder, **options):
    return train_flags.Config(workdir=str(path), data_dir=folder, **{**SET, **SMALL, **options})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, folder):
    path = tmp_path_factory.mktemp("train") / "run"
    return path, train_work.run(training(path, folder))


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the run catches it."""


def files(path):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load_network(str(path)).variables)]


def told(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


# --- Training. ------------------------------------------------------------------------------------


def test_a_stream_is_trained_on_and_measured(unbroken):
    path, summary = unbroken
    assert summary["clean_accuracy"]["n"] == 2 * len(WANTED)  # the whole test split
    assert summary["robust_accuracy"]["n"] == 20
    assert summary["training"]["reading"].startswith("random crops, resized to 12 x 12")
    assert summary["training"]["selection"]["examples"] == 9  # a tenth, of every class
    assert len(summary["classes"]) == 9
    report = (path / "report.html").read_text()
    assert "63 training, 9 held-out, 36 test images of 9 classes" in report
    assert load_network(str(path)).spec.mean == (0.4717, 0.4499, 0.3837)


@pytest.mark.slow_for("8")
@pytest.mark.parametrize("chunks", [3, 8])
def test_a_killed_training_ends_bit_for_bit_as_an_unbroken_one(
    unbroken, folder, tmp_path, monkeypatch, chunks
):
    path, wanted = unbroken
    monkeypatch.setattr(progress, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr("advfeat.training.loop.CHUNK", 1)  # of four steps an epoch
    real, seen = progress.Progress.chunk, []

    def dying(self, state, metrics):
        real(self, state, metrics)
        seen.append(int(state.step))
        if len(seen) == chunks:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "chunk", dying)
        with pytest.raises(Killed):
            train_work.run(training(tmp_path / "broken", folder))
    begun = []
    monkeypatch.setattr(
        progress.Progress, "chunk", lambda self, state, metrics: begun.append(int(state.step))
    )
    summary = train_work.run(training(tmp_path / "broken", folder))
    assert begun[0] > 1  # it went on, it did not begin again
    for here, there in zip(files(tmp_path / "broken"), files(path), strict=True):
        np.testing.assert_array_equal(here, there)
    assert told(tmp_path / "broken") == told(path)
    for name in ("clean_accuracy", "accuracy_by_eps", "training"):
        assert summary[name] == wanted[name]


def test_presets_of_large_images(folder, tmp_path):
    plan = train_plan.prepare(
        train_flags.Config(
            workdir=str(tmp_path), data_dir=folder, **SET, objective="adversarial", batch_size=8
        )
    )
    spec, config = plan.recipe.spec, plan.recipe.config
    assert (spec.model, spec.width, spec.options) == ("resnet50", 64, {"stem": "imagenet"})
    assert spec.input_shape == plan.train.input_shape == (224, 224, 3)
    assert (plan.eps, plan.recipe.threat.norm.name, config.weight_decay) == (3.0, "l2", 1e-4)
    assert (config.epochs, config.learning_rate, config.augment) == (150, 0.1, "none")
    assert plan.recipe.record()["reading"].startswith("random crops, resized to 224 x 224")
    linf = train_flags.Config(
        workdir=str(tmp_path), data_dir=folder, **SET, norm="linf", eps=4 / 255, model="cnn"
    )
    assert train_plan.prepare(linf).recipe.spec.options == {}  # a stem is a residual network's


def test_small_images_of_one_size_are_not_cropped_unless_told(folder, tmp_path):
    common = {"workdir": str(tmp_path), "data_dir": folder, "dataset": "cifar10", "stream": True}

    def plan(**options):
        return train_plan.prepare(train_flags.Config(model="mlp", **common, **options))

    usual = plan()
    assert usual.recipe.spec.input_shape == (32, 32, 3)
    assert usual.recipe.record()["reading"].startswith("32 x 32, cropped at the centre where")
    assert plan(augment="shift2").recipe.config.augment == "shift2"
    assert "random" in plan(augment="resized_crop").recipe.record()["reading"]
    few = plan(train_examples=25, classes=("3", "5"))
    assert few.train.num_examples + len(few.held_out) == 8  # all that there are of both
    assert plan(train_examples=25).train.num_examples < 25


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("train", [], "flag --dataset=digits: is read into memory, and --stream takes"),
        ("evaluate", [], "flag --dataset=digits: is read into memory"),
        ("train", ["--dataset=planted:dots"], "--dataset=planted:dots: is read into memory"),
        ("train", ["--dataset=./x.npz"], "--dataset=./x.npz: is read into memory"),
        ("train", ["--dataset=samples:cifar10"], "is read into memory"),
        ("train", ["--dataset=imagenet2012", "--data_dir=/nowhere"], "is not prepared in"),
        ("train", ["--dataset=cifar10", "--data_dir={}", "--classes=3,cow"], "no class 'cow'"),
        ("train", ["--nostream", "--image_size=64"], "flag --image_size=64: needs --stream"),
        ("train", ["--nostream", "--augment=resized_crop"], "--augment=resized_crop: needs"),
        ("train", ["--nostream", "--dataset=restricted_imagenet"], "experiments.train --stream"),
        ("evaluate", ["--nostream", "--dataset=restricted_imagenet"], "experiments.evaluate"),
        (
            "train",
            ["--nostream", "--dataset=cifar10", "--data_dir=/nowhere"],
            "python -m experiments.prepare_data --archive_dir=ARCHIVES --dataset=cifar10",
        ),
    ],
)
def test_refused_in_one_line_before_any_work(
    command, flags, message, unbroken, folder, tmp_path, capsys
):
    arguments = ["--stream", f"--workdir={tmp_path / 'w'}", *(f.format(folder) for f in flags)]
    run, config = train_work.run, train_flags.Config
    if command == "evaluate":
        run, config = evaluate_work.run, evaluate_flags.Config
        arguments += [f"--checkpoint={unbroken[0]}", "--eps=0.1", "--norm=linf"]
    with pytest.raises(SystemExit) as end:
        runner.main(run, config, None, arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_a_damaged_image_ends_the_run_in_one_line(tmp_path, capsys):
    train = [
        (label, b"no image" if place == 5 else picture(label, place))
        for place, label in enumerate(WANTED * 2)
    ]
    test = [(-1, picture(0, 0))]
    written(tmp_path, train=train, validation=pictures(WANTED), test=test)
    flags = ["--stream", "--dataset=restricted_imagenet", f"--data_dir={tmp_path}"]
    flags += ["--model=linear", "--image_size=8", "--epochs=1", "--batch_size=8"]
    with pytest.raises(SystemExit) as end:
        runner.main(train_work.run, train_flags.Config, None, [f"--workdir={tmp_path}/w", *flags])
    assert end.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "imagenet2012: record" in last
    assert "not a readable image" in last
    assert "rerun the command to resume" in last


# --- Evaluation. ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory, folder):
    path = tmp_path_factory.mktemp("network") / "run"
    flags = {"dataset": "cifar10", "stream": True, "data_dir": folder, "model": "linear"}
    flags |= {"epochs": 12, "batch_size": 8, "eval_examples": 10, "eval_steps": 1}
    train_work.run(train_flags.Config(workdir=str(path), eps_grid=(0.0,), **flags))
    return str(path)


def evaluation(path, folder, network, **options):
    usual = {"norm": "l2", "eps": 1.0, "eval_examples": 24, "attack": ("fgsm", "pgd")}
    usual |= {"dataset": "cifar10", "stream": True, "checks": False, "curves": False}
    usual |= {"attack_batch_size": 8, "data_dir": folder, "checkpoint": network}
    return evaluate_flags.Config(workdir=str(path), **{**usual, **options})


def outcome(summary):
    """What does not depend on where the images were, or on the clock."""
    names = ("clean_accuracy", "robust_accuracy", "num_examples", "warnings")
    attacks = {
        name: {key: value for key, value in part.items() if key != "seconds"}
        for name, part in summary["attacks"].items()
    }
    return {**{name: summary[name] for name in names}, "attacks": attacks}


def by_id(path):
    with np.load(path) as saved:
        order = np.argsort(saved["id"])
        names = ("id", "label", "clean", "robust", "fooled_by", "distance")
        return {name: saved[name][order] for name in names}


def equal(one, two):
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory, folder, network):
    path = tmp_path_factory.mktemp("evaluate") / "run"
    return path, evaluate_work.run(evaluation(path, folder, network, stream=False))


def test_a_streams_sample_is_evaluated_as_in_memory(in_memory, folder, network, tmp_path):
    path, wanted = in_memory
    assert 0 < wanted["robust_accuracy"]["mean"] < wanted["clean_accuracy"]["mean"]
    found = evaluate_work.run(evaluation(tmp_path / "w", folder, network))
    assert outcome(found) == outcome(wanted)
    equal(by_id(path / "adversarial.npz"), by_id(tmp_path / "w" / "adversarial.npz"))


@pytest.mark.slow
def test_so_is_one_in_pieces_also_after_a_kill(in_memory, folder, network, tmp_path, monkeypatch):
    path, wanted = in_memory
    monkeypatch.setattr(pieces, "PIECE", 10)  # three of eight
    monkeypatch.setattr(evaluate_journal, "SAVE_SECONDS", -1.0)
    config, run = evaluation(tmp_path / "w", folder, network), tmp_path / "w"
    real, seen = pieces.Journal.attack, []

    def dying(self, name, count):
        seen.append(name)
        if len(seen) == 4:  # the second attack on the second piece
            raise Killed
        real(self, name, count)

    with monkeypatch.context() as patch:
        patch.setattr(pieces.Journal, "attack", dying)
        patch.setattr(pieces.Journal, "__exit__", lambda *_: None)
        with pytest.raises(Killed):
            evaluate_work.run(config)
    assert [file.name for file in (run / "pieces").iterdir()] == ["parts", "00002"]
    found = evaluate_work.run(config)
    assert not (run / "pieces" / "00002").exists()
    same = ("clean_accuracy", "robust_accuracy", "num_examples", "attacks")
    assert {k: outcome(found)[k] for k in same} == {k: outcome(wanted)[k] for k in same}
    equal(by_id(path / "adversarial.npz"), by_id(run / "verdicts.npz"))
    assert (
        "Checks, curves and pictures are of 8 of these images" in (run / "report.html").read_text()
    )


def test_pieces_of_another_network_are_not_gone_on_with(folder, network, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 10)
    config = evaluation(tmp_path / "w", folder, network, attack=("fgsm",))
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_work, "joined", None)
        with pytest.raises(TypeError):
            evaluate_work.run(config)
    for file in (tmp_path / "w" / "parts").iterdir():
        file.unlink()  # the first piece's
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_plan, "checksum", lambda _: "other")
        with pytest.raises(UsageError, match="holds verdicts on another network or other images"):
            evaluate_work.run(config)
