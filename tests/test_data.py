"""Data in memory: digits, TFDS sets, folders of images, constructed .npz files."""

import builtins
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from advfeat import data
from advfeat.data import classes as classes_lib
from advfeat.data import images
from advfeat.results import RunDirectory

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "tfds"
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
    for part in (str(tmp_path), "experiments.prepare_data --dataset=cifar10", "--data_dir"):
        assert part in str(caught.value)
    with pytest.raises(data.DataError, match=r"tfds build svhn_cropped --file_format=array_record"):
        data.load("svhn_cropped")
    assert not list(tmp_path.iterdir())  # looked, and left nothing


def test_restricted_imagenet_is_for_streams():
    with pytest.raises(data.DataError, match=r"advfeat\.data\.stream"):
        data.load("restricted_imagenet")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(images.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(data.DataError, match=r"needs Pillow: pip install pillow"):
        data.load("cifar10")
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.split(".")[0] in ("tensorflow_datasets", "sklearn"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(data.DataError, match=r"pip install tensorflow-datasets"):
        data.load("cifar10")
    with pytest.raises(data.DataError, match=r"pip install scikit-learn"):
        data.load("digits")


def test_importing_and_digits_need_none_of_the_heavy_packages():
    code = (
        "import sys; from advfeat import data; data.load('digits');"
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'grain', 'PIL', 'flax')"
        " if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# real TFDS data


@needs_shared
def test_mnist_is_mnist():
    mnist = data.load("mnist", data_dir=str(SHARED))
    assert mnist.train.label[:9].tolist() == [4, 1, 0, 7, 8, 1, 2, 7, 1]  # a published tutorial's
    np.testing.assert_allclose(mnist.mean, [0.1307], atol=5e-5)
    np.testing.assert_allclose(mnist.std, [0.3081], atol=5e-5)
    assert mnist.train.image.shape == (60000, 28, 28, 1)
    assert np.bincount(mnist.test.label).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert mnist.train.id.tolist() == list(range(60000))


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


# folders


def picture(path, *, size=(6, 5), seed=0, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_folder_with_train_and_test(tmp_path):
    pixels = {}
    for part, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                path = tmp_path / part / name / f"{number}.png"
                pixels[part, label, number] = picture(path, seed=len(pixels))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    for name in (str(tmp_path), f"folder:{tmp_path}"):
        found = data.load(name)
        assert found.class_names == ("cat", "dog")
        assert found.train.label.tolist() == [0, 0, 0, 1, 1, 1]
        np.testing.assert_array_equal(found.train.image[4], pixels["train", 1, 1])
        np.testing.assert_array_equal(found.test.image[1], pixels["test", 0, 1])
    relative = data.load("folder:train/..", data_dir=str(tmp_path), classes=("dog", "cat"))
    assert relative.train.label.tolist() == [1, 1, 1, 0, 0, 0]
    assert relative.input_shape == (5, 6, 3)


def test_a_folder_without_parts_gives_every_fifth_of_each_class(tmp_path):
    for name, count in (("a", 11), ("b", 3)):
        for number in range(count):
            picture(tmp_path / name / f"{number:02d}.png", mode="L", seed=number)
    found = data.load(str(tmp_path))
    assert found.test.id.tolist() == [4, 9, 13]
    assert found.train.id.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12]
    assert found.input_shape == (5, 6, 1)


def test_one_colour_image_makes_all_of_them_colour(tmp_path):
    grey = picture(tmp_path / "train" / "a" / "0.png", mode="L")
    picture(tmp_path / "train" / "b" / "0.png", mode="L")
    picture(tmp_path / "test" / "a" / "0.png", mode="L")
    picture(tmp_path / "test" / "b" / "0.jpg")
    found = data.load(str(tmp_path))
    assert found.input_shape == (5, 6, 3)
    np.testing.assert_array_equal(found.train.image[0], np.repeat(grey[..., None], 3, -1))


def test_bad_folders(tmp_path):
    with pytest.raises(data.DataError, match=r"no such folder of images: .*absent"):
        data.load(f"folder:{tmp_path}/absent")
    with pytest.raises(data.DataError, match=r"2 or more classes"):
        data.load(str(tmp_path))
    for name in ("a", "b"):
        for number in range(2):
            picture(tmp_path / name / f"{number}.png")
    picture(tmp_path / "b" / "1.png", size=(7, 5))
    with pytest.raises(data.DataError, match=r"one size: .*b/1\.png is 5 × 7, those before"):
        data.load(str(tmp_path))
    (tmp_path / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(data.DataError, match=r"b/1\.png: not a readable image"):
        data.load(str(tmp_path))
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(tmp_path / "b" / "1.png")
    with pytest.raises(data.DataError, match=r"b/1\.png: not a readable image: mode I;16"):
        data.load(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.DataError, match=r"no \.png, .* files in .*empty"):
        data.load(str(tmp_path))
    shutil.move(tmp_path / "a", tmp_path / "train" / "a")
    with pytest.raises(data.DataError, match=r"has a folder train but none of test"):
        data.load(str(tmp_path))


# constructed .npz files


@pytest.fixture
def constructed(tmp_path):
    """Returns a function that saves a constructed set and gives its path."""

    def save(provenance=None, **changes):
        digits = data.load("digits", classes=("3", "8"))
        arrays = {
            "image": digits.train.image[:20],
            "label": (1 - digits.train.label[:20]).astype(np.int32),
            "id": digits.train.id[:20],
            "original_label": digits.train.label[:20],
            **changes,
        }
        if provenance is None:
            provenance = {"dataset": "digits", "classes": ["3", "8"]}
        with RunDirectory.open(tmp_path / "run", {}, name="x") as run:
            kept = {key: value for key, value in arrays.items() if value is not None}
            return run.save_arrays("d_det", kept, provenance)

    return save


def test_a_constructed_set_is_tested_on_the_original(constructed):
    original, found = data.load("digits", classes=("3", "8")), data.load(str(constructed()))
    np.testing.assert_array_equal(found.train.image, original.train.image[:20])
    np.testing.assert_array_equal(found.train.label, 1 - original.train.label[:20])
    np.testing.assert_array_equal(found.train.id, original.train.id[:20])
    np.testing.assert_array_equal(found.test.image, original.test.image)
    np.testing.assert_array_equal(found.test.label, original.test.label)
    assert found.class_names == ("3", "8")
    swapped = data.load(str(constructed()), classes=("8", "3"))
    np.testing.assert_array_equal(swapped.test.label, 1 - original.test.label)
    np.testing.assert_array_equal(swapped.train.label, original.train.label[:20])


def test_a_constructed_set_may_bring_its_own_test_set(tmp_path):
    image = np.arange(32, dtype=np.uint8).reshape(4, 2, 2, 2)
    path = tmp_path / "x.npz"
    np.savez(path, image=image, label=[0, 1, 2, 1], test_image=image[:2], test_label=[2, 0])
    found = data.load(str(path))
    assert found.class_names == ("0", "1", "2")
    assert found.train.id.tolist() == [0, 1, 2, 3]
    assert found.test.label.tolist() == [2, 0]


NAN = np.full((20, 8, 8, 1), np.nan, np.float32)
WIDE = np.full((20, 8, 8, 1), 1.5, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, r"no array 'image'; it holds id, label, original_label"),
        ({"label": None}, r"no array 'label'"),
        ({"image": np.zeros((20, 8, 8), np.float32)}, r"image must be .*\[N, H, W, C\]"),
        ({"image": np.zeros((20, 8, 8, 1))}, r"image must be float32 or uint8 .* float64"),
        ({"image": np.zeros((0, 8, 8, 1), np.float32)}, r"not empty"),
        ({"image": NAN}, r"must lie in \[0, 1\], holds NaN"),
        ({"image": WIDE}, r"must lie in \[0, 1\], holds values in \[1\.5, 1\.5\]"),
        ({"image": -WIDE}, r"must lie in \[0, 1\]"),
        ({"image": np.zeros((20, 9, 9, 1), np.float32)}, r"\[9, 9, 1\], its test set \[8, 8, 1\]"),
        ({"label": np.full(20, 2, np.int32)}, r"label must lie in \[0, 2\), holds 2"),
        ({"label": np.full(20, -1, np.int32)}, r"label must lie in \[0, 2\), holds -1"),
        ({"label": np.zeros(19, np.int32)}, r"label must be integers \[20\], is int32 \[19\]"),
        ({"label": np.zeros(20, np.float32)}, r"label must be integers \[20\], is float32"),
        ({"id": np.full(20, 2**40)}, r"id must fit into 32 bits"),
    ],
)
def test_bad_arrays(constructed, changes, message):
    with pytest.raises(data.DataError, match=message):
        data.load(str(constructed(**changes)))


def test_bad_files(constructed, tmp_path):
    path = constructed()
    whole = path.read_bytes()
    path.with_suffix(".json").write_text(json.dumps({"dataset": "digits", "classes": ["3", "8"]}))
    assert len(data.load(str(path)).train) == 20
    for size in (1, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(data.DataError, match=r"truncated|readable|pickled"):
            data.load(str(path))
    path.write_bytes(b"")
    with pytest.raises(data.DataError, match=r"d_det\.npz is empty"):
        data.load(str(path))
    np.savez(path, image=np.array([{"a": 1}], object), label=[0])
    with pytest.raises(data.DataError, match=r"pickled objects"):
        data.load(str(path))
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(data.DataError, match=r"truncated or no \.npz archive"):
        data.load(str(path))
    with pytest.raises(data.DataError, match=r"no such file: .*absent\.npz"):
        data.load(str(tmp_path / "absent.npz"))


def test_no_damage_to_a_file_goes_unnoticed_or_unexplained(constructed):
    path = constructed()
    provenance = json.loads(path.with_suffix(".json").read_text())
    del provenance["sha256"]  # which would notice everything
    path.with_suffix(".json").write_text(json.dumps(provenance))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            found = data.load(str(path))
        except data.DataError:
            continue
        assert len(found.train) == 20  # a byte of the archive that carries nothing


def test_bad_provenance(constructed):
    path = constructed()
    beside = path.with_suffix(".json")
    record = json.loads(beside.read_text())
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    for text, message in [
        (json.dumps({**record, "sha256": "0" * 64}), r"is not the file that .*d_det\.json"),
        (json.dumps({**record, "dataset": None}), r"has no test_image, and .* no \"dataset\""),
        (json.dumps({**record, "dataset": str(path)}), r"names the file itself"),
        (json.dumps({**record, "dataset": "digitz"}), r"the test set of .*unknown data set"),
        ("{", r"not readable JSON"),
        ("[]", r"must hold an object"),
    ]:
        beside.write_text(text)
        with pytest.raises(data.DataError, match=message):
            data.load(str(path))
    beside.unlink()
    with pytest.raises(data.DataError, match=r"has no test_image"):
        data.load(str(path))


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
