"""The common style of all figures: colours, fonts, axes, literal text, saving."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import io
import math
import os
import pathlib
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.legend import Legend
from matplotlib.text import Text

from advfeat.runs.files import write_bytes
from advfeat.stats.formats import field, is_estimate

DPI = 150
SMALL, NORMAL, LARGE = 9.5, 10.5, 12.0  # points
LETTER = 0.082  # approximate width in inches of a small letter

# Okabe and Ito (2008), distinguishable under the common forms of colour blindness; then three more
# of different lightness, so that ten lines have ten colours.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
    "#999933",
    "#7A7A7A",
)
MARKS = "osD^vP*X<>"
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (7, 2, 1.5, 2)),
    (0, (1.5, 1.5)),
    (0, (3, 1.5, 1, 1.5, 1, 1.5)),
)
ORIGINAL, NEW = PALETTE[0], PALETTE[1]  # the human label, the label an attack aimed at
# Controls stay in the background: greys and pale hues of decreasing lightness, hatched.
MUTED = ("#D9D9D9", "#BFD3E6", "#E8CFA6", "#B3B3B3", "#C9B8D0", "#A9C4B4")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")
PERCENT = "\u00a0%"  # with a no-break space
INK, FAINT = "#222222", "#8A8A8A"


def line_style(index: int) -> dict[str, Any]:
    """Returns colour, marker and dashes of a line by its index; the first 50 combinations differ.

    Among ten consecutive indices, no two share a colour or a marker.

    >>> line_style(0)["color"] != line_style(7)["color"]
    True
    """
    count = len(PALETTE)
    return {
        "color": PALETTE[index % count],
        "marker": MARKS[index % len(MARKS)],
        "linestyle": DASHES[(index + index // count) % len(DASHES)],
    }


class _PlainFigure(Figure):
    """A figure that draws its text literally: "$" is a dollar sign, never mathematics.

    Text comes from data, such as the names of class folders. All of it passes through here.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draws the figure; ticks created while drawing are literal as well."""
        for text in self.findobj(Text):
            text.set_parse_math(False)  # type: ignore[attr-defined]
            text.set_text(drawable(text.get_text()))  # type: ignore[attr-defined]  # except ticks
        with matplotlib.rc_context({"text.parse_math": False}):
            super().draw(renderer)


def drawable(text: str) -> str:
    r"""Escapes characters without a glyph in the font, so that names stay distinguishable.

    The font is matplotlib's `font.family`, which may list several.

    Args:
      text: any string, including invalid Unicode.

    Example:
      >>> drawable("Größe $5$\nשלום"), drawable("\udce9\t")
      ('Größe $5$\nשלום', '\\udce9\\t')
    """
    known = _glyphs(tuple(matplotlib.rcParams["font.family"]))
    return "".join(
        each if each == "\n" or ord(each) in known else each.encode("unicode_escape").decode()
        for each in text
    )


@functools.lru_cache(maxsize=4)
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    files = {findfont(FontProperties(family=[family])) for family in families}
    return frozenset().union(*(get_font(file).get_charmap() for file in files))


def short(text: str, letters: int) -> str:
    """Shortens text to one line of at most `letters`, omitting its middle.

    >>> short("great white shark,\\nCarcharodon", 16), short(" cat", 16)
    ('great w…harodon', 'cat')
    """
    line = drawable(" ".join(text.split()))
    if len(line) <= letters:
        return line
    half = max(1, (letters - 1) // 2)
    return f"{line[:half]}…{line[-half:]}"


def fold(text: str, letters: int, lines: int = 3) -> str:
    """Folds text into at most `lines` lines of `letters`, keeping its own line breaks.

    >>> fold("a_name_of_many_letters", 12), fold("two\\nlines", 12)
    ('a_name_of_ma\\nny_letters', 'two\\nlines')
    """
    most = letters * lines
    parts = [textwrap.wrap(short(line, most), letters) or [""] for line in text.split("\n")]
    found = [line for part in parts for line in part]
    return "\n".join(found if len(found) <= lines else [*found[: lines - 1], f"…{found[-1]}"])


def legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> Legend:
    """Draws a legend below the axes in as many columns as fit, with any names."""
    shown = [short(name, 60) for name in names]
    widest = 0.6 + LETTER * max(len(name) for name in shown)
    columns = max(1, min(3, len(shown), int(figure.get_size_inches()[0] / widest)))
    made = figure.legend(
        list(handles),
        ["" for _ in shown],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=NORMAL,
    )
    put_names(made, shown)
    return made


def put_names(made: Legend, names: Sequence[str]) -> None:
    """Sets a legend's names afterwards: matplotlib would omit those that begin with "_"."""
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(name)


