"""Image figures: "pig 91 % + 0.005 × perturbation = airliner 99 %", and grids."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advfeat.figures import style
from advfeat.threats.norms import title

_LETTERS = 29  # per line under an image of a strip; more would touch the next image's
_FACTORS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 200, 500, 1000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One row of `example_strip`.

    Attributes:
      original: `[H, W, C]`, uint8 or in [0, 1], C of 1 or 3.
      perturbed: like `original`.
      label: name of the class that a human sees.
      new_label: name of the class that the perturbation aimed at, or led to.
      networks: network name to its predictions for the original and the perturbed image, each a
        class name and a confidence in [0, 1].
      note: a line below the perturbation, for instance the name of the attack.
      smooth: whether to interpolate between pixels, as for photographs; otherwise pixels are
        square.
    """

    original: Any
    perturbed: Any
    label: str
    new_label: str
    networks: Mapping[str, tuple[tuple[str, float], tuple[str, float]]]
    note: str = ""
    smooth: bool = False


def magnification(perturbations: Any) -> int:
    """Returns the largest round factor that keeps nearly all magnified perturbations in range.

    Args:
      perturbations: differences of images in [0, 1], any shape.

    Returns:
      An integer factor, at least 1, such that 99.5 % of the magnified values lie within ±1/2.

    Example:
      >>> magnification(np.array([-8 / 255, 8 / 255])), magnification(np.zeros(3))
      (10, 1)
    """
    size = np.abs(np.asarray(perturbations, dtype=float))
    reach = float(np.quantile(size, 0.995)) if size.size else 0.0
    if reach == 0:
        return 1
    return max((factor for factor in _FACTORS if factor * reach <= 0.5), default=1)


def example_strip(
    examples: Sequence[Example],
    *,
    title: str | None = None,
    norm: str = "l2",
    names: tuple[str, str] = ("human label", "new label"),
) -> Figure:
    """Draws rows of original + perturbation = perturbed, with each network's predictions.

    Photographs (`Example.smooth`) and images with square pixels each have one common magnification
    of their perturbations. A class name has one colour if it is the human label and another if it
    is the new label, in every prediction.

    Args:
      examples: one to six of them.
      title: title above the strip.
      norm: norm of the perturbation written under it: "l2", "linf" or "l1".
      names: headings for an example's `label` and `new_label`.

    Returns:
      The figure.

    Raises:
      ValueError: for no example or more than six, images of different shapes, or an unknown norm.
    """
    if not 1 <= len(examples) <= 6:
        raise ValueError(f"examples: must be 1 to 6, not {len(examples)}")
    order, sign = _norm(norm)
    pairs = [(as_image(e.original), as_image(e.perturbed)) for e in examples]
    factors = _factors(examples, pairs)
    one = set(factors.values()) - {1}
    common = min(one) if len(factors) == len(one) == 1 else None
    magnified = "perturbation" if common is None else f"perturbation × {common}"
    heads = ("original", f"{magnified}\n(grey: no change)", "perturbed")
    lines = 1 + max(max(len(e.networks), len(e.note) > 0) for e in examples)
    strip = _Strip(len(examples), lines, title)
    for row, (example, (before, after)) in enumerate(zip(examples, pairs, strict=True)):
        factor = factors[example.smooth]
        size = np.linalg.norm((after - before).ravel(), order)
        many = f", shown × {factor}" if common is None and factor > 1 else ""
        shown = (before, np.clip(0.5 + factor * (after - before), 0, 1), after)
        notes = (
            _notes(example, names[0], example.label, 0),
            [
                (f"{sign} = {size:.3g}" + many, style.INK),
                (style.short(example.note, _LETTERS), style.INK),
            ],
            _notes(example, names[1], example.new_label, 1),
        )
        for column in range(3):
            axes = strip.panel(row, column)
            show(axes, shown[column], smooth=example.smooth)
            _below(axes, notes[column], bold=column != 1)
            if row == 0:
                axes.set_title(heads[column], fontsize=style.NORMAL, color=style.INK, pad=6)
        strip.symbol(row, 0, "+" if factor == 1 else f"+ 1/{factor} ×")
        strip.symbol(row, 1, "=")
    return strip.figure


