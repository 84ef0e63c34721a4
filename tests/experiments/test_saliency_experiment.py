"""`experiments.saliency`: the smallest run, resumed, refused, and a truth that is known."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_networks
from estimates import assert_claims, revived
from scipy import integrate

from advfeat import (
    attack_dataset,
    correct,
    cross_entropy,
    data,
    models,
    saliency,
    stats,
    training,
)
from advfeat.data import planted_images
from advfeat.features.planted import pointing
from advfeat.runs import runner
from experiments.saliency import (
    flags as saliency_flags,
    plan as saliency_plan,
    report as saliency_report,
    summary as saliency_summary,
    work as saliency_work,
)
from experiments.shared.flags import maps
from experiments.shared.networks import spec_for

KEY = jax.random.key(0)
FEW = ("gradient", "smoothgrad", "grad_cam", "occlusion")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return small_networks.pair(tmp_path_factory, data.load("digits"))


def config(path, given, **options):
    networks = {name: given[name] for name in ("standard", "robust")}
    common = {
        "workdir": str(path),
        "dataset": "digits",
        "dry_run": True,
        "others": (given["other"],),
    }
    return saliency_flags.Config(**{**common, **networks, **options})


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, saliency_work.run(config(path, given, methods=FEW))


@pytest.mark.slow
def test_every_method_of_both_networks_is_measured(finished):
    path, summary = finished
    assert json.loads((path / "summary.json").read_text()) == summary
    (other,) = set(summary["networks"]) - {"standard", "robust"}
    assert other.endswith("other")
    for part in summary["networks"].values():
        assert set(part["methods"]) == {*FEW, saliency.EDGES}
        for name, values in part["methods"].items():
            assert -1 <= values["like_gradient"]["mean"] <= 1
            gone, come = (values["curves"][way] for way in ("deletion", "insertion"))
            # Both have the image at one end, and their mean area is that of their means.
            assert gone[0]["mean"] == pytest.approx(come[-1]["mean"], abs=1e-5)
            for way, curve in (("deletion", gone), ("insertion", come)):
                means = [point["mean"] for point in curve]
                area = integrate.trapezoid(means, dx=1 / (len(means) - 1))
                assert values[way]["mean"] == pytest.approx(area, abs=1e-5), name
        assert part["alignment_length"]["mean"] > 0
        assert part["methods"]["gradient"]["like_gradient"]["mean"] == pytest.approx(1)
        assert part["methods"]["edges"]["like_edges"]["mean"] == pytest.approx(1)
    for name in ("standard", "robust"):
        part = summary["networks"][name]
        for how in ("cascading", "independent"):
            test = part["randomised"][how]
            assert test["modules"] == ["classifier", "dense", "conv3", "conv2", "conv1"]
            for measure in ("rank_correlation", "ssim"):
                for values in test[measure].values():
                    assert len(values) == len(test["modules"])
                    assert all(-1 <= value["mean"] <= 1 for value in values)
        assert part["methods"]["smoothgrad"]["infidelity"]["mean"] >= 0
        assert "infidelity" not in part["methods"]["grad_cam"]
        moved = [m["sensitivity"]["mean"] for m in part["methods"].values() if "sensitivity" in m]
        assert len(moved) == 2  # what a dry run checks
        assert min(moved) >= 0
    assert len(summary["between"]["gradient"]) == 3
    assert len(summary["claims"]) == 1
    assert_claims(summary["claims"])
    for name in ("standard", "robust"):
        with np.load(path / "maps" / f"{name}.npz") as maps:
            assert maps["gradient"].shape == (8, 8, 8, 1)
            assert maps["grad_cam"].shape == (8, 8, 8)


def test_means_of_what_has_no_value():
    assert saliency_summary._mean(np.array([np.nan, np.inf])) is None
    assert saliency_summary._mean(np.array([np.nan, *range(10)])) == stats.mean(np.arange(10))


def test_the_method_that_loses_the_class_soonest_pays_for_having_been_picked():
    rng = np.random.default_rng(0)
    areas = {name: stats.mean(rng.random(25), limits=stats.SHARE) for name in (*FEW, "edges")}
    methods = {name: {"deletion": area} for name, area in areas.items()}
    best = min(FEW, key=lambda name: areas[name].mean)
    low, high = areas[best].at(1 - 0.05 / len(FEW))
    line = saliency_report._soonest("standard", methods)
    assert f"{saliency.title_of(best)} ranks the pixels" in line
    assert f"[{low:.2f}, {high:.2f}]" in line.replace("\u00a0", " ")
    assert f"least of {len(FEW)} methods" in line


@pytest.mark.slow
def test_all_methods(given, tmp_path):
    summary = saliency_work.run(config(tmp_path / "run", given))
    assert set(summary["networks"]["robust"]["methods"]) == {*maps.USUAL, "edges"}


@pytest.mark.slow
def test_report_and_figures_are_there(finished):
    path, _ = finished
    page = (path / "report.html").read_text()
    assert "cascading test" in page
    drawn = {figure.stem for figure in (path / "figures").glob("*.png")}
    tests = {
        f"{how}_{measure}"
        for how in ("cascading", "independent")
        for measure in ("rank_correlation", "ssim")
    }
    for name in ("standard", "robust"):
        assert {f"{kind}_{name}" for kind in ("deletion", "insertion", *tests)} <= drawn
    assert {"maps", "maps_networks", "cascade_standard_robust"} <= drawn
    assert len(drawn) == 15


@pytest.mark.slow
def test_the_same_command_on_a_finished_run_says_so(finished, given, capsys):
    path, summary = finished
    assert saliency_work.run(config(path, given, methods=FEW)) == summary
    assert "finished" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "blok1"}, "--layer=blok1: must be one of block1, block2, block3"),
        ({"methods": ("grad_cam",)}, "--methods: must hold gradient"),
        ({"methods": ("gradient", "gradient")}, "names one twice"),
        ({"samples": 1}, "--samples=1: vargrad needs at least 2"),
        ({"standard": "nowhere"}, "nowhere"),
        ({"dataset": "planted"}, "takes images of"),
        ({"robust": "perceptron"}, "has no layer with positions"),
        ({"robust": "zoo:unicorn"}, "unicorn"),
        ({"others": ("zoo:digits_standard", "zoo:digits_standard")}, "already"),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(given, tmp_path, options, words, capsys):
    options = {
        name: given.get(value, value) if isinstance(value, str) else value
        for name, value in options.items()
    }
    with pytest.raises(ValueError, match=words):
        saliency_work.run(config(tmp_path / "run", given, **options))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_own_data_have_no_further_networks_unless_they_are_given(given, tmp_path):
    own = dataclasses.replace(config(tmp_path / "run", given), others=None)
    assert set(saliency_plan.prepare(own).networks) == {"standard", "robust"}


def test_negative_sigma_and_no_samples_are_refused(tmp_path, capsys):
    for flag in ("--sigma=-1", "--samples=0", "--methods=gradient,limes"):
        with pytest.raises(SystemExit) as end:
            runner.main(
                saliency_work.run,
                saliency_flags.Config,
                None,
                [f"--workdir={tmp_path / 'run'}", flag],
            )
        assert end.value.code == 2
        assert flag.split("=")[0] in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("feature", ["shape", "mark"])
def test_maps_point_at_the_feature_that_the_network_provably_uses(feature):
    """Only one feature tells the class, so a network that is right has used it."""
    name = f"planted:{feature}"
    world = data.load(name)
    model = spec_for(world, "cnn", width=8).build()
    variables = models.init(KEY, model, (32, 32, 3))
    config = training.TrainConfig(epochs=6, batch_size=64, learning_rate=0.02)
    loss_fn = training.standard(model, cross_entropy)
    state = training.fit(
        KEY, loss_fn, variables, world.train.image, world.train.label, config, num_classes=4
    )
    fn = models.model_fn(model, {"params": state.params})
    some = data.subset(world.test, 100, seed=0)
    test, labels = data.unit(some.image), some.label
    assert correct(fn, test, labels).mean() > 0.95, "not trained: nothing to point at"
    masks = planted_images.drawn(planted_images.world(name), some.id)
    region = getattr(masks, feature)
    other = getattr(masks, "mark" if feature == "shape" else "shape")
    method = saliency.smoothgrad(samples=20, sigma=0.05, how="squared")
    maps = np.abs(attack_dataset(KEY, method, fn, test, labels, batch_size=50)).sum(-1)
    found = [np.asarray(jax.vmap(pointing)(maps, where)) for where in (region, other)]
    assert found[0].mean() > found[1].mean() + 0.15
    assert found[0].mean() > 0.7


@pytest.mark.slow
def test_lime_is_a_method_too(given, tmp_path):
    summary = saliency_work.run(
        config(tmp_path, given, methods=("gradient", "lime"), others=("none",))
    )
    assert set(summary["networks"]) == {"standard", "robust"}
    assert "lime" in summary["networks"]["robust"]["methods"]
    assert "lime" not in summary["networks"]["robust"]["randomised"]["cascading"]["ssim"]


def test_numpy_predict_is_the_softmax_and_tolerates_rounding():
    from advfeat import numpy_predict

    predict_fn = numpy_predict(lambda x: x.ravel() * 3, batch_size=4)
    images = np.random.default_rng(0).random((7, 1, 3, 1))
    logits = 3 * images.reshape(7, 3)
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(predict_fn(images), wanted, rtol=1e-5)
    over = images.copy()
    over[0, 0, 0, 0] = 1 + 1e-9
    assert np.isfinite(predict_fn(over)).all()
    with pytest.raises(ValueError, match="images must"):
        predict_fn(255 * images)


def test_the_default_is_cifar10_in_colour():
    config = saliency_flags.Config(workdir="runs/a")
    assert config.dataset == "samples:cifar10"
    assert config.standard == "zoo:cifar10_standard"


@pytest.mark.slow
def test_one_image_has_no_interval_and_a_report(given, tmp_path):
    options = {"methods": ("gradient",), "dry_run": False, "eval_examples": 1, "sanity_images": 1}
    summary = saliency_work.run(config(tmp_path / "run", given, shown=1, **options))
    assert summary["networks"]["robust"]["alignment"]["low"] is None
    assert summary["claims"][0]["verdict"] == "not decidable at this size"
    assert "all weights randomised" not in " ".join(saliency_report.findings(revived(summary)))
    assert (tmp_path / "run" / "report.html").exists()
