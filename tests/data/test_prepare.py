"""CIFAR-10 and MNIST made from archives of the official format, without TensorFlow."""

import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from advfeat import data
from advfeat.data import archives, prepare

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHARED = pathlib.Path(__file__).parents[3] / "shared" / "tfds"


def cifar10_archive(folder, *, per_batch=7, test=5, drop=(), extra=b"", labels=10):
    """Writes an archive of the official format; returns images and labels of both splits."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"batches.meta.txt": ("\n".join(NAMES) + "\n\n").encode()}
    truth = {}
    for split, sizes in (("train", [per_batch] * 5), ("test", [test])):
        image = rng.integers(0, 256, (sum(sizes), 3, 32, 32), dtype=np.uint8)
        label = rng.integers(0, labels, sum(sizes), dtype=np.uint8)
        records = np.concatenate([label[:, None], image.reshape(len(image), 3072)], axis=1)
        for number, part in enumerate(np.split(records, np.cumsum(sizes)[:-1]), start=1):
            name = f"data_batch_{number}.bin" if split == "train" else "test_batch.bin"
            contents[name] = part.tobytes() + extra
        truth[split] = image.transpose(0, 2, 3, 1), label
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, blob in contents.items():
            if name not in drop:
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(blob)
                tar.addfile(info, io.BytesIO(blob))
    return truth


def idx(values):
    """Returns the idx file of an array of unsigned bytes."""
    sizes = np.array(values.shape, ">u4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def mnist_archives(folder, *, train=30, test=12, images=None):
    """Writes the four files of the official format; returns images and labels of both splits."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for split, stem, count in (("train", "train", train), ("test", "t10k", test)):
        image = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        if images is not None:
            image = images(count)
        label = rng.integers(0, 10, count, dtype=np.uint8)
        for kind, values in (("images-idx3", image), ("labels-idx1", label)):
            path = folder / f"{stem}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(values), compresslevel=1))
        truth[split] = image[..., None], label
    return truth


def match(found, image, label):
    """Finds each prepared image among the archive's; returns the archive's positions."""
    key = {pixels.tobytes(): position for position, pixels in enumerate(image)}
    positions = np.array([key[pixels.tobytes()] for pixels in found.image])
    assert sorted(positions.tolist()) == list(range(len(image)))
    np.testing.assert_array_equal(found.label, label[positions])
    return positions


def test_cifar10_comes_back_pixel_for_pixel_with_official_ids(tmp_path):
    import tensorflow_datasets as tfds

    truth = cifar10_archive(tmp_path / "in")
    result = prepare.prepare("cifar10", str(tmp_path / "in"), str(tmp_path / "out"))
    assert result.path == tmp_path / "out" / "cifar10" / "3.0.2"
    assert result.examples == {"train": 35, "test": 5}
    found = data.load("cifar10", data_dir=str(tmp_path / "out"))
    assert found.class_names == NAMES
    for split, prefix in (("train", "train_"), ("test", "test_")):
        positions = match(getattr(found, split), *truth[split])
        raw = tfds.data_source("cifar10", split=split, data_dir=str(tmp_path / "out"))
        ids = [example["id"].decode() for example in raw]
        assert ids == [f"{prefix}{position:05d}" for position in positions]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cifar10"]


def test_mnist_comes_back_pixel_for_pixel(tmp_path):
    truth = mnist_archives(tmp_path / "in")
    prepare.prepare("mnist", str(tmp_path / "in"), str(tmp_path / "out"))
    found = data.load("mnist", data_dir=str(tmp_path / "out"))
    assert found.input_shape == (28, 28, 1)
    for split in ("train", "test"):
        match(getattr(found, split), *truth[split])


def test_archives_that_are_not_the_published_ones_are_named(tmp_path):
    cifar10_archive(tmp_path)
    result = prepare.prepare("cifar10", str(tmp_path), str(tmp_path))
    assert result.unofficial == ("cifar-10-binary.tar.gz",)
    info = json.loads((result.path / "dataset_info.json").read_text())
    assert "not the published ones: cifar-10-binary.tar.gz" in info["description"]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no prepared TFDS data at hand")
