"""Prepares TFDS data from the published archives, without TensorFlow.

TFDS's own builder writes the files: its features, its order (a hash of the split's name and the
official index), its metadata. Only the parts that need TensorFlow are replaced: the download and
the generator that reads the archive. The result is the standard set in array_record format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import shutil
import tempfile
import types
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advfeat.data import archives, images, tfds_images
from advfeat.data.types import DataError

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class PrepareResult:
    """The result of `prepare`.

    Attributes:
      path: the prepared folder, `DATA_DIR/NAME/VERSION`.
      examples: number of examples per split.
      unofficial: archives whose checksum is not that of the published file.
    """

    path: Path
    examples: Mapping[str, int]
    unofficial: tuple[str, ...]


def prepare(
    name: str,
    archive_dir: str,
    data_dir: str | None = None,
    *,
    download: bool = False,
    overwrite: bool = False,
) -> PrepareResult:
    """Prepares a data set for `advfeat.data.load` (and `tfds.data_source`).

    The folder appears atomically. Archives that differ from the published ones (by TFDS's
    checksums) are prepared, too, and named in the result and in the description of the set.

    Args:
      name: "cifar10" or "mnist".
      archive_dir: folder with the archives under their official file names.
      data_dir: destination of TFDS data; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      download: first fetch missing archives from their official addresses.
      overwrite: replace a set that is already prepared.

    Returns:
      Location and contents of the prepared set.

    Raises:
      DataError: if the set is unknown or already prepared, an archive is absent or damaged, or a
        download fails.
    """
    archive = archives.ARCHIVES.get(name)
    if archive is None:
        known = ", ".join(archives.ARCHIVES)
        raise DataError(f"no preparation from archives for {name!r}: known are {known}")
    images.require_pillow()
    tfds = tfds_images.import_tfds(name)
    target_dir = Path(tfds_images.resolve_data_dir(data_dir))
    with tfds_images.quiet_tfds():
        builder = tfds.builder(name, data_dir=str(target_dir))
    target = Path(builder.data_dir)
    if target.exists() and not overwrite:
        raise DataError(f"{name} is prepared already in {target}: `overwrite` replaces it")
    folder = Path(archive_dir).expanduser()
    unofficial = _collect(name, folder, archive.files, download=download)
    contents = archive.read(folder)
    try:
        target_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".preparing-", dir=target_dir) as staging:
            made = _write(tfds, name, Path(staging), contents, unofficial)
            _move_into_place(made, target, Path(staging))
    except OSError as error:
        raise DataError(f"cannot write to {target_dir}: {error}") from error
    counts = {split: len(labels) for split, labels in contents.labels.items()}
    return PrepareResult(target, counts, unofficial)


def _collect(
    name: str, folder: Path, files: Sequence[archives.Published], *, download: bool
) -> tuple[str, ...]:
    """Ensures that the archives exist; returns those that differ from the published files."""
    missing = [file for file in files if not (folder / file.file_name).is_file()]
    if missing and not download:
        raise DataError(
            f"{name} needs {', '.join(file.file_name for file in missing)} in {folder}: fetch "
            f"{' '.join(file.url for file in missing)} or let it `download` them"
        )
    for file in missing:
        _fetch(file, folder / file.file_name)
    return tuple(
        file.file_name for file in files if _sha256(folder / file.file_name) != file.sha256
    )


def _fetch(file: archives.Published, path: Path) -> None:
    """Downloads a file; it appears under its name only after its checksum is verified."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as response,
            part.open("wb") as out,
        ):
            shutil.copyfileobj(response, out, _CHUNK)
        if _sha256(part) != file.sha256:
            raise DataError(f"{file.url}: what came is not the published file (its sha256 differs)")
        part.replace(path)
    except OSError as error:  # URLError, a timeout, a full disk
        reason = getattr(error, "reason", error)
        raise DataError(
            f"cannot download {file.url} ({reason}): without a network, put the file into "
            f"{path.parent}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(
    tfds: Any, name: str, folder: Path, contents: archives.Contents, unofficial: tuple[str, ...]
) -> Path:
    """Lets TFDS's builder write the set below `folder`; returns the set's own folder."""
    with tfds_images.quiet_tfds():
        builder = tfds.builder(name, data_dir=str(folder), file_format="array_record")
    if contents.class_names is not None:
        builder.info.features["label"].names = list(contents.class_names)
    if unofficial:
        builder.info._info_proto.description += (  # TFDS has no setter
            f" NOTE: prepared from files that are not the published ones: {', '.join(unofficial)}."
        )
    splits = {split: _examples(contents, split) for split in contents.labels}
    # Override methods on this one builder. TFDS's download manager is skipped, too: nothing is
    # downloaded here, and it needs packages that TFDS does not declare (importlib_resources).
    builder._make_download_manager = lambda **_: types.SimpleNamespace(downloaded_size=0)
    builder._split_generators = lambda dl_manager: splits
    # TFDS's progress bars stay on stderr, and it prints the name of the temporary folder.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return Path(builder.data_dir)


def _examples(contents: archives.Contents, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields examples under the standard builder's keys, which preserves the standard order."""
    prefix = contents.id_prefix[split] if contents.id_prefix else None
    pairs = zip(contents.images[split], contents.labels[split], strict=True)
    for index, (image, label) in enumerate(pairs):
        # A file object is stored unchanged; TFDS would encode an array with TensorFlow.
        example = {"image": io.BytesIO(_png(image)), "label": int(label)}
        if prefix is not None:
            example["id"] = f"{prefix}{index:05d}"
        yield index, example


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def _move_into_place(made: Path, target: Path, staging: Path) -> None:
    """Moves the finished folder into place; an older one is deleted with `staging`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = staging / "replaced"
    if target.exists():
        target.rename(old)
    try:
        made.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
