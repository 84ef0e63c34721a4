"""Data in memory: digits, TFDS sets, classes, held-out parts, names."""

import builtins
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from advfeat import data
from advfeat.data import classes as classes_lib

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "tfds"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no prepared TFDS data at hand")


def split_of(labels, *, image=None):
    labels = np.asarray(labels)
    image = np.zeros((len(labels), 2, 2, 1), np.uint8) if image is None else image
    return data.Split(image, labels, np.arange(len(labels)))


# digits


def test_digits_parts_are_disjoint_complete_and_stratified():
    digits = data.load("digits")
    ids = np.concatenate([digits.train.id, digits.test.id])
    assert sorted(ids.tolist()) == list(range(1797))
    for label in range(10):
        total = np.sum(digits.train.label == label) + np.sum(digits.test.label == label)
        assert np.sum(digits.test.label == label) == total // 4


def test_digits_ids_are_the_positions_in_scikit_learn():
    from sklearn.datasets import load_digits

    bunch, digits = load_digits(), data.load("digits")
    for split in (digits.train, digits.test):
        np.testing.assert_array_equal(split.image[..., 0] * 16, bunch.images[split.id])
        np.testing.assert_array_equal(split.label, bunch.target[split.id])
    assert digits.train.image.dtype == np.float32
    assert digits.train.image.min() == 0
    assert digits.train.image.max() == 1


def test_statistics_are_those_of_the_training_images():
    digits = data.load("digits")
    np.testing.assert_allclose(digits.mean, digits.train.image.mean(), rtol=1e-5)
    np.testing.assert_allclose(digits.std, digits.train.image.std(), rtol=1e-5)
    image = np.random.default_rng(0).integers(0, 256, (5000, 2, 3, 3), dtype=np.uint8)
    split = split_of(np.arange(5000) % 2, image=image)
    dataset = data.Dataset("x", split, split, ("a", "b"))
    np.testing.assert_allclose(dataset.mean, image.mean((0, 1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(dataset.std, image.std((0, 1, 2)) / 255, rtol=1e-6)


def test_unit_refuses_other_dtypes():
    with pytest.raises(ValueError, match=r"images must be uint8 or float32, got float64"):
        data.unit(np.zeros(3))


# held_out


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_held_out_divides_every_class_alike(labels, fraction, seed):
    split = split_of(labels)
    kept, held = data.held_out(split, fraction=fraction, seed=seed)
    assert sorted([*kept.id.tolist(), *held.id.tolist()]) == list(range(len(labels)))
    for part in (kept, held):
        assert (np.diff(part.id) > 0).all()  # still in the split's order
        np.testing.assert_array_equal(part.label, np.asarray(labels)[part.id])
    for label in set(labels):
        count, given_away = labels.count(label), int(np.sum(held.label == label))
        assert given_away < count
        if count > 1:
            assert given_away >= 1
            assert abs(given_away - fraction * count) <= 1
    again = data.held_out(split, fraction=fraction, seed=seed)[1]
    np.testing.assert_array_equal(again.id, held.id)


def test_held_out_depends_on_the_seed():
    split = split_of(np.arange(200) % 2)
    first, second = (data.held_out(split, fraction=0.5, seed=seed)[1].id for seed in (0, 1))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_held_out_refuses_a_fraction_outside_0_1(fraction):
    with pytest.raises(ValueError, match="fraction must lie in"):
        data.held_out(split_of([0, 1]), fraction=fraction, seed=0)


# classes


def test_a_subset_keeps_ids_and_relabels_in_the_order_given():
    everything, pair = data.load("digits"), data.load("digits", classes=("8", "3"))
    assert pair.class_names == ("8", "3")
    for whole, part in ((everything.train, pair.train), (everything.test, pair.test)):
        wanted = np.isin(whole.label, [3, 8])
        np.testing.assert_array_equal(part.id, whole.id[wanted])
        np.testing.assert_array_equal(part.image, whole.image[wanted])
        np.testing.assert_array_equal(np.array([8, 3])[part.label], whole.label[wanted])


def test_relabel_drops_unknown_labels():
    positions, labels = classes_lib.relabel(np.array([-1, 9, 0, 2]), (2, 9))
    assert (positions.tolist(), labels.tolist()) == ([1, 3], [1, 0])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("3", "x"), r"no class 'x'; its classes are 0, 1, 2"),
        (("3",), r"at least 2 are needed, got only '3'"),
        (("3", "3"), r"'3' is given twice"),
        ("38", r"must be a sequence of names"),
    ],
)
def test_bad_classes(classes, message):
    with pytest.raises(data.DataError, match=message):
        data.load("digits", classes=classes)


def test_an_unknown_class_among_many_gets_near_matches():
    names = [f"class{number}" for number in range(100)]
    with pytest.raises(data.DataError, match=r"did you mean class\d+.* its 100 classes begin"):
        classes_lib.select("many", names, ("clas7", "class8"))


# names


