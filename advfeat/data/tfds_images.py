"""Loads any image classification set of TensorFlow Datasets, without TensorFlow.

`tfds.data_source` reads ArrayRecord files. Record by record, this takes 25 s for the 60,000 images
of MNIST on one core; here, records are read in blocks, only image and label are extracted, and only
images of the wanted classes are decoded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from advfeat.data import archives, classes as classes_lib, images
from advfeat.data.types import DataError, Dataset, NeedsStreamError, NotPreparedError, Split

COMMON = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped")
"""Sets in common use."""

_BLOCK = 4096  # records read at once, of small images
_FIRST = 64  # records that tell how large the others may be
_BLOCK_BYTES = 32 << 20


def matches(name: str) -> bool:
    """Returns whether `name` can be a TFDS name (`cifar10`, `eurosat/rgb`, `mnist:3.0.1`)."""
    return not name.startswith(("/", ".", "~"))


def load(name: str, *, classes: Sequence[str] | None, data_dir: str | None) -> Dataset:
    """Loads a prepared TFDS set into memory: its "train" split, and "test" or "validation".

    Nothing is downloaded. The id is the position in the split.

    Args:
      name: a TFDS name.
      classes: classes to keep; None keeps all.
      data_dir: location of TFDS data; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
      The data set, uint8.

    Raises:
      DataError: if the set is unknown, not prepared, or does not have equally sized images with one
        label each; if a class is unknown; if Pillow or tensorflow-datasets is missing.
    """
    source = open_source(name, data_dir=data_dir)
    keep = classes_lib.select(name, source.class_names, classes)
    if "train" not in source.splits:
        raise DataError(f"{name} must have a split train; it has {', '.join(source.splits)}")
    return Dataset(
        name=name,
        train=_read_split(source, "train", keep),
        test=_read_split(source, source.test_split, keep),
        class_names=tuple(source.class_names[label] for label in keep),
    )


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened TFDS set with the feature keys of its images and labels.

    Attributes:
      name: the TFDS name.
      builder: the `tfds.core.DatasetBuilder`, prepared.
      image_key: name of the image feature.
      label_key: name of the label feature.
    """

    name: str
    builder: Any
    image_key: str
    label_key: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes, in label order."""
        return tuple(self.builder.info.features[self.label_key].names)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.builder.info.splits)

    @property
    def test_split(self) -> str:
        """ "test", or "validation" if there is no test split or its labels are withheld (-1)."""
        for split in ("test", "validation"):
            if split in self.splits and self.label_and_image(self.records(split)[0])[0] >= 0:
                return split
        raise DataError(
            f"{self.name} must have a labelled split test or validation; it has "
            f"{', '.join(self.splits)}"
        )

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return 1 if self.builder.info.features[self.image_key].shape[-1] == 1 else 3

    @property
    def image_size(self) -> int | None:
        """Height and width of every image; None if they differ, or are not squares."""
        height, width, _ = self.builder.info.features[self.image_key].shape
        return height if height == width else None

    def records(self, split: str) -> Any:
        """Returns the split's serialised records: a sequence with `__getitems__`."""
        import tensorflow_datasets as tfds

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        try:
            return self.builder.as_data_source(split, deserialize_method=raw)
        except NotImplementedError as error:
            raise DataError(
                f"{self.name} is prepared at {self.builder.data_dir}, but as "
                f"{self.builder.info.file_format.value}: prepare it with file_format=array_record"
            ) from error

    def label_and_image(self, record: bytes) -> tuple[int, bytes]:
        """Extracts label and encoded image from a record, decoding nothing."""
        from tensorflow_datasets.proto import tf_example_pb2

        features = tf_example_pb2.Example.FromString(record).features.feature
        return (
            features[self.label_key].int64_list.value[0],
            features[self.image_key].bytes_list.value[0],
        )


def open_source(name: str, *, data_dir: str | None = None) -> Source:
    """Opens a prepared TFDS set.

    Args:
      name: a TFDS name.
      data_dir: location of TFDS data; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
      The opened set.

    Raises:
      DataError: see `load`.
    """
    tfds = import_tfds(name)
    images.require_pillow()
    folder = resolve_data_dir(data_dir)
    with quiet_tfds():
        builder = _builder(name, folder, tfds)
        if not builder.is_prepared():
            raise _not_prepared(name, folder)
    return Source(name, builder, *_keys(name, builder.info, tfds))


