"""Figures: what is drawn is what was given, and the files are readable pictures."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st
from matplotlib.colors import to_rgba
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image

from advfeat import figures
from advfeat.figures import lines, style

NAMES = ["airplane", "automobile", "bird", "cat", "deer"]
NAMES += ["dog", "frog", "horse", "ship", "truck"]


def rate(mean, spread=0.02):
    return {"mean": mean, "low": max(0.0, mean - spread), "high": min(1.0, mean + spread), "n": 99}


def texts(figure):
    found = [text.get_text() for text in figure.findobj(Text)]
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in found if text]


def example(**changes):
    rng = np.random.default_rng(0)
    original = rng.uniform(0.2, 0.8, (8, 8, 1))
    values = {
        "original": original,
        "perturbed": original + rng.choice([-0.04, 0.04], (8, 8, 1)),
        "label": "automobile",
        "new_label": "airplane",
        "networks": {
            "standard": (("automobile", 0.91), ("airplane", 0.99)),
            "robust": (("automobile", 0.88), ("truck", 0.42)),
        },
    }
    return figures.Example(**{**values, **changes})


GROUPS = {
    "D_rand": {"the set": rate(0.88), "unperturbed": rate(0.11), "noise": rate(0.12)},
    "D_det": {"the set": rate(0.52), "unperturbed": rate(0.002, 0.001), "noise": None},
}


FRONTIER = {
    "L2": {"0": (rate(0.1), rate(0.98)), "0.5": (rate(0.4), rate(0.97))},
    "L∞": {"0": (rate(0.2), rate(0.98)), "8/255": (rate(0.6), rate(0.9, 0.05))},
}


FIGURES = {
    "bars": lambda: figures.bars(GROUPS, chance=0.1, title="Bars"),
    "curves": lambda: figures.curves([0, 1], {"a": [rate(0.9), rate(0.1)]}, xlabel="eps"),
    "log": lambda: figures.curves(
        [40, 80, 2000], {"a": [rate(0.9)] * 3}, xlabel="images", log=True
    ),
    "frontier": lambda: figures.frontier(FRONTIER, title="Frontier"),
    "matrix": lambda: figures.matrix(np.eye(10), NAMES, NAMES),
    "many": lambda: figures.matrix(np.eye(40), NAMES * 4, NAMES * 4),
    "strip": lambda: figures.example_strip([example()] * 6, title="Strip"),
    "grid": lambda: figures.image_grid(np.zeros((5, 4, 4, 3)), NAMES[:5], columns=3),
}


@pytest.mark.slow_for("strip")
@pytest.mark.parametrize("name", FIGURES)
def test_files_are_pictures_of_the_same_bytes_each_time(tmp_path, name):
    paths = [figures.save(FIGURES[name](), tmp_path / f"{i}.png") for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as image:
        assert image.format == "PNG"
        assert image.info.get("Software") is None
        assert 400 <= image.width <= 2000
        assert 300 <= image.height <= 2400
        assert round(image.info["dpi"][0]) == style.DPI
        pixels = np.asarray(image.convert("L"))
    assert pixels.std() > 5  # not blank
    border = np.concatenate(
        [pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()]
    )
    assert border.min() == 255  # nothing is cut off at the edge


@pytest.mark.parametrize("name", FIGURES)
def test_all_words_are_large_enough(name):
    for text in FIGURES[name]().findobj(Text):
        if text.get_text().strip() and text.get_visible():
            assert text.get_fontsize() >= 9, text


def test_bars_stand_for_the_values():
    axes = figures.bars(GROUPS, chance=0.1).axes[0]
    heights = [bars[0].get_height() for bars in axes.containers if isinstance(bars, BarContainer)]
    assert heights == [0.88, 0.11, 0.12, 0.52, 0.002]
    intervals = [
        segment[:, 1]
        for container in axes.containers
        if isinstance(container, ErrorbarContainer)
        for segment in container[2][0].get_segments()
    ]
    given = [r for group in GROUPS.values() for r in group.values() if r]
    np.testing.assert_allclose(intervals, [[r["low"], r["high"]] for r in given])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["D_rand", "D_det"]
    written = texts(figures.bars(GROUPS, chance=0.1))
    assert {"88", "11", "12", "52", "0.2", "–", "chance (10 %)", "the set"} <= set(written)


@pytest.mark.parametrize("name", ["short", "apgd\ntargeted", "a name of many words"])
def test_names_below_the_bars_do_not_run_into_each_other(name):
    figure = figures.bars({f"{name}{i}": {"bar": 0.5} for i in range(9)})
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


HOSTILE = {
    "dollars": "$_5_6$",
    "prices": "5$ to 10$",
    "broken": "$\\frac{$",
    "escaped": "a\\$b^{",
    "hidden": "_hidden",
    "hebrew": "שלום",
    "absent": "猫 😀",
    "lines": "a\nb\tc",
    "bytes": "caf\udce9",
    "long": "great_white_shark_" * 20,
    "one": "x" * 300,
}
NAMED = {
    "bars": lambda n: figures.bars({n: {n: 0.5, f"{n}2": 0.4}, "b": {n: 0.5}}, title=n, ylabel=n),
    "curves": lambda n: figures.curves([0, 1], {n: [0.5, 0.4], "b": [1, 0]}, xlabel=n, ylabel=n),
    "frontier": lambda n: figures.frontier({n: {n: (0.5, 0.4)}}, xlabel=n, title=n),
    "matrix": lambda n: figures.matrix(np.eye(2), [n, "b"], [n, "b"], barlabel=n),
    "strip": lambda n: figures.example_strip(
        [example(label=n, new_label=f"{n}2", networks={n: ((n, 0.9), ("b", 0.8))}, note=n)]
    ),
    "grid": lambda n: figures.image_grid(np.zeros((2, 4, 4, 3)), [n, "b"]),
    "maps": lambda n: figures.map_grid(
        np.zeros((1, 4, 4, 3)), {n: np.zeros((1, 4, 4))}, labels=[n]
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("name", [n for n in HOSTILE if n not in ("long", "one")])
def test_text_from_data_is_drawn_as_it_is(kind, name):
    figure = NAMED[kind](HOSTILE[name])
    figure.draw_without_rendering()
    found = figure.findobj(Text)
    assert not any(text.get_parse_math() for text in found)
    whole = style.drawable(HOSTILE[name] if kind != "maps" else HOSTILE[name].replace("_", " "))
    parts = {part for part in re.split(r"\s+|\\t", whole) if part}
    drawn = " ".join(text.get_text() for text in found if text.get_visible())
    assert all(part in drawn for part in parts), (parts, drawn)


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("name", ["long", "one"])
def test_a_long_name_is_shortened_beside_what_it_names(kind, name):
    figure = NAMED[kind](HOSTILE[name])
    figure.draw_without_rendering()
    named = [
        t
        for axes in figure.axes
        for t in (*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts)
    ]
    named += [text for legend in figure.findobj(Legend) for text in legend.get_texts()]
    assert all(len(line) <= 60 for text in named for line in text.get_text().split("\n"))


def test_a_dollar_takes_its_room():
    def width(word):
        figure = figures.curves([0, 1], {"a": [0.5, 0.4]}, xlabel=word)
        figure.draw_without_rendering()
        return figure.axes[0].xaxis.label.get_window_extent().width

    assert width("5$ to 10$") > width("5 to 10") + 2


def test_names_that_no_font_can_draw_stay_apart():
    figure = figures.matrix(np.eye(2), ["猫", "犬"], ["猫", "犬"])
    figure.draw_without_rendering()
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["\\u732b", "\\u72ac"]


def test_ten_lines_are_told_apart():
    figure = figures.curves([0, 1], {f"line {i}": [i / 9, 1] for i in range(10)}, xlabel="eps")
    lines = figure.axes[0].get_lines()
    for look in (lambda line: line.get_color(), lambda line: line.get_marker()):
        assert len({look(line) for line in lines}) == 10
    dashes = [style.line_style(i)["linestyle"] for i in range(10)]
    assert all(one != other for one, other in itertools.pairwise(dashes))
    looks = [tuple(map(str, style.line_style(i).values())) for i in range(50)]
    assert len(set(looks)) == 50


def test_lines_on_one_another_are_all_seen():
    values = [0.1, 0.5, 0.8, 0.85]
    series = {"a": values, "b": values, "far": [0.1, 0.2, 0.3, 0.4], "c": values}
    figure = figures.curves([1, 2, 3, 4], series, xlabel="epochs", chance=0.1)
    a, b, far, c, _ = figure.axes[0].get_lines()
    assert a.get_linewidth() > b.get_linewidth() > c.get_linewidth() == far.get_linewidth()
    assert a.get_markersize() > b.get_markersize() > c.get_markersize()
    figure.draw_without_rendering()
    names = {legend.get_texts()[0].get_text(): legend for legend in figure.findobj(Legend)}
    boxes = [names[name].get_window_extent() for name in ("a", "b", "c", "far", "chance")]
    assert all(one.y0 >= other.y1 - 1 for one, other in itertools.pairwise(boxes))
    assert all(box.x0 > figure.axes[0].get_window_extent().x1 for box in boxes)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.07)), min_size=1, max_size=14))
def test_names_at_the_ends_keep_their_order_and_their_room(given_):
    wanted, sizes = map(np.array, zip(*given_, strict=True))
    places = lines._apart(wanted, sizes)
    order = np.argsort(-wanted, kind="stable")
    top, bottom = (places + sizes / 2)[order], (places - sizes / 2)[order]
    assert (top[1:] <= bottom[:-1] + 1e-9).all()
    assert top[0] <= 1 + 1e-9
    assert bottom[-1] >= -1e-9
    if len(wanted) == 1 and sizes[0] / 2 <= wanted[0] <= 1 - sizes[0] / 2:
        assert places[0] == pytest.approx(wanted[0])


def test_whole_numbers_have_whole_ticks():
    for end in (3, 8, 20):
        epochs = list(range(1, end))
        figure = figures.curves(epochs, {"a": [0.5] * len(epochs)}, xlabel="epochs")
        figure.draw_without_rendering()
        ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert ticks
        assert all(tick.replace("−", "-").lstrip("-").isdecimal() for tick in ticks)


@pytest.mark.slow
def test_a_marked_figure_says_so_and_is_itself_afterwards(tmp_path):
    def saved(name):
        figure = FIGURES["bars"]()
        content = figures.save(figure, tmp_path / name).read_bytes()
        assert "dry run" not in texts(figure)  # the mark is in the file alone
        return content

    plain = saved("a.png")
    with figures.marked("dry run"):
        assert saved("b.png") != plain
        with figures.marked(""):
            assert saved("c.png") == plain
        with pytest.raises(FileNotFoundError):
            saved("none/d.png")
    assert saved("e.png") == plain


def test_strip_calls_the_classes_as_told_and_notes_the_attack():
    image = np.zeros((2, 2, 1))
    says = {"net": (("8", 0.9), ("7", 0.8))}
    example = figures.Example(
        original=image, perturbed=image, label="8", new_label="7", networks=says, note="apgd_ce"
    )
    strip = figures.example_strip([example], names=("true class", "taken for"))
    assert {"true class: 8", "taken for: 7", "apgd_ce"} <= set(texts(strip))


def test_the_result_stands_out_and_a_control_keeps_its_colour():
    colours = [patch.get_facecolor() for patch in figures.bars(GROUPS).axes[0].patches]
    assert colours[0] == colours[3] == to_rgba(style.PALETTE[0])
    assert colours[1] == colours[4] == to_rgba(style.MUTED[0])
    assert colours[2] == to_rgba(style.MUTED[1])


@pytest.mark.parametrize("groups", [{}, {"a": {}}])
def test_bars_need_something_to_show(groups):
    with pytest.raises(ValueError, match="groups"):
        figures.bars(groups)


def test_curves_stand_for_the_values():
    rates = [rate(0.9), None, rate(0.1)]
    figure = figures.curves(
        [0, 0.5, 2], {"a": rates, "b": [1.0, 0.5, 0.25]}, xlabel="eps", chance=0.1
    )
    axes = figure.axes[0]
    a, b, chance = axes.get_lines()
    np.testing.assert_array_equal(a.get_xdata(), [0, 0.5, 2])
    np.testing.assert_array_equal(a.get_ydata(), [0.9, np.nan, 0.1])
    np.testing.assert_array_equal(b.get_ydata(), [1.0, 0.5, 0.25])
    assert set(chance.get_ydata()) == {0.1}
    band = axes.collections[0].get_datalim(axes.transData)
    np.testing.assert_allclose([band.y0, band.y1], [0.08, 0.92])
    figure.draw_without_rendering()  # makes the ticks' labels
    assert {"a", "b", "chance", "eps", "100 %"} <= set(texts(figure))


def test_equal_ratios_stand_equally_far_apart():
    figure = figures.curves([40, 80, 1280], {"a": [0.1, 0.2, 0.3]}, xlabel="images", log=True)
    axes = figure.axes[0]
    figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["40", "80", "1,280"]
    places = axes.transData.transform([(x, 0.5) for x in (40, 80, 320, 1280)])[:, 0]
    assert places[3] - places[2] == pytest.approx(2 * (places[1] - places[0]))
    many = [2.0**k for k in range(13)]
    figure = figures.curves(many, {"a": many}, xlabel="images", rates=False, log=True)
    figure.draw_without_rendering()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
    with pytest.raises(ValueError, match="above 0"):
        figures.curves([0, 1], {"a": [1, 1]}, xlabel="images", log=True)


def test_frontier_stands_for_the_values():
    figure = figures.frontier(FRONTIER)
    axes = figure.axes[0]
    figure.draw_without_rendering()
    first, second = axes.containers
    np.testing.assert_allclose(first[0].get_xydata(), [(0.1, 0.98), (0.4, 0.97)])
    np.testing.assert_allclose(second[0].get_xydata(), [(0.2, 0.98), (0.6, 0.9)])
    across, up = (bars.get_segments() for bars in second[2])
    np.testing.assert_allclose(across[1], [(0.58, 0.9), (0.62, 0.9)])
    np.testing.assert_allclose(up[1], [(0.6, 0.85), (0.6, 0.95)])
    beside = {text.get_text(): text.xy for text in axes.texts}
    assert tuple(beside["8/255"]) == (0.6, 0.9)
    assert {"L2", "L∞", "0", "0.5", "8/255"} <= set(texts(figure))


@pytest.mark.parametrize("series", [{}, {"L2": {}}])
def test_frontier_needs_something_to_show(series):
    with pytest.raises(ValueError, match="series"):
        figures.frontier(series)


@pytest.mark.parametrize(
    ("x", "values", "name"), [([0, math.inf], [1, 1], "x"), ([0, 1], [1], "series")]
)
def test_curves_refuse(x, values, name):
    with pytest.raises(ValueError, match=name):
        figures.curves(x, {"a": values}, xlabel="eps")


def test_matrix_has_the_values_in_its_cells():
    values = np.array([[np.nan, 0.25], [0.5, 1.0], [0.0, 0.125]])
    figure = figures.matrix(values, NAMES[:3], NAMES[:2])
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), values)
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {
        (0, 0): "–",
        (1, 0): "25",
        (0, 1): "50",
        (1, 1): "100",
        (0, 2): "0",
        (1, 2): "12",
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES[:3]


def test_a_large_matrix_has_no_numbers_and_no_crowded_names():
    axes = figures.matrix(np.eye(40), NAMES * 4, NAMES * 4).axes[0]
    assert len(axes.texts) == 0
    figure = axes.get_figure()
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(one.y0 > other.y1 for one, other in itertools.pairwise(boxes))


def test_a_matrix_says_of_how_many_its_rates_are():
    values = np.array([[np.nan, 0.25], [0.5, 1.0]])
    counts = np.array([[0, 4], [1200, 3]])
    intervals = np.array([[[np.nan] * 2, [0.046, 0.699]], [[0.47, 0.53], [np.nan] * 2]])
    axes = figures.matrix(values, "ab", "ab", counts=counts, intervals=intervals).axes[0]
    cells = {}
    for text in axes.texts:
        column, row = (round(place) for place in text.get_position())
        cells[row, column] = [*cells.get((row, column), []), text.get_text()]
    assert cells == {
        (0, 0): ["–"],
        (0, 1): ["25", "[5, 70]\nof 4"],
        (1, 0): ["50", "[47, 53]\nof 1,200"],
        (1, 1): ["100", "of 3"],
    }
    with pytest.raises(ValueError, match=r"counts: shape \(2,\)"):
        figures.matrix(values, "ab", "ab", counts=[1, 2])
    with pytest.raises(ValueError, match="intervals"):
        figures.matrix(values, "ab", "ab", intervals=values)


def test_matrix_refuses_names_that_do_not_fit():
    with pytest.raises(ValueError, match="values"):
        figures.matrix(np.eye(3), NAMES[:3], NAMES[:2])


def test_strip_shows_original_plus_magnified_equals_perturbed():
    shown = example()
    figure = figures.example_strip([shown], norm="linf")
    before, middle, after = (axes.images[0].get_array() for axes in figure.axes)
    np.testing.assert_allclose(before, shown.original[..., 0])
    np.testing.assert_allclose(after, shown.perturbed[..., 0])
    words = texts(figure)
    (factor,) = (int(m[1]) for w in words if (m := re.match(r"\+ 1/(\d+) ×", w)))
    assert f"perturbation × {factor}\n(grey: no change)" in words
    np.testing.assert_allclose(before + (middle - 0.5) / factor, after, atol=1e-6)
    assert {"human label: automobile", "standard: automobile (91 %)"} <= set(words)
    new = {"new label: airplane", "standard: airplane (99 %)", "robust: truck (42 %)"}
    assert new <= set(words)
    assert {"=", "L∞ norm = 0.04"} <= set(words)


def test_photographs_are_drawn_smoothly_and_have_a_factor_of_their_own():
    rng = np.random.default_rng(0)
    image = rng.uniform(0.2, 0.8, (32, 32, 3))
    photograph = example(
        original=image, perturbed=image + rng.choice([-0.009, 0.009], image.shape), smooth=True
    )
    figure = figures.example_strip([photograph, example()])
    kinds = [axes.images[0].get_interpolation() for axes in figure.axes]
    assert kinds == ["bicubic"] * 3 + ["nearest"] * 3
    words = texts(figure)
    assert {"perturbation\n(grey: no change)", "+ 1/50 ×", "+ 1/10 ×"} <= set(words)
    assert any(word.endswith(", shown × 50") for word in words)


def test_strip_colours_say_whose_label_it_is():
    figure = figures.example_strip([example()])
    colours = {
        t.get_text().split(" ")[1]: t.get_color()
        for axes in figure.axes
        for t in axes.texts
        if t.get_text().startswith(("standard", "robust"))
    }
    assert colours == {"automobile": style.ORIGINAL, "airplane": style.NEW, "truck": style.INK}


def test_strip_takes_bytes_and_colour():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    axes = figures.example_strip([example(original=image, perturbed=image)]).axes
    np.testing.assert_allclose(axes[0].images[0].get_array(), image / 255)
    np.testing.assert_allclose(axes[1].images[0].get_array(), 0.5)


@pytest.mark.parametrize(
    ("examples", "options", "name"),
    [
        ([], {}, "examples"),
        ([example()] * 7, {}, "examples"),
        ([example(original=np.zeros((8, 8)))], {}, "image"),
        ([example(original=np.full((8, 8, 1), 2.0))], {}, "image"),
        ([example(original=np.full((8, 8, 1), np.nan))], {}, "image"),
        ([example()], {"norm": "l7"}, "norm"),
    ],
)
def test_strip_refuses(examples, options, name):
    with pytest.raises(ValueError, match=name):
        figures.example_strip(examples, **options)


@given(st.floats(2e-4, 1))
def test_magnified_perturbations_stay_visible(size):
    factor = figures.magnification([-size, size])
    assert factor * size <= 0.5 or factor == 1
    assert factor * size > 0.19  # the next factor, at most 2.5 times this, would not have fitted


def test_grid_shows_every_image_once():
    images = np.linspace(0, 1, 5).reshape(5, 1, 1, 1) * np.ones((5, 4, 4, 1))
    figure = figures.image_grid(images, NAMES[:5], columns=3)
    drawn = [axes for axes in figure.axes if axes.images]
    assert [float(axes.images[0].get_array().mean()) for axes in drawn] == [0, 0.25, 0.5, 0.75, 1]
    assert [axes.get_title() for axes in drawn] == NAMES[:5]
    with pytest.raises(ValueError, match="titles"):
        figures.image_grid(images, NAMES)
    with pytest.raises(ValueError, match="images"):
        figures.image_grid([])


@pytest.mark.slow
def test_no_global_state():
    code = "import advfeat.figures, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Maps. ----------------------------------------------------------------------------------------


def test_displays_by_hand():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 5, 3)) * [1, 10, 0] + [0, 5, 7]
    shown = figures.three_sigma(values)
    wanted = (values[..., 1] - values[..., 1].mean()) / (3 * values[..., 1].std()) + 0.5
    np.testing.assert_allclose(shown[..., 1], np.clip(wanted, 0, 1))
    np.testing.assert_array_equal(shown[..., 2], 0.5)  # a constant is grey
    for constant in (0.1, 0.7, 1e8):  # also where the mean is rounded
        np.testing.assert_allclose(figures.three_sigma(np.full((32, 32, 3), constant)), 0.5)
    size = np.abs(values).sum(-1)
    found = figures.magnitude(values)
    np.testing.assert_allclose(found, np.clip(size / np.percentile(size, 99), 0, 1))
    red, white, blue = figures.signed(np.array([[2.0, 0.0, -2.0]]))[0]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    np.testing.assert_allclose(white, 1, atol=0.05)
    for display in figures.DISPLAYS.values():
        for flat in (np.zeros((4, 4)), np.full((4, 4, 3), 2.0)):
            assert np.isfinite(display(flat)).all()
        with pytest.raises(ValueError, match="finite"):
            display(np.full((2, 2), np.nan))
        with pytest.raises(ValueError, match="must be"):
            display(np.zeros(3))


def test_a_grid_of_maps_has_a_column_per_method():
    images = np.zeros((2, 4, 4, 3))
    maps = {"gradient": np.ones((2, 4, 4, 3)), "grad_cam": np.ones((2, 4, 4))}
    grid = figures.map_grid(images, maps, display="heat", labels=["cat", "dog"])
    assert [axes.get_title() for axes in grid.axes[:3]] == ["image", "gradient", "grad cam"]
    assert [axes.get_ylabel() for axes in grid.axes[::3]] == ["cat", "dog"]
    with pytest.raises(ValueError, match="display: must be one of three_sigma"):
        figures.map_grid(images, maps, display="rainbow")
    with pytest.raises(ValueError, match="gradient has 2 for 1 images"):
        figures.map_grid(images[:1], maps)
