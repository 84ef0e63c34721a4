"""Charts of rates: bars beside their controls, curves with bands, source × target matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from advfeat.figures import style
from advfeat.figures.words import words_beside

_LETTER = 0.1  # inches that a letter of a group's name takes, about
_MOST_NUMBERS = 10  # a matrix of more classes has no room for numbers in its cells
_MOST_TICKS = 9  # more numbers of four digits do not fit side by side


def bars(
    groups: Mapping[str, Mapping[str, Any]],
    *,
    chance: float | None = None,
    title: str | None = None,
    ylabel: str = "accuracy on the original test set",
) -> Figure:
    """Bars with their intervals, a group for each result, its controls beside it.

    Args:
        groups: Group name to bar name to rate (an `Estimate`, a number, or None
            where there is none). A group's first bar is the result, in strong colour; the
            others are its controls, muted. The same name gets the same colour everywhere; the
            first bars stand in the legend if all groups have the same name for them.
        chance: Rate of a guess, drawn as a dashed line.
        title: Above the axes.
        ylabel: Beside them.

    Returns:
        The figure.

    Raises:
        ValueError: No group, or a group without bars.

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
    letters = max(len(line) for name in groups for line in name.split("\n"))
    names = 1.2 + len(groups) * _LETTER * (letters + 1)  # or neighbours run into each other
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
    axes.set_xticks(centres, list(groups), fontsize=style.LARGE)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.09)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=style.PERCENT))
    if named:
        figure.legend(
            named.values(),
            named.keys(),
            loc="outside lower center",
            ncols=min(3, len(named)),
            frameon=False,
            fontsize=style.NORMAL,
        )
    return figure


def _control_names(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups.values() for name in list(group)[1:]))


def _bar(axes: Any, x: float, rate: Any, colour: str, hatch: str, *, strong: bool) -> Any:
    """One bar with its interval and its value; a dash where there is no rate."""
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


def curves(
    x: Sequence[float],
    series: Mapping[str, Sequence[Any]],
    *,
    xlabel: str,
    ylabel: str = "accuracy",
    rates: bool = True,
    chance: float | None = None,
    title: str | None = None,
    log: bool = False,
) -> Figure:
    """Lines over `x` with a band from low to high.

    Args:
        x: ``[N]`` finite numbers, for instance eps.
        series: Line name to ``[N]`` rates or numbers; None leaves a gap.
        xlabel: Below the axes.
        ylabel: Beside them.
        rates: Values lie in [0, 1] and are shown in percent.
        chance: Rate of a guess, drawn as a dashed line.
        title: Above the axes.
        log: Whether equal ratios of `x` stand equally far apart, with a tick at each `x`; where
            there are many, not each has its number.

    Returns:
        The figure.

    Raises:
        ValueError: An `x` that is not finite (or, with `log`, not above 0), or a line of another
            length.
    """
    where = np.asarray(x, dtype=float)
    if where.ndim != 1 or not np.isfinite(where).all() or (log and not (where > 0).all()):
        kind = "finite numbers above 0" if log else "finite numbers"
        raise ValueError(f"x: must be a list of {kind}, not {x!r}")
    figure = style.new_figure(6.6, 4.2)
    axes = figure.add_subplot()
    marks, dashes = "osD^vP*", ("-", "--", "-.", ":")
    for index, (name, values) in enumerate(series.items()):
        if len(values) != len(where):
            raise ValueError(f"series[{name!r}]: {len(values)} values for {len(where)} of x")
        nothing = (np.nan, np.nan, np.nan)
        points = np.array([style.triple(value) or nothing for value in values])
        colour = style.PALETTE[index % len(style.PALETTE)]
        axes.plot(
            where,
            points[:, 0],
            color=colour,
            marker=marks[index % len(marks)] if len(where) <= 25 else "",
            markersize=5,
            linestyle=dashes[index % len(dashes)],
            linewidth=1.8,
            label=name,
            clip_on=False,
            zorder=3,
        )
        axes.fill_between(where, points[:, 1], points[:, 2], color=colour, alpha=0.18, linewidth=0)
    if chance is not None:
        axes.axhline(chance, color=style.INK, linewidth=1, linestyle=(0, (5, 4)), label="chance")
    style.dress(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    if log:
        axes.set_xscale("log")
        step = -(-len(where) // _MOST_TICKS)
        words = [f"{value:,g}" if k % step == 0 else "" for k, value in enumerate(where)]
        axes.set_xticks(where, words)
        axes.set_xticks([], minor=True)
    if rates:
        axes.set_ylim(0, 1.02)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=style.PERCENT))
    if len(series) + (chance is not None) > 1:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=style.NORMAL)
    return figure


