"""Displays of saliency maps: normalisations by name, and a grid of image × method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from advfeat.figures import style
from advfeat.figures.pictures import as_image, show
from advfeat.saliency.sanity import PERCENTILE, magnitude, one_map


def three_sigma(values: Any) -> np.ndarray:
    """Displays `clip((g - mean) / (3 std) + 0.5, 0, 1)` per channel, in colour.

    Args:
      values: `[H, W, C]` or `[H, W]`.

    Returns:
      `[H, W, C]` in [0, 1]; grey if a channel is constant.

    Example:
      >>> float(three_sigma(np.zeros((2, 2, 3))).max())
      0.5
    """
    array = one_map(values)
    mean = array.mean(axis=(0, 1), keepdims=True)
    spread = array.std(axis=(0, 1), keepdims=True)
    # The mean of equal numbers is rounded; a spread of this size is only rounding error.
    there = spread > 1e-12 * np.abs(mean)
    return np.clip((array - mean) / (3 * np.where(there, spread, 1.0)) + 0.5, 0, 1)


def heat(values: Any) -> np.ndarray:
    """Colours the magnitude from black over red to yellow, `[H, W, 3]`."""
    return np.asarray(matplotlib.colormaps["inferno"](magnitude(values)))[..., :3]


def signed(values: Any) -> np.ndarray:
    """Sums over channels, `[H, W, 3]`: blue below zero, white at zero, red above."""
    total = one_map(values).sum(axis=-1)
    top = np.percentile(np.abs(total), PERCENTILE) or np.abs(total).max()
    shown = np.clip(total / top, -1, 1) if top > 0 else np.zeros_like(total)
    return np.asarray(matplotlib.colormaps["RdBu_r"](0.5 + shown / 2))[..., :3]


def as_is(values: Any) -> np.ndarray:
    """Returns a map that is already an image, `[H, W, C]` in [0, 1] (`[H, W]` is grey)."""
    array = np.asarray(values)
    return as_image(array[..., None] if array.ndim == 2 else array)


DISPLAYS: dict[str, Callable[[Any], np.ndarray]] = {
    "three_sigma": three_sigma,
    "heat": heat,
    "signed": signed,
}
"""Ways to show a map, by name."""
_SHOWN = {**DISPLAYS, "as_is": as_is}


def map_grid(
    images: Sequence[Any],
    maps: Mapping[str, Sequence[Any]],
    *,
    display: str = "three_sigma",
    labels: Sequence[str] | None = None,
    title: str | None = None,
    first: str = "image",
) -> Figure:
    """Draws a grid with a row per image and a column per method.

    Args:
      images: `[N]` of `[H, W, C]`, uint8 or in [0, 1].
      maps: method name to `[N]` maps `[H, W, C]` or `[H, W]`.
      display: one of `DISPLAYS`, for all maps, or "as_is" if they are images.
      labels: `[N]`, beside the images.
      title: title above the grid.
      first: heading of the column of images.

    Returns:
      The figure.

    Raises:
      ValueError: for an unknown display, no image, or a wrong number of maps.
    """
    if display not in _SHOWN:
        raise ValueError(f"display: must be one of {', '.join(_SHOWN)}, not {display!r}")
    count = len(images)
    if count == 0 or not maps:
        raise ValueError("images, maps: must be at least one each")
    for name, found in maps.items():
        if len(found) != count:
            raise ValueError(f"maps: {name} has {len(found)} for {count} images")
    columns = [first, *maps]
    figure = style.new_figure(1.35 * len(columns) + 0.7, 1.35 * count + 0.6)
    grid = figure.subplots(count, len(columns), squeeze=False)
    for row in range(count):
        show(grid[row][0], as_image(images[row]))
        if labels is not None:
            words = style.fold(labels[row], 16, lines=6)
            grid[row][0].set_ylabel(words, fontsize=style.SMALL, color=style.INK)
        for column, name in enumerate(maps, start=1):
            show(grid[row][column], _SHOWN[display](maps[name][row]))
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(
            style.fold(name.replace("_", " "), 16), fontsize=style.SMALL, color=style.INK, pad=4
        )
    if title:
        figure.suptitle(title, fontsize=style.LARGE, color=style.INK)
    return figure
