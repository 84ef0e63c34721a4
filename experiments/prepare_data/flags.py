"""Flags of `experiments.prepare_data`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Flags of `experiments.prepare_data`; it has no workdir: sets go to `data_dir`."""

    dataset: str = flag("cifar10", "cifar10 or mnist.")
    archive_dir: str = flag("archives", "Folder of the published archives.")
    data_dir: str | None = flag(
        None, "Destination of TFDS data (default: TFDS_DATA_DIR, else ~/tensorflow_datasets)."
    )
    download: bool = flag(False, "Download archives that are missing in archive_dir.")
    overwrite: bool = flag(False, "Replace the set if it is prepared already.")

    def validate(self) -> None:
        """Leaves all checks to `prepare`, which makes them before it writes anything."""
