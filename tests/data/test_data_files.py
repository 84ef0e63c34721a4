"""Data in files of the user's own: folders of images, constructed .npz files."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from advfeat import data
from advfeat.data import folder
from advfeat.runs.directory import RunDirectory

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


def test_a_folder_without_parts_gives_a_fifth_of_each_class_whatever_else_is_there(tmp_path):
    """Every fifth file by name would test on one of five views alone."""
    for name, count in (("a", 100), ("b", 23), ("c", 2)):
        for number in range(count):
            picture(
                tmp_path / name / f"{number // 5:02d}_view{number % 5}.png", mode="L", seed=number
            )
    found = data.load(str(tmp_path))
    assert np.bincount(found.test.label).tolist() == [20, 5, 1]
    assert sorted([*found.test.id, *found.train.id]) == list(range(125))
    assert found.input_shape == (5, 6, 1)
    views = np.bincount(found.test.id[found.test.label == 0] % 5, minlength=5)
    assert views.max() < 10
    # Of fewer classes the same images; a file that is added moves no more than one other.
    pair = data.load(str(tmp_path), classes=("b", "a"))
    assert set(pair.test.id) == set(found.test.id[found.test.label < 2])
    picture(tmp_path / "c" / "zz.png", mode="L")
    picture(tmp_path / "a" / "zz.png", mode="L")
    after = data.load(str(tmp_path), classes=("a", "c"))
    before = {i for i in found.test.id if i < 100}
    assert len(before - set(after.test.id[after.test.label == 0])) <= 1


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


def test_an_empty_class_folder_matters_only_where_it_is_kept(tmp_path):
    for name in ("a", "c"):
        for number in range(2):
            picture(tmp_path / name / f"{number}.png", seed=number)
    (tmp_path / "b").mkdir()
    found = data.load(str(tmp_path), classes=("a", "c"))
    assert found.class_names == ("a", "c")
    assert found.train.id.tolist() == [1, 3]  # by the hashes of their names
    for classes in (None, ("a", "b")):
        with pytest.raises(data.DataError, match=r"no \.png, .* files in .*/b$"):
            data.load(str(tmp_path), classes=classes)


def test_a_class_of_one_image_is_named(tmp_path):
    for name, count in (("a", 2), ("cats", 1), ("dogs", 2)):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png")
    for classes in (None, ("dogs", "cats")):
        with pytest.raises(data.DataError, match=r"class 'cats' has one image"):
            data.load(str(tmp_path), classes=classes)


def test_what_can_only_be_a_path_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("/no/such/folder", "./absent", "~/no_such_folder", "folder:absent.npz"):
        with pytest.raises(data.DataError, match=r"no such folder of images: .*(folder|absent)"):
            data.load(name)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(data.DataError, match=r"notes\.txt is a file: neither a folder of images"):
        data.load("./notes.txt")
    for place in ("real", "real.npz", "cifar10"):
        for name in ("a", "b"):
            for number in range(2):
                picture(tmp_path / place / name / f"{number}.png")
    for name in ("real", "real.npz", "folder:real.npz", "folder:cifar10", "./cifar10"):
        assert data.load(name).class_names == ("a", "b")
    monkeypatch.chdir(tmp_path / "real")
    assert data.load(".").class_names == ("a", "b")


def test_a_folder_that_tensorflow_datasets_made_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_set" / "1.0.0").mkdir(parents=True)
    (tmp_path / "some_set" / "1.0.0" / "dataset_info.json").write_text("{}")
    assert not folder.matches("some_set")


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
        (json.dumps({**record, "dataset": 3}), r"d_det\.json: dataset must be a text, is 3"),
        (json.dumps({**record, "data_dir": ["a"]}), r"data_dir must be a text, is \[\"a\"\]"),
        (json.dumps({**record, "sha256": 3}), r"sha256 must be a text"),
        (json.dumps({**record, "classes": "38"}), r"classes must be a list of names, is \"38\""),
        (json.dumps({**record, "classes": [["3"], "8"]}), r"classes must be a list of names"),
        (json.dumps({**record, "class_names": 3}), r"class_names must be a list of names, is 3"),
        (json.dumps({**record, "class_names": {"3": 0}}), r"class_names must be a list of names"),
        (json.dumps({**record, "class_names": ["3", "3"]}), r"class_names names one twice"),
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


def test_sets_that_name_one_another(tmp_path):
    image, label = np.zeros((4, 2, 2, 1), np.uint8), [0, 1, 0, 1]
    paths = [tmp_path / f"{name}.npz" for name in "abc"]
    for path, source in zip(paths, paths[1:] + paths[:1], strict=True):
        np.savez(path, image=image, label=label)
        path.with_suffix(".json").write_text(json.dumps({"dataset": str(source)}))
    with pytest.raises(data.DataError, match=r"c\.json names .*a\.npz, which was made") as caught:
        data.load(str(paths[0]))
    assert len(str(caught.value)) < 1000
    # A chain that ends is followed to its end.
    np.savez(paths[2], image=image, label=label, test_image=image[:2], test_label=[1, 0])
    assert data.load(str(paths[0])).test.label.tolist() == [1, 0]


def test_labels_that_leave_classes_out_need_their_names(tmp_path):
    image, path = np.zeros((4, 2, 2, 1), np.uint8), tmp_path / "x.npz"
    np.savez(path, image=image, label=[0, 1, 10**6, 1], test_image=image, test_label=[0, 1, 0, 1])
    with pytest.raises(data.DataError, match=r"no image has label 2, but one has 1000000"):
        data.load(str(path))
    np.savez(path, image=image, label=[0, 1, 3, 1], test_image=image, test_label=[0, 1, 0, 1])
    with pytest.raises(data.DataError, match=r"no image has label 2, but one has 3"):
        data.load(str(path))
    path.with_suffix(".json").write_text(json.dumps({"class_names": list("abcd")}))
    assert data.load(str(path)).class_names == ("a", "b", "c", "d")
    np.savez(path, image=image, label=[0, -1, 1, 1], test_image=image, test_label=[0, 1, 0, 1])
    with pytest.raises(data.DataError, match=r"label must lie in \[0, 4\), holds -1"):
        data.load(str(path))