def _factors(
    examples: Sequence[Example], pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[bool, int]:
    """Returns the magnification of photographs' perturbations, and of the others'."""
    moves: dict[bool, list[np.ndarray]] = {}
    for example, (before, after) in zip(examples, pairs, strict=True):
        moves.setdefault(example.smooth, []).append((after - before).ravel())
    return {smooth: magnification(np.concatenate(each)) for smooth, each in moves.items()}


class _Strip:
    """The figure of `example_strip`, whose panels are placed by hand, in inches."""

    side, gap, between, head = 1.55, 0.22, 0.95, 0.75

    def __init__(self, rows: int, lines: int, title: str | None):
        self._row = self.side + 0.19 * lines + 0.06 + self.gap
        self._width = 3 * self.side + 2 * self.between
        self._height = self.head + rows * self._row
        self.figure = style.new_figure(self._width, self._height)
        self.figure.set_layout_engine("none")
        if title:
            self.figure.text(0.02, 1 - 0.06 / self._height, title, fontsize=style.LARGE, va="top")

    def _at(self, row: int, left: float, down: float) -> tuple[float, float]:
        """Returns the place of a point of a row, in the figure's fractions."""
        top = self.head + row * self._row
        return left / self._width, 1 - (top + down) / self._height

    def panel(self, row: int, column: int) -> Axes:
        """Adds the axes of one image."""
        corner = self._at(row, column * (self.side + self.between), self.side)
        return self.figure.add_axes((*corner, self.side / self._width, self.side / self._height))

    def symbol(self, row: int, column: int, symbol: str) -> None:
        """Writes a symbol between the images of two columns."""
        left = column * (self.side + self.between) + self.side + self.between / 2
        place = self._at(row, left, self.side / 2)
        self.figure.text(*place, symbol, fontsize=12.5, ha="center", va="center", color=style.INK)


def _below(axes: Axes, lines: Sequence[tuple[str, str]], *, bold: bool) -> None:
    """Writes lines with their colours under an image, the first one bold."""
    for line, (words, colour) in enumerate(lines):
        axes.annotate(
            words,
            (0.5, 0),
            xycoords="axes fraction",
            xytext=(0, -4 - 13.5 * line),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=style.SMALL,
            fontweight="bold" if line == 0 and bold else "normal",
            color=colour,
        )


def _notes(example: Example, what: str, label: str, which: int) -> list[tuple[str, str]]:
    """Returns the lines under an image with their colours."""
    colours = {example.new_label: style.NEW, example.label: style.ORIGINAL}
    lines = [(f"{what}: {style.short(label, max(8, _LETTERS - len(what)))}", colours[label])]
    for network, says in example.networks.items():
        name, confidence = says[which]
        who = style.short(network, 16)
        said = style.short(name, max(8, _LETTERS - len(who) - 7))  # leaves room for the confidence
        colour = colours.get(name, style.INK)
        lines.append((f"{who}: {said} ({100 * confidence:.0f}{style.PERCENT})", colour))
    return lines


def image_grid(
    images: Sequence[Any],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    title: str | None = None,
) -> Figure:
    """Draws images in rows, each with a line above it.

    Args:
      images: `[N, H, W, C]` or a list of images, uint8 or in [0, 1].
      titles: `[N]`; None for no titles.
      columns: images per row.
      title: title above the grid.

    Returns:
      The figure.

    Raises:
      ValueError: for no image, or a wrong number of titles.
    """
    if len(images) == 0:
        raise ValueError("images: must be at least one")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles: {len(titles)} for {len(images)} images")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = style.new_figure(1.45 * columns + 0.2, (1.7 if titles else 1.45) * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for index, axes in enumerate(grid.ravel()):
        if index >= len(images):
            axes.set_axis_off()
            continue
        show(axes, as_image(images[index]))
        if titles is not None:
            axes.set_title(
                style.fold(titles[index], 18), fontsize=style.SMALL, color=style.INK, pad=4
            )
    if title:
        figure.suptitle(title, fontsize=style.LARGE, color=style.INK)
    return figure


def as_image(image: Any) -> np.ndarray:
    """Converts an image, possibly uint8, to floats `[H, W, C]` in [0, 1].

    Raises:
      ValueError: for another shape, or values outside [0, 1].
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise ValueError(f"image: must be [H, W, 1] or [H, W, 3], not {array.shape}")
    unit = array / 255.0 if array.dtype == np.uint8 else array.astype(float)
    if not np.isfinite(unit).all() or unit.min() < -1e-3 or unit.max() > 1 + 1e-3:
        raise ValueError("image: values must lie in [0, 1]")
    return np.clip(unit, 0, 1)


def show(axes: Axes, image: np.ndarray, *, smooth: bool = False) -> None:
    """Draws an image with square or interpolated pixels and a thin frame."""
    grey = image.shape[-1] == 1
    axes.imshow(
        image[..., 0] if grey else image,
        cmap="gray" if grey else None,
        vmin=0,
        vmax=1,
        interpolation="bicubic" if smooth else "nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#BBBBBB")


def _norm(name: str) -> tuple[float, str]:
    orders = {"l2": 2, "linf": np.inf, "l1": 1}
    if name not in orders:
        raise ValueError(f"norm: must be one of {', '.join(orders)}, not {name!r}")
    return orders[name], f"{title(name)} norm"
