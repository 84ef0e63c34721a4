"""The package's samples as a data set, and the commands that take it by default."""

import numpy as np
import pytest

from advfeat import data
from advfeat.runs.config import parse
from experiments.counterfactual import plan as counterfactual_plan
from experiments.representations import plan as representations_plan
from experiments.saliency import plan as saliency_plan
from experiments.shared import two_networks
from experiments.synthesis import plan as synthesis_plan


def test_the_samples_are_divided_without_overlap():
    found, everything = data.load("samples:cifar10"), data.samples("cifar10")
    assert found.class_names == everything.class_names
    assert sorted([*found.train.id, *found.test.id]) == list(range(100))
    for split, each in ((found.train, 3), (found.test, 7)):
        np.testing.assert_array_equal(split.image, everything.image[split.id])
        np.testing.assert_array_equal(split.label, everything.label[split.id])
        assert np.bincount(split.label).tolist() == [each] * 10


def test_some_of_its_classes():
    found = data.load("samples:cifar10", classes=("dog", "cat"))
    everything = data.samples("cifar10")
    names = [everything.class_names[label] for label in everything.label[found.test.id]]
    assert [found.class_names[label] for label in found.test.label] == names


@pytest.mark.parametrize("name", ["samples:", "samples:mnist", "samples:CIFAR10"])
def test_unknown_samples_are_named_with_those_there_are(name):
    with pytest.raises(data.DataError, match=f"unknown data set '{name}'.*samples:cifar10"):
        data.load(name)


def test_damaged_samples_are_refused(monkeypatch):
    monkeypatch.setitem(data.samples.__globals__, "_SHA256", {"cifar10": "0" * 64})
    with pytest.raises(data.DataError, match="samples of cifar10 are damaged"):
        data.load("samples:cifar10")


@pytest.mark.slow_for("experiments.synthesis")
@pytest.mark.parametrize(
    "experiment", [saliency_plan, representations_plan, synthesis_plan, counterfactual_plan]
)
def test_the_picture_experiments_need_no_data_prepared_first(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    plan = experiment.prepare(parse(experiment.Config, [f"--workdir={tmp_path / 'w'}"]))
    assert plan.dataset.name == "samples:cifar10"
    assert 35 <= len(plan.images) <= 70 or experiment is saliency_plan
    assert not (tmp_path / "w").exists()
    if hasattr(plan, "judges"):
        assert list(plan.judges) == ["cifar10_cnn_standard", "cifar10_cnn_l2_robust"]
    if experiment is counterfactual_plan:
        assert all(len(places) >= 5 for places in plan.wrong.values())
    if experiment is synthesis_plan:
        assert {image.tobytes() for image in plan.images}.isdisjoint(
            image.tobytes() for image in plan.others
        )


def test_reports_say_which_images_they_speak_of():
    few, digits = data.load("samples:cifar10"), data.load("digits")
    assert two_networks.data_words(few) == (
        "Data: samples:cifar10, the 70 test images that come with the package."
    )
    assert "for seeds and holes, 30 others in place of training images" in two_networks.data_words(
        few, "seeds", "holes"
    )
    assert two_networks.data_words(digits, "seeds") == (
        "Data: digits, 445 test images and, for seeds, training images."
    )