def test_the_order_is_the_official_one(tmp_path):
    """Undoing our order turns the officially ordered MNIST into the published label files."""

    def numbered(count):
        image = np.zeros((count, 28, 28), np.uint8)
        image[:, 0, :4] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
        return image

    mnist_archives(tmp_path / "in", train=60000, test=10000, images=numbered)
    prepare.prepare("mnist", str(tmp_path / "in"), str(tmp_path / "out"))
    ours = data.load("mnist", data_dir=str(tmp_path / "out"))
    official = data.load("mnist", data_dir=str(SHARED))
    for split, md5 in (
        ("train", "a25bea736e30d166cdddb491f175f624"),
        ("test", "27ae3e4e09519cfbb04c329615203637"),
    ):
        image = getattr(ours, split).image[:, 0, :4, 0]
        index = np.ascontiguousarray(image).view(">u4")[:, 0].astype(np.int64)
        label = np.empty(len(index), np.uint8)
        label[index] = getattr(official, split).label
        assert hashlib.md5(idx(label)).hexdigest() == md5


def test_a_prepared_set_is_replaced_only_on_request(tmp_path):
    cifar10_archive(tmp_path / "in", per_batch=2)
    where = str(tmp_path / "in"), str(tmp_path / "out")
    prepare.prepare("cifar10", *where)
    cifar10_archive(tmp_path / "in", per_batch=3)
    with pytest.raises(data.DataError, match=r"prepared already in .*3\.0\.2: `overwrite`"):
        prepare.prepare("cifar10", *where)
    assert len(data.load("cifar10", data_dir=where[1]).train) == 10
    prepare.prepare("cifar10", *where, overwrite=True)
    assert len(data.load("cifar10", data_dir=where[1]).train) == 15
    assert [path.name for path in (tmp_path / "out" / "cifar10").iterdir()] == ["3.0.2"]


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    cifar10_archive(tmp_path / "in")
    where = str(tmp_path / "in"), str(tmp_path / "out")
    prepare.prepare("cifar10", *where)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def fail(image):
        raise OSError("no space left")

    monkeypatch.setattr(prepare, "_png", fail)
    with pytest.raises(data.DataError, match=r"cannot write to .*no space left"):
        prepare.prepare("cifar10", *where, overwrite=True)
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": ("data_batch_3.bin",)}, r"lacks cifar-10-batches-bin/data_batch_3\.bin"),
        ({"drop": ("batches.meta.txt",)}, r"lacks cifar-10-batches-bin/batches\.meta\.txt"),
        ({"extra": b"x"}, r"data_batch_1\.bin must hold records of 3073 bytes"),
        ({"labels": 200}, r"labels of train must be 0 to 9"),
        ({"test": 0}, r"test_batch\.bin must hold records of 3073 bytes, has 0 bytes"),
    ],
)
def test_bad_cifar10_archives(tmp_path, options, message):
    cifar10_archive(tmp_path / "in", **options)
    with pytest.raises(data.DataError, match=message):
        prepare.prepare("cifar10", str(tmp_path / "in"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_truncated_archives(tmp_path):
    cifar10_archive(tmp_path)
    mnist_archives(tmp_path)
    for name, file in (
        ("cifar10", "cifar-10-binary.tar.gz"),
        ("mnist", "t10k-labels-idx1-ubyte.gz"),
        ("mnist", "train-images-idx3-ubyte.gz"),
    ):
        whole = (tmp_path / file).read_bytes()
        for part in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
            (tmp_path / file).write_bytes(part)
            with pytest.raises(data.DataError, match=rf"{file} (is truncated|is no)"):
                archives.ARCHIVES[name].read(tmp_path)
        (tmp_path / file).write_bytes(whole)


def test_bad_idx_files(tmp_path):
    mnist_archives(tmp_path, train=30)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    for content, message in (
        (idx(np.zeros(29, np.uint8)), r"has 29 labels for 30 images"),
        (idx(np.full(30, 10, np.uint8)), r"must be 0 to 9, hold 10"),
        (idx(np.zeros((30, 1), np.uint8)), r"no idx file of unsigned bytes of rank 1"),
        (idx(np.zeros(30, np.uint8))[:-1], r"says \(30,\), holds 29 values"),
    ):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(data.DataError, match=message):
            archives.read_mnist(tmp_path)
    huge = bytes([0, 0, 8, 3]) + b"\xff" * 12
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(huge))
    with pytest.raises(data.DataError, match=r"holds 0 values"):
        archives.read_mnist(tmp_path)


def test_absent_archives_are_named_with_their_addresses(tmp_path):
    with pytest.raises(data.DataError) as caught:
        prepare.prepare("mnist", str(tmp_path / "absent"), str(tmp_path / "out"))
    for file in archives.ARCHIVES["mnist"].files:
        assert file.file_name in str(caught.value)
        assert file.url in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_addresses_and_checksums_are_those_of_tfds():
    import tensorflow_datasets as tfds

    folder = pathlib.Path(tfds.__file__).parent / "url_checksums"
    for name, archive in archives.ARCHIVES.items():
        lines = [line.split("\t") for line in (folder / f"{name}.txt").read_text().splitlines()]
        known = {url: sha256 for url, _, sha256, *_ in lines}
        for file in archive.files:
            assert known[file.url] == file.sha256


def local(monkeypatch, path):
    """Lets the "cifar10" archive be fetched from a file, as from the network."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
    files = (archives.Published(path.as_uri(), sha256),)
    archive = archives.Archive(archives.read_cifar10, files)
    monkeypatch.setitem(archives.ARCHIVES, "cifar10", archive)


def test_download_fetches_and_checks(tmp_path, monkeypatch):
    cifar10_archive(tmp_path / "web")
    served = tmp_path / "web" / "cifar-10-binary.tar.gz"
    local(monkeypatch, served)
    where = str(tmp_path / "in"), str(tmp_path / "out")
    result = prepare.prepare("cifar10", *where, download=True)
    assert result.unofficial == ()
    assert (tmp_path / "in" / served.name).read_bytes() == served.read_bytes()
    (tmp_path / "in" / served.name).unlink()
    served.write_bytes(b"something else")
    with pytest.raises(data.DataError, match=r"not the published file \(its sha256 differs\)"):
        prepare.prepare("cifar10", *where, download=True, overwrite=True)
    assert not list((tmp_path / "in").iterdir())


def test_download_without_a_network_is_one_line(tmp_path, monkeypatch):
    local(monkeypatch, tmp_path / "absent" / "cifar-10-binary.tar.gz")
    with pytest.raises(data.DataError, match=r"cannot download .*without a network") as caught:
        prepare.prepare("cifar10", str(tmp_path / "in"), str(tmp_path / "out"), download=True)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.slow
def test_the_command(tmp_path):
    cifar10_archive(tmp_path / "in")
    command = [sys.executable, "-m", "experiments.prepare_data", f"--archive_dir={tmp_path}/in"]
    root = pathlib.Path(__file__).parents[2]

    def call(*flags):
        return subprocess.run([*command, *flags], capture_output=True, text=True, cwd=root)

    done = call("--dataset=cifar10", f"--data_dir={tmp_path}/out")
    assert done.returncode == 0
    assert "cifar10 (35 train, 5 test) is prepared in" in done.stdout
    assert "cifar-10-binary.tar.gz is not the published file" in done.stderr
    for flags, message in (
        (("--dataset=cifar11",), "known are cifar10, mnist"),
        (("--dataset=cifar10", f"--data_dir={tmp_path}/out"), "prepared already"),
        (("--dataset=mnist", f"--data_dir={tmp_path}/out"), "needs train-images-idx3-ubyte.gz"),
    ):
        failed = call(*flags)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1


@pytest.mark.slow
def test_nothing_imports_tensorflow(tmp_path):
    cifar10_archive(tmp_path / "in")
    code = (
        "import sys; from advfeat import data; from advfeat.data import prepare;"
        f"prepare.prepare('cifar10', {str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r});"
        f"data.load('cifar10', data_dir={str(tmp_path / 'out')!r});"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
