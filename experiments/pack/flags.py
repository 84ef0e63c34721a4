"""Flags of `experiments.pack`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Flags of `experiments.pack`; it has no workdir: networks go to the package or to `folder`."""

    run: str = flag("", "Finished run of experiments.train.")
    name: str = flag("", "The network's name in the zoo.")
    evaluation: str | None = flag(None, "Finished run of experiments.evaluate on it.")
    data_dir: str | None = flag(None, "Location of TFDS data.")
    folder: str | None = flag(None, "Output folder (default: the package's zoo).")

    def validate(self) -> None:
        """Requires both names."""
        for option in ("run", "name"):
            if not getattr(self, option):
                raise ValueError(f"flag --{option} is missing")
