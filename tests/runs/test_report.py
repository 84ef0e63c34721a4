"""The report: what is given stands in it, and a real browser shows it whole."""

from __future__ import annotations

import dataclasses
import html
import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import types

import numpy as np
import pytest
from PIL import Image

from advfeat import figures
from advfeat.runs import report
from advfeat.runs.report import Picture, Section, Table, write_report
from advfeat.stats import Claim, Estimate

RATE = {"mean": 0.878, "low": 0.86, "high": 0.894, "n": 360}
FINDINGS = ["D_rand gives 87.8 % where its control gives 11 %.", "Trust <nobody> & nothing."]
MEASURED = Estimate(0.878, 0.86, 0.894, 360)
GAIN = Estimate(0.768, 0.73, 0.802, 360, unit="points")
VERDICTS = {
    "holds": "yes",
    "the other way": "no",
    "no effect above 5 points": "none",
    "not decidable at this size": "open",
}
CLAIMS = [
    Claim(
        f"claim {verdict}",
        MEASURED,
        Estimate(0.1, 0.07, 0.14, 360),
        GAIN,
        0.05,
        (0.01, 1.0, 1.0),
        verdict,
    )
    for verdict in VERDICTS
]
RECORD = {
    "flags": {"eps": 0.5, "seeds": [0, 1], "classes": None, "epochs": None, "dry_run": False},
    "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": None},
    "devices": {"platform": "cpu", "kinds": ["cpu"], "count": 1, "cpus": 2, "system": "Linux"},
    "revision": "abc123",
    "started": "2026-01-01T00:00:00+00:00",
}
VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclasses.dataclass
class Run:
    """What a report needs of a run directory."""

    folder: pathlib.Path
    flags: dict = dataclasses.field(default_factory=dict)
    command: str = "python -m experiments.mislabeled --workdir=runs/a"

    @property
    def report(self):
        return self.folder / "report.html"

    def figure(self, name):
        return self.folder / f"{name}.png"

    def record(self):
        return {**RECORD, "flags": {**RECORD["flags"], **self.flags}}

    def cost(self):
        return {"wall_seconds": 203.4, "peak_memory_bytes": 1_900_000_000}


def write(folder, claims=CLAIMS, run=None, **changes):
    figure = figures.bars({"D_rand": {"the set": RATE, "control": 0.11}})
    values = {
        "title": "Mislabelled data",
        "sentence": "Do networks learn from images that look mislabelled? They do.",
        "lead": Picture("bars", figure, alt="the lead", caption="The figure that shows it."),
        "terms": {"D_rand": "images whose new label was drawn.", "eps": "how far a pixel may go."},
        "recipe": {"epochs": 60, "fresh networks": {"model": "cnn", "learning_rate": 0.1}},
        "findings": FINDINGS,
        "introduction": "What was done.",
        "sections": [
            Section(
                "Accuracy",
                [
                    "Some words.",
                    Table(
                        caption="On the original test set",
                        columns=["set", *(f"column {i}" for i in range(12))],
                        rows=[["D_rand", *[RATE] * 12], ["D_det", *[None] * 11, 3]],
                    ),
                    Picture("bars", figure, alt='Bars of "accuracy"', caption="Higher is better."),
                ],
            )
        ],
    }
    return write_report(run or Run(folder), {"claims": claims}, **{**values, **changes})


@pytest.fixture
def page(tmp_path):
    return write(tmp_path)