def new_figure(width: float, height: float) -> Figure:
    """Creates an empty figure of `width` × `height` inches, drawn by Agg, with literal text."""
    figure = _PlainFigure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, *, title: str | None, xlabel: str | None, ylabel: str | None) -> None:
    """Gives axes the common look: no box, light horizontal grid, readable labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=NORMAL, colors=INK)
    for put, text in ((axes.set_xlabel, xlabel), (axes.set_ylabel, ylabel)):
        if text:
            put(fold(text, 60), fontsize=NORMAL, color=INK)
    if title:
        axes.set_title(fold(title, 60), fontsize=LARGE, color=INK, loc="left", pad=10)


def triple(value: Any) -> tuple[float, float, float] | None:
    """Returns mean, low and high; a bare number is its own interval, None if missing.

    Args:
      value: an estimate (see `advfeat.stats.formats`), a number, or None.

    Example:
      >>> triple({"mean": 0.5, "low": 0.4, "high": 0.6, "n": 90}), triple(0.25), triple(None)
      ((0.5, 0.4, 0.6), (0.25, 0.25, 0.25), None)
    """
    if is_estimate(value):
        mean, low, high = (field(value, name) for name in ("mean", "low", "high"))
    else:
        mean = low = high = value
    if mean is None or math.isnan(mean):
        return None
    low, high = (mean if b is None or math.isnan(b) else b for b in (low, high))
    return float(mean), float(low), float(high)


_MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")


@contextlib.contextmanager
def marked(word: str) -> Iterator[None]:
    """Marks every figure saved in this context with a word across it; "" adds no mark.

    Args:
      word: for instance "dry run".

    Example:
      >>> import tempfile
      >>> with marked("dry run"):
      ...     path = save(new_figure(1, 1), tempfile.mkdtemp() + "/marked.png")
    """
    token = _MARK.set(word)
    try:
        yield
    finally:
        _MARK.reset(token)


def _put_mark(figure: Figure, word: str) -> Text:
    """Draws the word from corner to corner, transparent and on top."""
    width, height = figure.get_size_inches()
    size = 72 * min(0.9 * math.hypot(width, height) / (0.62 * len(word)), 0.6 * height, 0.6 * width)
    return figure.text(
        0.5,
        0.5,
        word,
        fontsize=size,
        rotation=math.degrees(math.atan2(height, width)),
        ha="center",
        va="center",
        color="#C0392B",
        alpha=0.28,
        zorder=1000,
        in_layout=False,
    )


def save(figure: Figure, path: str | os.PathLike[str]) -> pathlib.Path:
    """Saves a figure as PNG; equal figures give equal bytes.

    In the context of `marked` it bears that word.

    Args:
      figure: from one of the figure functions.
      path: the file; its folder must exist.

    Returns:
      `path`.
    """
    path = pathlib.Path(path)
    buffer = io.BytesIO()
    word = _MARK.get()
    mark = _put_mark(figure, word) if word else None
    try:
        # "tight" so that no label is cut off; no Software entry, which would name matplotlib's
        # version.
        figure.savefig(
            buffer,
            format="png",
            dpi=DPI,
            bbox_inches="tight",
            pad_inches=0.12,
            metadata={"Software": None},
        )
    finally:
        if mark is not None:
            mark.remove()
    write_bytes(path, buffer.getvalue())
    return path
