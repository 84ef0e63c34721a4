"""The flags of `experiments.pack`."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The flags. There is no workdir: networks go into the package, or to `folder`."""

    run: str = flag("", "Finished run of experiments.train.")
    name: str = flag("", "The network's name in the zoo.")
    evaluation: str | None = flag(None, "Finished run of experiments.evaluate on it.")
    data_dir: str | None = flag(None, "Where TFDS data lie.")
    folder: str | None = flag(None, "Where to write (default: the package's zoo).")

    def validate(self) -> None:
        """Both names have to be given."""
        for option in ("run", "name"):
            if not getattr(self, option):
                raise ValueError(f"flag --{option} is missing")