def frontier(
    series: Mapping[str, Mapping[str, tuple[Any, Any]]],
    *,
    xlabel: str = "accuracy under attack",
    ylabel: str = "accuracy",
    title: str | None = None,
) -> Figure:
    """Points with intervals both ways, joined in their order: what one rate costs of another.

    Args:
        series: Line name to point name to two rates, across and up. A point's name, for instance
            its eps, is written beside it.
        xlabel: Below the axes.
        ylabel: Beside them.
        title: Above the axes.

    Returns:
        The figure; its axes show only where the points are.

    Raises:
        ValueError: No line, or a line without points.
    """
    if not series or not all(series.values()):
        raise ValueError("series: must have at least one line, and each at least one point")
    figure = style.new_figure(6.6, 4.8)
    axes = figure.add_subplot()
    words: list[tuple[str, tuple[float, float], str]] = []
    for index, (name, points) in enumerate(series.items()):
        colour = style.PALETTE[index % len(style.PALETTE)]
        found = np.array([[style.triple(rate) for rate in pair] for pair in points.values()])
        middle, low, high = found[..., 0], found[..., 1], found[..., 2]
        axes.errorbar(
            middle[:, 0],
            middle[:, 1],
            xerr=np.stack([middle - low, high - middle])[..., 0],
            yerr=np.stack([middle - low, high - middle])[..., 1],
            color=colour,
            ecolor=(colour, 0.35),
            marker="osD^vP*"[index % 7],
            markersize=6,
            linestyle=("-", "--", "-.", ":")[index % 4],
            linewidth=1.4,
            label=name,
            zorder=3,
        )
        words += [(word, (x, y), colour) for word, (x, y) in zip(points, middle, strict=True)]
    style.dress(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=style.PERCENT))
    axes.margins(0.06)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=style.NORMAL)
    words_beside(figure, axes, words)
    return figure


def matrix(
    values: Any,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    xlabel: str = "target class",
    ylabel: str = "source class",
    barlabel: str = "rate",
    title: str | None = None,
) -> Figure:
    """A matrix of rates as a heat map, numbers in its cells where there is room.

    Args:
        values: ``[R, C]`` rates in [0, 1]; NaN where there is none, shown as a dash.
        row_names: ``[R]``.
        column_names: ``[C]``.
        xlabel: What the columns are.
        ylabel: What the rows are.
        barlabel: What the colour means.
        title: Above the axes.

    Returns:
        The figure.

    Raises:
        ValueError: `values` is not ``[R, C]``.
    """
    cells = np.asarray(values, dtype=float)
    rows, columns = len(row_names), len(column_names)
    if cells.shape != (rows, columns):
        raise ValueError(f"values: shape {cells.shape}, but {rows} row and {columns} column names")
    numbers = max(rows, columns) <= _MOST_NUMBERS
    cell = 0.56 if numbers else max(0.16, 0.56 * _MOST_NUMBERS / max(rows, columns))
    figure = style.new_figure(max(4.4, 2.4 + cell * columns), max(3.2, 1.6 + cell * rows))
    axes = figure.add_subplot()
    image = axes.imshow(cells, cmap="cividis", vmin=0, vmax=1, aspect="equal")
    axes.set_facecolor("#E9E9E9")  # shows through where a cell is NaN
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
        _write_cells(axes, cells)
    bar = figure.colorbar(
        image, ax=axes, shrink=0.85, format=PercentFormatter(1.0, symbol=style.PERCENT)
    )
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=style.NORMAL, length=0)
    bar.set_label(barlabel, fontsize=style.NORMAL)
    return figure


def _write_cells(axes: Any, cells: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(cells):
        known = bool(np.isfinite(value))
        axes.text(
            column,
            row,
            f"{100 * value:.0f}" if known else "–",
            ha="center",
            va="center",
            fontsize=style.NORMAL,
            # cividis runs from dark blue to yellow; here white and black contrast alike
            color="white" if known and value < 0.47 else "black",
        )
