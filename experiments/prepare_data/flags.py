"""The flags of `experiments.prepare_data`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The flags. There is no workdir: what is prepared goes to `data_dir`."""

    dataset: str = flag("cifar10", "cifar10 or mnist.")
    archive_dir: str = flag("archives", "Folder of the published archives.")
    data_dir: str | None = flag(
        None, "Where TFDS data go (default: TFDS_DATA_DIR, else ~/tensorflow_datasets)."
    )
    download: bool = flag(False, "Fetch the archives that are not in archive_dir.")
    overwrite: bool = flag(False, "Replace the set if it is prepared already.")

    def validate(self) -> None:
        """Leaves every check to `prepare`, which makes them before it writes anything."""
