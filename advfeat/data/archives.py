"""Reads the published archives of CIFAR-10 and MNIST without TensorFlow and without pickle.

Formats: https://www.cs.toronto.edu/~kriz/cifar.html ("binary version") and
http://yann.lecun.com/exdb/mnist/ (idx).
"""

from __future__ import annotations

import dataclasses
import gzip
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from advfeat.data.types import DataError

_UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """The contents of an archive, in the official order.

    Attributes:
      images: split name to uint8 `[N, H, W, C]`.
      labels: split name to uint8 `[N]`.
      class_names: the class names in the archive; None if it has none.
      id_prefix: prefix of an example's number in the TFDS feature "id"; None if the set has no such
        feature.
    """

    images: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    class_names: tuple[str, ...] | None = None
    id_prefix: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Published:
    """A file as published by the authors or TFDS's mirror.

    Attributes:
      url: address of the file.
      sha256: checksum recorded by TFDS.
    """

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The last component of the address."""
        return self.url.rsplit("/", 1)[1]


@dataclasses.dataclass(frozen=True)
class Archive:
    """The published files of a data set and their reader.

    Attributes:
      read: takes the files' folder and returns their contents.
      files: the files.
    """

    read: Callable[[Path], Contents]
    files: tuple[Published, ...]


def read_cifar10(folder: Path) -> Contents:
    """Reads `cifar-10-binary.tar.gz`: records of one label byte and 3 × 32 × 32 pixel bytes.

    Args:
      folder: folder with the archive.

    Returns:
      Its contents.

    Raises:
      DataError: if the archive is truncated or not of this format.
    """
    path = folder / "cifar-10-binary.tar.gz"
    members = {
        "train": [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)],
        "test": ["cifar-10-batches-bin/test_batch.bin"],
    }
    meta = "cifar-10-batches-bin/batches.meta.txt"
    wanted = {meta, *members["train"], *members["test"]}
    data: dict[str, bytes] = {}
    try:
        # One pass from front to back, the only order of a gzipped tar. Nothing is extracted.
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name in wanted and (file := tar.extractfile(member)) is not None:
                    data[name] = file.read()
    except _UNREADABLE as error:
        raise DataError(f"{path} is truncated or no gzipped tar archive: {error}") from error
    if missing := sorted(wanted - data.keys()):
        raise DataError(f"{path} lacks {', '.join(missing)}")
    try:
        class_names = tuple(data[meta].decode("ascii").split())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {meta} must be ten names in ASCII") from error
    if len(class_names) != 10:
        raise DataError(f"{path}: {meta} must name 10 classes, names {len(class_names)}")
    images, labels = {}, {}
    for split, names in members.items():
        blob = b"".join(_whole_records(path, name, data[name]) for name in names)
        records = np.frombuffer(blob, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        labels[split] = records[:, 0]
        images[split] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    _check_labels(path, labels)
    return Contents(images, labels, class_names, {"train": "train_", "test": "test_"})


def read_mnist(folder: Path) -> Contents:
    """Reads MNIST's four gzipped idx files.

    Args:
      folder: folder with the files.

    Returns:
      Their contents.

    Raises:
      DataError: if a file is truncated or not of this format.
    """
    images, labels = {}, {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        image_path = folder / f"{stem}-images-idx3-ubyte.gz"
        label_path = folder / f"{stem}-labels-idx1-ubyte.gz"
        image = _idx(image_path, rank=3)
        label = _idx(label_path, rank=1)
        if image.shape[1:] != (28, 28):
            raise DataError(f"{image_path}: images must be 28 × 28, are {image.shape[1:]}")
        if len(image) != len(label):
            raise DataError(f"{label_path} has {len(label)} labels for {len(image)} images")
        images[split], labels[split] = image[..., None], label
        _check_labels(label_path, {split: label})
    return Contents(images, labels)


_CVDF = "https://storage.googleapis.com/cvdf-datasets/mnist/"

ARCHIVES: dict[str, Archive] = {
    "cifar10": Archive(
        read_cifar10,
        (
            Published(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
    ),
    "mnist": Archive(
        read_mnist,
        (
            Published(
                f"{_CVDF}train-images-idx3-ubyte.gz",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            Published(
                f"{_CVDF}train-labels-idx1-ubyte.gz",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            Published(
                f"{_CVDF}t10k-images-idx3-ubyte.gz",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            Published(
                f"{_CVDF}t10k-labels-idx1-ubyte.gz",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    ),
}


def _whole_records(path: Path, name: str, data: bytes) -> bytes:
    size = 1 + 3 * 32 * 32
    if not data or len(data) % size:
        raise DataError(f"{path}: {name} must hold records of {size} bytes, has {len(data)} bytes")
    return data


def _idx(path: Path, *, rank: int) -> np.ndarray:
    """Reads a gzipped idx file of unsigned bytes: 0, 0, 8, rank; the sizes; the values."""
    try:
        data = gzip.decompress(path.read_bytes())
    except _UNREADABLE as error:
        raise DataError(f"{path} is truncated or no gzip file: {error}") from error
    if data[:4] != bytes([0, 0, 8, rank]) or len(data) < 4 + 4 * rank:
        raise DataError(f"{path} is no idx file of unsigned bytes of rank {rank}")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, 4))
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    count = 1
    for size in shape:  # Python integers: sizes in a damaged file may overflow 64 bits
        count *= size
    if not count or len(values) != count:
        raise DataError(f"{path} says {shape}, holds {len(values)} values")
    return values.reshape(shape)


def _check_labels(path: Path, labels: Mapping[str, np.ndarray]) -> None:
    for split, values in labels.items():
        if values.max() > 9:
            raise DataError(f"{path}: labels of {split} must be 0 to 9, hold {values.max()}")
