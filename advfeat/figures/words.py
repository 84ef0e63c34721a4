"""Places labels beside the points of a chart, where they hide as little as possible."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from advfeat.figures import style

_LETTER = 0.62  # approximate ratio of a letter's width to its font size
_MARKER = 10.0  # size of a marker, in points
_OFFSETS = [(dx, dy) for far in (1, 2, 3) for dy in (6 * far, -15 * far) for dx in (1, -1)]
"""Candidate places of a label: right or left, at several heights above or below; nearest first."""


def words_beside(
    figure: Figure, axes: Axes, words: Sequence[tuple[str, tuple[float, float], str]]
) -> None:
    """Writes each label at its point, where it hides least of the points and other labels.

    Args:
      figure: the figure of the axes; everything else must be drawn already, since only then are the
        points' positions known.
      axes: the axes of the points.
      words: label, point in data coordinates, colour.
    """
    figure.draw_without_rendering()
    unit = figure.dpi / 72
    places = axes.transData.transform([place for _, place, _ in words]) / unit
    taken = [
        Bbox.from_bounds(x - _MARKER / 2, y - _MARKER / 2, _MARKER, _MARKER) for x, y in places
    ]
    for line in axes.get_lines():
        along = _along(axes.transData.transform(line.get_xydata()) / unit)
        taken += [Bbox.from_bounds(x - 1, y - 1, 2, 2) for x, y in along]
    inside = Bbox(axes.get_window_extent().get_points() / unit)
    for (word, place, colour), (x, y) in zip(words, places, strict=True):
        boxes = [_box(word, x, y, offset) for offset in _OFFSETS]
        best = min(boxes, key=lambda box: _hidden(box, taken, inside))  # the first if tied
        taken.append(best)
        axes.annotate(
            word,
            place,
            xytext=(best.x0 - x, best.y0 - y),
            textcoords="offset points",
            fontsize=style.SMALL,
            color=colour,
            zorder=2.5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _along(corners: np.ndarray) -> np.ndarray:
    """Returns `[M, 2]` points along a polyline with corners `[N, 2]`."""
    shares = np.linspace(0, 1, 50)[:, None]
    parts = [(1 - shares) * a + shares * b for a, b in itertools.pairwise(corners)]
    return np.concatenate(parts) if parts else corners


def _box(word: str, x: float, y: float, offset: tuple[int, int]) -> Bbox:
    width = _LETTER * style.SMALL * len(word)
    left = x + 6 if offset[0] > 0 else x - 6 - width
    return Bbox.from_bounds(left, y + offset[1], width, style.SMALL)


def _hidden(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    outside = _area(box) - _area(Bbox.intersection(box, inside))
    return outside + sum(_area(Bbox.intersection(box, other)) for other in taken)


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else float(box.width * box.height)
