"""Line charts: curves with bands, and trade-off curves of two rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy import optimize

from advfeat.figures import style
from advfeat.figures.words import words_beside

_MOST_TICKS = 9  # more four-digit numbers do not fit side by side
_MOST_ENDS = 14  # number of names that fit above one another
_END_LETTERS = 24
_End = tuple[str, Line2D, tuple[float, float]]  # a line's name, the line, and its end point


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
    """Draws lines over `x` with a band from low to high, each labelled at its end.

    Up to ten lines differ in colour and marker, and neighbours in dashes; where lines coincide, the
    lower one is drawn wider.

    Args:
      x: `[N]` finite numbers, for instance eps; integers get integer ticks.
      series: line name to `[N]` estimates or numbers; None leaves a gap.
      xlabel: label of the horizontal axis.
      ylabel: label of the vertical axis.
      rates: whether values lie in [0, 1] and are shown in per cent.
      chance: chance level, drawn as a dashed line.
      title: title above the axes.
      log: whether `x` is on a logarithmic scale, with a tick at each `x`; if there are many, some
        ticks have no number.

    Returns:
      The figure.

    Raises:
      ValueError: if an `x` is not finite (or, with `log`, not positive), or a line's length differs
        from that of `x`.
    """
    where = np.asarray(x, dtype=float)
    if where.ndim != 1 or not np.isfinite(where).all() or (log and not (where > 0).all()):
        kind = "finite numbers above 0" if log else "finite numbers"
        raise ValueError(f"x: must be a list of {kind}, not {x!r}")
    for name, values in series.items():
        if len(values) != len(where):
            raise ValueError(f"series[{name!r}]: {len(values)} values for {len(where)} of x")
    nothing = (np.nan, np.nan, np.nan)
    points = {
        name: np.array([style.triple(value) or nothing for value in values]).reshape(-1, 3)
        for name, values in series.items()
    }
    figure = style.new_figure(7.4, 4.2)
    axes = figure.add_subplot()
    above = _lines_above([found[:, 0] for found in points.values()])
    ends: list[_End] = []
    step = 2.4 if len(points) <= 4 else 1.0  # wide lines would hide the others if there are many
    for index, (name, found) in enumerate(points.items()):
        look = style.line_style(index)
        if len(where) > 25:
            look["marker"] = ""
        width, size = 1.8 + step * above[index], 5 + 1.25 * step * above[index]
        (line,) = axes.plot(
            where,
            found[:, 0],
            **look,
            linewidth=width,
            markersize=size,
            label=name,
            clip_on=False,
            zorder=3,
        )
        axes.fill_between(
            where, found[:, 1], found[:, 2], color=look["color"], alpha=0.18, linewidth=0
        )
        there = np.flatnonzero(np.isfinite(found[:, 0]))
        if len(there):
            ends.append((name, line, (where[there[-1]], found[there[-1], 0])))
    if chance is not None:
        line = axes.axhline(
            chance, color=style.INK, linewidth=1, linestyle=(0, (5, 4)), label="chance"
        )
        ends.append(("chance", line, (where[-1], chance)))
    style.dress(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    axes.margins(x=0.02)
    if log:
        axes.set_xscale("log")
        step = -(-len(where) // _MOST_TICKS)
        words = [f"{value:,g}" if k % step == 0 else "" for k, value in enumerate(where)]
        axes.set_xticks(where, words)
        axes.set_xticks([], minor=True)
    elif (where == np.round(where)).all():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if rates:
        axes.set_ylim(0, 1.02)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=style.PERCENT))
    if len(ends) > _MOST_ENDS:
        style.legend(figure, [line for _, line, _ in ends], [name for name, _, _ in ends])
    elif len(ends) > 1:
        _name_ends(figure, axes, ends)
    return figure


def _lines_above(lines: Sequence[np.ndarray]) -> list[int]:
    """Counts for each line how many later ones coincide with it, at most three."""
    reach = np.concatenate(lines) if lines else np.zeros(0)
    near = 0.012 * float(np.nanmax(reach) - np.nanmin(reach)) if np.isfinite(reach).any() else 0.0
    counts = []
    for index, line in enumerate(lines):
        along = [bool(np.mean(np.abs(line - other) <= near) >= 0.5) for other in lines[index + 1 :]]
        counts.append(min(3, sum(along)))
    return counts


def _name_ends(
    figure: Figure, axes: Axes, ends: Sequence[tuple[str, Line2D, tuple[float, float]]]
) -> None:
    """Draws each line's sample and name to the right of its end, without overlap."""
    low, high = axes.get_ylim()
    height = 0.8 * 72 * figure.get_size_inches()[1]  # approximately, in points
    names = [style.fold(name, _END_LETTERS, lines=2) for name, _, _ in ends]
    sizes = np.array([13.5 * (1 + name.count("\n")) + 2 for name in names]) / height
    wanted = np.array([(end - low) / (high - low) for _, _, (_, end) in ends])
    for index, place in enumerate(_apart(wanted, sizes)):
        _, line, end = ends[index]
        axes.annotate(
            "",
            end,
            (1.03, place),
            xycoords="data",
            textcoords="axes fraction",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "linewidth": 0.8,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        sample = Line2D([], [])
        sample.update_from(line)
        sample.set(linewidth=1.8, markersize=5)
        name = Legend(
            axes,
            [sample],
            [""],
            loc="center left",
            bbox_to_anchor=(1.03, place),
            frameon=False,
            fontsize=style.NORMAL,
            borderpad=0,
            borderaxespad=0,
            handlelength=2.6,
        )
        style.put_names(name, [names[index]])
        axes.add_artist(name)


def _apart(wanted: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Moves places apart, in the same order and as little as possible, to make room for each size.

    Example:
      >>> _apart(np.array([0.5, 0.5, 0.0]), np.array([0.1, 0.1, 0.1])).round(3).tolist()
      [0.55, 0.45, 0.05]
    """
    order = np.argsort(-wanted, kind="stable")  # from the top; ties in drawing order
    before = np.cumsum(sizes[order]) - sizes[order] / 2  # places if packed without gaps
    # The nearest non-overlapping places in that order: isotonic regression of the remaining
    # offsets.
    left = optimize.isotonic_regression(-wanted[order] - before, increasing=True).x
    least, most = -1.0, -float(sizes.sum())
    places = np.clip(left, least, max(least, most)) + before
    found = np.empty_like(wanted)
    found[order] = -places
    return found


def frontier(
    series: Mapping[str, Mapping[str, tuple[Any, Any]]],
    *,
    xlabel: str = "accuracy under attack",
    ylabel: str = "accuracy",
    title: str | None = None,
) -> Figure:
    """Draws a trade-off curve with error bars on both axes.

    Args:
      series: line name to point name to two rates, horizontal and vertical. A point's name, for
        instance its eps, is written beside it.
      xlabel: label of the horizontal axis.
      ylabel: label of the vertical axis.
      title: title above the axes.

    Returns:
      The figure; its axes are limited to the range of the points.

    Raises:
      ValueError: if there is no line, or a line has no points.
    """
    if not series or not all(series.values()):
        raise ValueError("series: must have at least one line, and each at least one point")
    figure = style.new_figure(6.6, 4.8)
    axes = figure.add_subplot()
    drawn_lines: list[Any] = []
    words: list[tuple[str, tuple[float, float], str]] = []
    for index, (name, points) in enumerate(series.items()):
        look = style.line_style(index)
        colour = look["color"]
        found = np.array([[style.triple(rate) for rate in pair] for pair in points.values()])
        middle, low, high = found[..., 0], found[..., 1], found[..., 2]
        drawn = axes.errorbar(
            middle[:, 0],
            middle[:, 1],
            xerr=np.stack([middle - low, high - middle])[..., 0],
            yerr=np.stack([middle - low, high - middle])[..., 1],
            color=colour,
            ecolor=(colour, 0.35),
            marker=look["marker"],
            markersize=6,
            linestyle=look["linestyle"],
            linewidth=1.4,
            label=name,
            zorder=3,
        )
        drawn_lines.append(drawn)
        words += [
            (style.short(word, 24), (x, y), colour)
            for word, (x, y) in zip(points, middle, strict=True)
        ]
    style.dress(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=style.PERCENT))
    axes.margins(0.06)
    style.legend(figure, drawn_lines, list(series))
    words_beside(figure, axes, words)
    return figure
