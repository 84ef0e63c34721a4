"""Flags shared by the experiments that can read a data set as a stream."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import Config as BaseConfig, UsageError, flag


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig(BaseConfig):
    """The flag `--stream`."""

    stream: bool = flag(
        False,
        "Leave the images on disk and decode them as they are needed: a TFDS name that does not "
        "fit in memory (imagenet2012), or restricted_imagenet.",
    )

    def validate(self) -> None:
        """Also checks that the data set can be a stream."""
        super().validate()
        if self.stream:
            check_streamable(self.dataset)


def check_streamable(dataset: str) -> None:
    """Rejects data sets that are no TFDS sets, by their names.

    Raises:
      UsageError: saying what can be streamed.

    >>> check_streamable("digits")
    Traceback (most recent call last):
    ...
    advfeat.runs.config.UsageError: flag --dataset=digits: is read into memory, and --stream takes
    a TFDS name, as in imagenet2012, or restricted_imagenet
    """
    kind = dataset.partition(":")[0]
    elsewhere = kind in ("digits", "planted", "samples", "folder")
    if elsewhere or dataset.startswith(("/", ".", "~")) or dataset.endswith(".npz"):
        raise UsageError(
            f"flag --dataset={dataset}: is read into memory, and --stream takes a TFDS name, as in "
            "imagenet2012, or restricted_imagenet"
        )
