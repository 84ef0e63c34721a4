"""Synthetic images with known features: `planted`, or `planted:shape` with only shape informative.

The features are those of `advfeat.features.planted`: shape, texture, mark. The named features
always agree with the label; the others agree only at chance level.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.data import classes as classes_lib
from advfeat.data.types import DataError, Dataset, Split
from advfeat.edges import THREEFRY
from advfeat.features import planted

_NAME = "planted"
_TRAIN, _TEST = 4000, 1000


def matches(name: str) -> bool:
    """Returns whether `name` means this source."""
    return name == _NAME or name.startswith(_NAME + ":")


def world(name: str) -> planted.Planted:
    """Returns the generative model of a name.

    Raises:
      DataError: for an unknown feature.
    """
    named = name.partition(":")[2]
    wanted = named.split("+") if named else list(planted.FEATURES)
    for feature in wanted:
        if feature not in planted.FEATURES:
            raise DataError(
                f"{name}: unknown feature {feature!r}, known are {', '.join(planted.FEATURES)}, "
                "joined by +"
            )
    return planted.planted(
        agreements=tuple(float(f in wanted) for f in planted.FEATURES)  # type: ignore[arg-type]
    )


def load(name: str, *, classes: Sequence[str] | None, data_dir: str | None) -> Dataset:
    """Draws 4,000 training and 1,000 test images of 32 × 32 × 3, uint8, always the same.

    The id is the position; `drawn` returns the masks of images by id.

    Args:
      name: "planted", "planted:FEATURE" or "planted:FEATURE+FEATURE".
      classes: shapes to keep; None keeps all four.
      data_dir: ignored.

    Raises:
      DataError: for an unknown feature or class.
    """
    del data_dir
    keep = classes_lib.select(name, planted.SHAPES, classes)
    ids = np.arange(_TRAIN + _TEST)
    found, labels = drawn(world(name), ids), ids % len(planted.SHAPES)
    image = np.round(found.image * 255).astype(np.uint8)
    whole = Split(image, labels, ids)
    return Dataset(
        name=name,
        train=classes_lib.restrict(whole.take(np.arange(_TRAIN)), keep),
        test=classes_lib.restrict(whole.take(np.arange(_TRAIN, len(labels))), keep),
        class_names=tuple(planted.SHAPES[label] for label in keep),
    )


def drawn(scene: planted.Planted, ids: np.ndarray) -> planted.Drawing:
    """Draws images by id, on the host, with their masks and the classes of their features."""
    labels = jnp.asarray(ids) % scene.num_classes
    root = jax.random.key(0, impl=THREEFRY)
    found = planted.drawings(root, scene, labels, ids=jnp.asarray(ids))
    return jax.tree.map(np.asarray, found)