def _builder(name: str, folder: str, tfds: Any) -> Any:
    try:
        try:
            return tfds.builder(name, data_dir=folder)
        except ImportError:
            # Some sets need TensorFlow just to import their builder; the prepared files suffice.
            return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.registered.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        message = _not_prepared if name.split("/")[0] in known else _unknown
        raise message(name, folder) from error
    except (ValueError, RuntimeError, AssertionError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"TFDS cannot open {name!r} in {folder}: {first}") from error


def import_tfds(name: str) -> Any:
    """Imports tensorflow_datasets, needed only by this source; raises DataError if missing."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            f"{name} needs tensorflow-datasets: pip install tensorflow-datasets"
        ) from error
    return tensorflow_datasets


def resolve_data_dir(data_dir: str | None) -> str:
    """Returns the folder of TFDS data: the argument, $TFDS_DATA_DIR, or TFDS's default."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return str(Path(chosen).expanduser())


def read_all(records: Any, what: str) -> Iterator[tuple[int, bytes]]:
    """Yields every record with its position, read in blocks, with a progress bar if slow.

    Args:
      records: from `Source.records`.
      what: the progress bar's description.

    Yields:
      `(position, record)`.
    """
    with tqdm(total=len(records), desc=what, delay=3, leave=False, disable=None) as bar:
        start, size = 0, _FIRST
        while start < len(records):
            block = list(range(start, min(start + size, len(records))))
            found = records.__getitems__(block)
            yield from zip(block, found, strict=True)
            bar.update(len(block))
            if start == 0:
                mean = sum(map(len, found)) // len(found)
                size = min(max(_BLOCK_BYTES // max(mean, 1), _FIRST), _BLOCK)
            start += len(block)


@contextlib.contextmanager
def located(source: Source, split: str, position: int) -> Iterator[None]:
    """Adds the record's location to a DataError raised inside."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{source.name}: record {position} of {split}: {error}") from error


def _read_split(source: Source, split: str, keep: Sequence[int]) -> Split:
    records = source.records(split)
    labels = np.empty(len(records), np.int32)
    wanted = np.zeros(len(source.class_names), bool)
    wanted[list(keep)] = True
    decoded: list[np.ndarray] = []
    for position, record in read_all(records, f"{source.name} {split}"):
        label, data = source.label_and_image(record)
        if not 0 <= label < len(wanted):
            raise DataError(f"{source.name}: record {position} of {split} has label {label}")
        labels[position] = label
        if wanted[label]:
            with located(source, split, position):
                decoded.append(images.decode(data, channels=source.channels))
            if decoded[-1].shape != decoded[0].shape:
                raise NeedsStreamError(
                    f"{source.name}: images differ in size ({list(decoded[0].shape)} and, record "
                    f"{position} of {split}, {list(decoded[-1].shape)}); use advfeat.data.stream, "
                    "which resizes"
                )
    positions, new_labels = classes_lib.relabel(labels, keep)
    if not decoded:
        raise DataError(f"{source.name}: no examples of the wanted classes in {split}")
    return Split(np.stack(decoded), new_labels, positions)


def _keys(name: str, info: Any, tfds: Any) -> tuple[str, str]:
    """Finds the image and label features: the supervised pair, or the only one of each kind."""

    def of_kind(kind: type) -> list[str]:
        return [key for key, feature in info.features.items() if isinstance(feature, kind)]

    image_keys, label_keys = of_kind(tfds.features.Image), of_kind(tfds.features.ClassLabel)
    pair = info.supervised_keys
    if pair and len(pair) == 2 and pair[0] in image_keys and pair[1] in label_keys:
        return pair
    if len(image_keys) == 1 and len(label_keys) == 1:
        return image_keys[0], label_keys[0]
    raise DataError(
        f"{name} is not an image classification set: it has {len(image_keys)} image and "
        f"{len(label_keys)} class features"
    )


def _unknown(name: str, folder: str) -> DataError:
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(name.split("/")[0], [*known, "digits"], n=3)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    return DataError(
        f"unknown data set {name!r}{meant}: neither digits, nor a name of TensorFlow Datasets, nor "
        f"prepared in {folder}, nor a path"
    )


def _not_prepared(name: str, folder: str) -> DataError:
    says = f"{name} is not prepared in {folder}; give its data_dir, or prepare it"
    if name in archives.ARCHIVES:
        how = f"advfeat.data.prepare.prepare({name!r}, ARCHIVES, {folder!r})"
        return NotPreparedError(f"{says}: {how}", name, folder)
    return DataError(
        f"{says}: tfds build {name} --file_format=array_record --data_dir={folder} (that command "
        "needs TensorFlow)"
    )


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Hides TFDS's warnings and banners; the errors raised here carry what matters."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
