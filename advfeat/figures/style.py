"""What all figures share: colours, fonts, axes, saving."""

from __future__ import annotations

import io
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from advfeat.files import write_bytes
from advfeat.stats import Estimate

DPI = 150
SMALL, NORMAL, LARGE = 9.5, 10.5, 12.0  # points

# Okabe and Ito (2008): told apart under the common forms of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ORIGINAL, NEW = PALETTE[0], PALETTE[1]  # the human label, the label an attack aimed at
# Controls stay in the background: greys and washed-out hues of falling lightness, hatched.
MUTED = ("#D9D9D9", "#BFD3E6", "#E8CFA6", "#B3B3B3", "#C9B8D0", "#A9C4B4")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")
PERCENT = "\u00a0%"  # after a no-break space
INK, FAINT = "#222222", "#8A8A8A"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches, drawn by Agg."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, *, title: str | None, xlabel: str | None, ylabel: str | None) -> None:
    """Give axes the common look: no box, light horizontal grid, readable labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=NORMAL, colors=INK)
    for put, text in ((axes.set_xlabel, xlabel), (axes.set_ylabel, ylabel)):
        if text:
            put(text, fontsize=NORMAL, color=INK)
    if title:
        axes.set_title(title, fontsize=LARGE, color=INK, loc="left", pad=10)


def triple(value: Any) -> tuple[float, float, float] | None:
    """Mean, low and high of an estimate, also as a summary holds it; a number is its own interval.

    Example:
        >>> triple({"mean": 0.5, "low": 0.4, "high": 0.6, "n": 90}), triple(0.25), triple(None)
        ((0.5, 0.4, 0.6), (0.25, 0.25, 0.25), None)
    """
    if isinstance(value, Estimate):
        mean, low, high = value.mean, value.low, value.high
    elif isinstance(value, Mapping):
        mean, low, high = value["mean"], value["low"], value["high"]
    else:
        mean = low = high = value
    if mean is None or math.isnan(mean):
        return None
    low, high = (mean if b is None or math.isnan(b) else b for b in (low, high))
    return float(mean), float(low), float(high)


def save(figure: Figure, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write a figure as PNG; the same figure gives the same bytes.

    Args:
        figure: What one of the figure functions returned.
        path: Where to; its folder must exist.

    Returns:
        `path`.
    """
    path = pathlib.Path(path)
    buffer = io.BytesIO()
    # "tight" so that no label is cut; no Software entry, which would name matplotlib's version.
    figure.savefig(
        buffer,
        format="png",
        dpi=DPI,
        bbox_inches="tight",
        pad_inches=0.12,
        metadata={"Software": None},
    )
    write_bytes(path, buffer.getvalue())
    return path
