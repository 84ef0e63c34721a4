"""Charts of rates: bars beside their controls, and source × target matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from advfeat.figures import style

_LETTER = 0.1  # approximate width in inches of a letter of a group's name
_MOST_NUMBERS = 10  # with more classes, a matrix has no room for numbers in its cells
_MOST_LETTERS = 24  # of a class name beside a matrix


def bars(
    groups: Mapping[str, Mapping[str, Any]],
    *,
    chance: float | None = None,
    title: str | None = None,
    ylabel: str = "accuracy on the original test set",
) -> Figure:
    """Draws bars with intervals, one group per result with its controls beside it.

    Args:
      groups: group name to bar name to rate (an `Estimate`, a number, or None if missing). A
        group's first bar is the result, in strong colour; the others are its controls, muted. The
        same name has the same colour in all groups; the first bars appear in the legend if all
        groups have the same name for them.
      chance: chance level, drawn as a dashed line.
      title: title above the axes.
      ylabel: label of the axis.

    Returns:
      The figure.

    Raises:
      ValueError: if there is no group, or a group has no bars.

    Example:
      >>> figure = bars({"D_det": {"D_det": 0.5, "unperturbed": 0.01}}, chance=0.1)
      >>> [float(bar.get_height()) for bar in figure.axes[0].patches]
      [0.5, 0.01]
    """
    if not groups or not all(groups.values()):
        raise ValueError("groups: must have at least one group, and each at least one bar")
    controls = _control_names(groups)
    results = {next(iter(group)) for group in groups.values()}
    count = sum(len(group) for group in groups.values())
    below = [style.fold(name, 18) for name in groups]
    letters = max(len(line) for name in below for line in name.split("\n"))
    names = 1.2 + len(groups) * _LETTER * (letters + 1)  # so that neighbouring names do not overlap
    figure = style.new_figure(max(6.0, 2.0 + 0.44 * count, names), 4.6)
    axes = figure.add_subplot()
    named: dict[str, Any] = {}
    centres, left = [], 0.0
    for group in groups.values():
        for index, (name, rate) in enumerate(group.items()):
            colour, hatch = style.PALETTE[0], ""
            if index:
                place = controls.index(name)
                colour = style.MUTED[place % len(style.MUTED)]
                hatch = style.HATCHES[place % len(style.HATCHES)]
            drawn = _bar(axes, left + index, rate, colour, hatch, strong=index == 0)
            if drawn is not None and (index or len(results) == 1):
                named.setdefault(name, drawn)
        centres.append(left + (len(group) - 1) / 2)
        left += len(group) + 0.9
    if chance is not None:
        line = axes.axhline(chance, color=style.INK, linewidth=1.0, linestyle=(0, (5, 4)))
        named[f"chance ({100 * chance:.0f}{style.PERCENT})"] = line
    style.dress(axes, title=title, xlabel=None, ylabel=ylabel)
    axes.set_xticks(centres, below, fontsize=style.LARGE)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.09)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=style.PERCENT))
    if named:
        style.legend(figure, list(named.values()), list(named))
    return figure


def _control_names(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups.values() for name in list(group)[1:]))


def _bar(axes: Any, x: float, rate: Any, colour: str, hatch: str, *, strong: bool) -> Any:
    """Draws one bar with its interval and value; a dash if there is no rate."""
    values = style.triple(rate)
    if values is None:
        axes.text(x, 0.012, "–", ha="center", va="bottom", color=style.FAINT)
        return None
    mean, low, high = values
    drawn = axes.bar(x, mean, width=0.86, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    if high > low:
        spread = [[max(mean - low, 0.0)], [max(high - mean, 0.0)]]
        axes.errorbar(x, mean, yerr=spread, color=style.INK, linewidth=1.2, capsize=3)
    axes.text(
        x,
        max(mean, high) + 0.014,
        f"{100 * mean:.0f}" if mean >= 0.0995 or mean == 0 else f"{100 * mean:.1f}",
        ha="center",
        va="bottom",
        fontsize=style.NORMAL if strong else style.SMALL,
        fontweight="bold" if strong else "normal",
        color=style.INK,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],  # over the chance line
    )
    return drawn


def matrix(
    values: Any,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    xlabel: str = "target class",
    ylabel: str = "source class",
    barlabel: str = "rate",
    title: str | None = None,
    counts: Any = None,
    intervals: Any = None,
) -> Figure:
    """Draws a matrix of rates as a heat map, with numbers in its cells if there is room.

    Args:
      values: `[R, C]` rates in [0, 1]; NaN, shown as a dash, if missing.
      row_names: `[R]`.
      column_names: `[C]`.
      xlabel: meaning of the columns.
      ylabel: meaning of the rows.
      barlabel: meaning of the colour.
      title: title above the axes.
      counts: `[R, C]`, sample size of each rate; written below it.
      intervals: `[R, C, 2]`, low and high of each rate, NaN if missing; written below it.

    Returns:
      The figure.

    Raises:
      ValueError: if `values` is not `[R, C]`, or `counts` or `intervals` do not fit it.
    """
    cells = np.asarray(values, dtype=float)
    rows, columns = len(row_names), len(column_names)
    if cells.shape != (rows, columns):
        raise ValueError(f"values: shape {cells.shape}, but {rows} row and {columns} column names")
    for what, given, wanted in (
        ("counts", counts, cells.shape),
        ("intervals", intervals, (*cells.shape, 2)),
    ):
        if given is not None and np.shape(given) != wanted:
            raise ValueError(f"{what}: shape {np.shape(given)}, but values have {cells.shape}")
    row_names, column_names = (
        [style.short(name, _MOST_LETTERS) for name in names] for names in (row_names, column_names)
    )
    numbers = max(rows, columns) <= _MOST_NUMBERS
    side = 0.56 if intervals is None and counts is None else 0.64 if intervals is None else 0.82
    cell = side if numbers else max(0.16, 0.56 * _MOST_NUMBERS / max(rows, columns))
    figure = style.new_figure(max(4.4, 2.4 + cell * columns), max(3.2, 1.6 + cell * rows))
    axes = figure.add_subplot()
    image = axes.imshow(cells, cmap="cividis", vmin=0, vmax=1, aspect="equal")
    axes.set_facecolor("#E9E9E9")  # visible where a cell is NaN
    style.dress(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    size = style.NORMAL if numbers else style.SMALL
    upright = max(len(name) for name in column_names) <= 3
    turned: dict[str, Any] = (
        {} if upright else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    )
    step = max(1, int(np.ceil(0.19 / cell)))  # names at least 0.19 inch apart do not overlap
    axes.set_xticks(range(0, columns, step), column_names[::step], fontsize=size, **turned)
    axes.set_yticks(range(0, rows, step), row_names[::step], fontsize=size)
    axes.tick_params(length=0)
    if numbers:
        _write_cells(axes, cells, counts, intervals)
    bar = figure.colorbar(
        image, ax=axes, shrink=0.85, format=PercentFormatter(1.0, symbol=style.PERCENT)
    )
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=style.NORMAL, length=0)
    bar.set_label(style.fold(barlabel, 60), fontsize=style.NORMAL)
    return figure


def _write_cells(axes: Any, cells: np.ndarray, counts: Any, intervals: Any) -> None:
    """Writes each cell's rate and, below it in smaller type, the interval and the sample size."""
    for (row, column), value in np.ndenumerate(cells):
        known = bool(np.isfinite(value))
        # cividis runs from dark blue to yellow; here white and black contrast alike
        colour = "white" if known and value < 0.47 else "black"
        below = []
        if known and intervals is not None and np.isfinite(intervals[row][column]).all():
            low, high = intervals[row][column]
            below.append(f"[{100 * low:.0f}, {100 * high:.0f}]")
        if known and counts is not None:
            below.append(f"of {int(counts[row][column]):,}")
        words: dict[str, Any] = {"ha": "center", "va": "center", "color": colour}
        first = f"{100 * value:.0f}" if known else "–"
        size = style.LARGE if below else style.NORMAL
        axes.text(column, row - 0.13 * len(below), first, fontsize=size, **words)
        if below:
            axes.text(column, row + 0.17, "\n".join(below), fontsize=9, linespacing=1.1, **words)