def test_an_unknown_name_gets_near_matches(tmp_path):
    with pytest.raises(data.DataError, match=r"unknown data set 'cifra10' .*did you mean cifar10"):
        data.load("cifra10", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "name", ["", None, "a b", "x/y/z", "\u00e9", "cifar10/=", ":", "mnist:9.9.9"]
)
def test_strange_names_are_one_line(name, tmp_path):
    with pytest.raises(data.DataError) as caught:
        data.load(name, data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_absent_tfds_data_say_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(data.DataError) as caught:
        data.load("cifar10")
    for part in (str(tmp_path), "advfeat.data.prepare.prepare('cifar10'", "data_dir"):
        assert part in str(caught.value)
    with pytest.raises(data.DataError, match=r"tfds build svhn_cropped --file_format=array_record"):
        data.load("svhn_cropped")
    assert not list(tmp_path.iterdir())  # looked, and left nothing


def test_restricted_imagenet_is_for_streams():
    with pytest.raises(data.DataError, match=r"advfeat\.data\.stream"):
        data.load("restricted_imagenet")


@pytest.mark.parametrize(
    ("package", "name", "message"),
    [
        ("PIL", "cifar10", r"needs Pillow: pip install pillow"),
        ("PIL", "folder:.", r"needs Pillow: pip install pillow"),
        ("tensorflow_datasets", "cifar10", r"pip install tensorflow-datasets"),
        ("sklearn", "digits", r"pip install scikit-learn"),
    ],
)
def test_missing_packages_are_named(monkeypatch, package, name, message):
    real = builtins.__import__

    def without(wanted, *rest, **options):
        if wanted.split(".")[0] == package:
            raise ImportError(wanted)
        return real(wanted, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(data.DataError, match=message):
        data.load(name)


@pytest.mark.slow
def test_importing_and_digits_need_none_of_the_heavy_packages():
    code = (
        "import sys; from advfeat import data; data.load('digits');"
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'grain', 'PIL', 'flax')"
        " if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# real TFDS data


@pytest.mark.slow
@needs_shared
def test_mnist_is_mnist():
    mnist = data.load("mnist", data_dir=str(SHARED))
    assert mnist.train.label[:9].tolist() == [4, 1, 0, 7, 8, 1, 2, 7, 1]  # a published tutorial's
    np.testing.assert_allclose(mnist.mean, [0.1307], atol=5e-5)
    np.testing.assert_allclose(mnist.std, [0.3081], atol=5e-5)
    assert mnist.train.image.shape == (60000, 28, 28, 1)
    assert np.bincount(mnist.test.label).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert mnist.train.id.tolist() == list(range(60000))


@pytest.mark.slow
@needs_shared
def test_a_subset_of_cifar10_is_what_tfds_itself_reads():
    import tensorflow_datasets as tfds

    pair = data.load("cifar10", classes=("dog", "cat"), data_dir=str(SHARED))
    assert len(pair.train) == 10000
    assert np.bincount(pair.train.label).tolist() == [5000, 5000]
    raw = tfds.data_source("cifar10", split="test", data_dir=str(SHARED), download=False)
    for index in (0, 1, 700, 1999):
        example = raw[int(pair.test.id[index])]
        assert example["label"] == {0: 5, 1: 3}[int(pair.test.label[index])]
        np.testing.assert_array_equal(example["image"], pair.test.image[index])


# the records themselves


@pytest.mark.parametrize(
    ("image", "label", "id_", "message"),
    [
        (np.zeros((2, 2, 2), np.uint8), [0, 1], [0, 1], r"image must be"),
        (np.zeros((2, 2, 2, 1)), [0, 1], [0, 1], r"image must be"),
        (np.zeros((2, 2, 2, 1), np.uint8), [0], [0, 1], r"label must be \[2\]"),
        (np.zeros((2, 2, 2, 1), np.uint8), [0, 1], [0], r"id must be \[2\]"),
    ],
)
def test_a_split_checks_its_arrays(image, label, id_, message):
    with pytest.raises(data.DataError, match=message):
        data.Split(image, np.array(label), np.array(id_))


def test_a_dataset_checks_its_labels():
    good, bad = split_of([0, 1]), split_of([0, 2])
    with pytest.raises(data.DataError, match=r"train split must lie in \[0, 2\), got 2"):
        data.Dataset("x", bad, good, ("a", "b"))
    with pytest.raises(data.DataError, match=r"the test split is empty"):
        data.Dataset("x", good, good.take([]), ("a", "b"))


@pytest.mark.parametrize("most", [1, 7, 50, 99])
def test_a_subset_has_exactly_so_many_in_proportion(most):
    labels = np.repeat(np.arange(4), [50, 30, 15, 5])
    split = data.Split(np.zeros((100, 1, 1, 1), np.uint8), labels, np.arange(100))
    part = data.subset(split, most, seed=0)
    assert len(part) == most == len(set(part.id))
    wanted = most * np.array([0.5, 0.3, 0.15, 0.05])
    assert np.abs(np.bincount(part.label, minlength=4) - wanted).max() <= 1.5
    np.testing.assert_array_equal(part.id, data.subset(split, most, seed=0).id)
    if 1 < most < 99:
        assert set(part.id) != set(data.subset(split, most, seed=1).id)


def test_resized_images_keep_their_mean():
    digits = data.load("digits")
    large = data.resized(digits, (28, 28), most=50, seed=0)
    assert large.train.image.shape == (50, 28, 28, 1)
    assert large.train.image.dtype == np.uint8
    same = data.subset(digits.train, 50, seed=0)
    np.testing.assert_array_equal(large.train.label, same.label)
    means = [data.unit(images).mean(axis=(1, 2, 3)) for images in (large.train.image, same.image)]
    np.testing.assert_allclose(*means, atol=0.02)
    assert data.resized(digits, (8, 8), most=5, seed=0) is digits