class Reader(html.parser.HTMLParser):
    """Checks that tags close in order, and collects words and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.words, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    text = " ".join(" ".join(reader.words).replace("\N{NO-BREAK SPACE}", " ").split())
    return text, reader.attributes


def test_everything_given_is_there_and_findings_come_first(page):
    text, attributes = read(page)
    for part in [
        *FINDINGS,
        "What was done.",
        "Some words.",
        "On the original test set",
        "87.8 % [86.0, 89.4]",
        "Higher is better.",
        "–",
        "python -m experiments.mislabeled --workdir=runs/a",
        "3 min 23 s",
        "1.90 GB",
        "1 × cpu, 2 CPU cores",
        "abc123",
        "python 3.11.7, jax 0.10.2",
        "--seeds 0, 1",
        "--dry_run no",
        *VERDICTS,
        "+76.8 points [+73.0, +80.2]",
        "5 points",
        "(Holm)",
        "epochs 60",
        "fresh networks model cnn; learning rate 0.1",
    ]:
        assert part in text, part
    assert "flax" not in text  # what is not installed has no version
    order = [
        "They do.",
        "D_rand : images whose",
        "eps : how far",
        "The figure that shows it.",
        "What was found",
        FINDINGS[0],
        "What was done.",
        "claim holds",
        "Some words.",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    badges = [value for _, name, value in attributes if name == "class" and "badge " in value]
    assert badges == [f"badge {badge}" for badge in VERDICTS.values()]
    described = [value for tag, name, value in attributes if (tag, name) == ("img", "alt")]
    assert described == ["the lead", 'Bars of "accuracy"']


def test_a_flag_that_was_not_given_says_what_it_came_to_or_nothing(page):
    text, _ = read(page)
    assert "--epochs 60" in text
    assert "--classes" not in text
    assert "–" not in text.split(" Flags ")[1]


def test_a_dry_run_says_so_and_decides_nothing(tmp_path):
    page = write(tmp_path, run=Run(tmp_path, {"dry_run": True}))
    text, attributes = read(page)
    assert "<title>Dry run: Mislabelled data</title>" in page.read_text(encoding="utf-8")
    body = text.removeprefix("Dry run: Mislabelled data ")
    assert body.startswith("Dry run: ")
    assert "No number on this page means anything" in body
    assert "What was found" not in body
    assert "claim holds" in body
    assert not [v for _, n, v in attributes if n == "class" and ("badge" in v or v == "verdict")]
    for verdict in VERDICTS:
        assert body.count(verdict) == 1  # in the claim's own words


def test_claims_show_only_what_they_have(tmp_path):
    bare = [dataclasses.replace(CLAIMS[0], claim="it", margin=None, verdict=None)]
    text, attributes = read(write(tmp_path, claims=bare))
    assert "strongest control" in text
    assert {v for t, n, v in attributes if n == "data-head"} >= {"effect", "strongest control"}
    assert not {v for t, n, v in attributes if n == "data-head"} & {"counts as none below"}
    assert not [v for _, n, v in attributes if n == "class" and "badge" in v]


def test_it_is_self_contained_and_described(page):
    text = page.read_text(encoding="utf-8")
    _, attributes = read(page)
    sources = [value for _, name, value in attributes if name in ("src", "href")]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in text
    assert not re.search(r"https?://|@import|url\(", text)
    assert ("img", "alt", 'Bars of "accuracy"') in attributes
    assert ("html", "lang", "en") in attributes


HOSTILE = [
    "$_5_6$",
    "<b>&amp;",
    "_hidden",
    "</td>",
    "שלום",
    "猫 😀",
    "a\nb",
    '" onload="x',
    "caf\udce9",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_text_is_shown_as_it_is(tmp_path, name):
    table = Table(caption=name, columns=[name, name], rows=[(name, name)])
    picture = Picture("bars", figures.bars({"a": {"b": 0.5}}), alt=name, caption=name)
    page = write(
        tmp_path,
        run=Run(tmp_path, command=name),
        title=name,
        sentence=name,
        terms={name: name},
        findings=[name],
        lead=picture,
        introduction=name,
        recipe={"names": (name, name)},
        claims=[dataclasses.replace(CLAIMS[0], claim=name)],
        sections=[Section(name, [name, table, picture])],
    )
    text, attributes = read(page)
    shown = " ".join(name.encode("utf-8", "backslashreplace").decode().split())
    assert text.count(shown) == 20
    assert len([value for tag, key, value in attributes if (tag, key) == ("img", "alt")]) == 2
    assert {key for _, key, _ in attributes}.isdisjoint({"onload"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (RATE, "87.8 % [86.0, 89.4]"),
        ({"mean": 0.5, "low": None, "high": None, "n": 1}, "50.0 % [too few to tell]"),
        ({"mean": 2.0, "low": 1.5, "high": 2.5, "unit": "number"}, "2.000 [1.500, 2.500]"),
        (GAIN, "+76.8 points [+73.0, +80.2]"),
        (types.SimpleNamespace(**RATE, unit="rate"), "87.8 % [86.0, 89.4]"),
        (
            types.SimpleNamespace(mean=0.5, low=None, high=None, unit="number"),
            "0.500 [too few to tell]",
        ),
        ((RATE, None), "87.8 % [86.0, 89.4], –"),
        ({"mean": None, "low": None, "high": None, "n": 0}, "–"),
        ({"mean": float("nan"), "low": 0.0, "high": 1.0, "n": 0}, "–"),
        ({"mean": 1.0, "low": 0.99, "high": 1.0, "n": 9}, "100.0 % [99.0, 100.0]"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (np.float32(0.25), "0.25"),
        (float("inf"), "inf"),
        ("text", "text"),
    ],
)
def test_cells(value, text):
    assert report.format_cell(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_what_cannot_be_shown_is_refused(tmp_path):
    figure = figures.bars({"a": {"b": 0.5}})

    def write(block=None, claims=(), lead=None):
        sections = [Section("s", [block])] if block else []
        content = {"title": "t", "findings": [], "sections": sections, "lead": lead}
        write_report(Run(tmp_path), {"claims": claims}, **content)

    with pytest.raises(ValueError, match="alt"):
        write(Picture("a", figure, alt=" "))
    with pytest.raises(ValueError, match="'c'"):
        write(Table(caption="c", columns=("a", "b"), rows=[("only one",)]))
    with pytest.raises(ValueError, match="alt"):
        write(lead=Picture("a", figure, alt=" "))
    for verdict in ("maybe", "", "no effect above"):
        with pytest.raises(ValueError, match="verdict"):
            write(claims=[dataclasses.replace(CLAIMS[0], verdict=verdict)])
    assert not Run(tmp_path).report.exists()


# In a browser

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FRAME = """<!DOCTYPE html><meta charset="utf-8"><style>body {{ margin: 0 }}</style>
<iframe width="{width}" height="6000" style="border: 0" srcdoc="{page}"></iframe>
<script>addEventListener("load", () => {{
  const inner = document.querySelector("iframe"), page = inner.contentDocument;
  const wide = [...page.querySelectorAll("table")].map(e => e.closest(".scroll"))
    .filter(e => e).map(e => e.scrollWidth > e.clientWidth);
  const images = [...page.images].map(i => [i.naturalWidth, i.clientWidth]);
  const cards = [...page.querySelectorAll("tbody tr")].map(
    e => inner.contentWindow.getComputedStyle(e).display);
  const heads = [...page.querySelectorAll(".claims [data-head]")].map(
    e => inner.contentWindow.getComputedStyle(e, "::before").content);
  const width = page.documentElement.scrollWidth;
  document.title = JSON.stringify({{wide, images, cards, heads, width}});
}})</script>"""  # headless Chromium's own window is never narrower than 500


def browse(page, *options, folder):
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder}",
        "--enable-logging=stderr",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    return done.stdout


@pytest.mark.slow_for("390")
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_whole(page, tmp_path, width):
    framed = page.with_name("framed.html")
    inside = html.escape(page.read_text(encoding="utf-8"), quote=True)
    framed.write_text(FRAME.format(width=width, page=inside), encoding="utf-8")
    size = "--window-size=1280,1400"
    dom = browse(framed, size, "--virtual-time-budget=3000", "--dump-dom", folder=tmp_path / "p")
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom)[1]))
    assert "D_rand gives 87.8 % where its control gives 11 %." in dom
    assert len(found["images"]) == 2
    phone = width == 390
    # Moved sideways on a phone, never wider than it was drawn.
    most = 640 if phone else width
    assert all(0 < shown <= min(natural, most) for natural, shown in found["images"])
    assert all(shown >= min(natural, 400) for natural, shown in found["images"])
    assert found["width"] <= width  # the page itself never scrolls sideways
    assert found["wide"] == [False, not phone]  # but the table of thirteen columns, where it is one
    rows = len(CLAIMS) + 2
    assert found["cards"][:rows] == ["grid" if phone else "table-row"] * rows
    heads = ["effect", "strongest control", "difference", "counts as none below"] * len(CLAIMS)
    assert found["heads"] == ([f'"{head}"' for head in heads] if phone else ["none"] * len(heads))

    shot = tmp_path / "shot.png"
    browse(framed, size, f"--screenshot={shot}", folder=tmp_path / "p")
    with Image.open(shot) as image:
        assert image.size == (1280, 1400)
        pixels = np.asarray(image.convert("L"))[:, :width]
    assert pixels.std() > 10
    assert pathlib.Path(shot).stat().st_size > 10_000
