"""Restricted ImageNet: nine groups of ImageNet classes.

Tsipras, Santurkar, Engstrom, Turner and Madry, "Robustness May Be at Odds with Accuracy", ICLR
2019, appendix A; the ranges are those of the paper's code, both ends inclusive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from advfeat.data.types import Dataset, NeedsStreamError

# Per channel over the training images, from the authors' code.
MEAN = (0.4717, 0.4499, 0.3837)
STD = (0.2600, 0.2516, 0.2575)


@dataclasses.dataclass(frozen=True)
class Grouping:
    """A data set derived from another by grouping classes and dropping the rest.

    Attributes:
      source: TFDS name of the other set.
      ranges: name, first and last class of each group.
    """

    source: str
    ranges: tuple[tuple[str, int, int], ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the groups, in label order."""
        return tuple(name for name, _, _ in self.ranges)

    def table(self, num_classes: int) -> np.ndarray:
        """Returns int32 `[num_classes]`: the group of each source class, -1 for none.

        >>> GROUPING.table(1000)[[0, 151, 268, 269, 281, 319]]
        array([-1,  0,  0, -1,  1,  8], dtype=int32)
        """
        groups = np.full(num_classes, -1, np.int32)
        for group, (_, first, last) in enumerate(self.ranges):
            groups[first : last + 1] = group
        return groups


GROUPING = Grouping(
    source="imagenet2012",
    ranges=(
        ("dog", 151, 268),
        ("cat", 281, 285),
        ("frog", 30, 32),
        ("turtle", 33, 37),
        ("bird", 80, 100),
        ("monkey", 365, 382),
        ("fish", 389, 397),
        ("crab", 118, 121),
        ("insect", 300, 319),
    ),
)


def matches(name: str) -> bool:
    """Returns whether `name` means this source."""
    return name == "restricted_imagenet"


def load(name: str, *, classes: Sequence[str] | None, data_dir: str | None) -> Dataset:
    """Raises a NeedsStreamError: 250,000 images of 224 × 224 do not fit in memory."""
    raise NeedsStreamError(
        f"{name} does not fit in memory: advfeat.data.stream({name!r}, …) reads it"
    )
