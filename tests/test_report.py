"""The report: what is given stands in it, and a real browser shows it whole."""

from __future__ import annotations

import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from advfeat import figures, report
from advfeat.report import Picture, Section, Table, write_report

RATE = {"mean": 0.878, "low": 0.86, "high": 0.894, "n": 360}
FINDINGS = ["D_rand gives 87.8 % where its control gives 11 %.", "Trust <nobody> & nothing."]
CLAIMS = [
    {"claim": f"claim {verdict}", "effect": RATE, "control": 0.1, "verdict": verdict}
    for verdict in ("holds", "the other way", "not decidable at this size")
]
RECORD = {
    "flags": {"eps": 0.5, "seeds": [0, 1], "classes": None, "dry_run": True},
    "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": None},
    "devices": {"platform": "cpu", "kinds": ["cpu"], "count": 1, "cpus": 2, "system": "Linux"},
    "revision": "abc123",
    "started": "2026-01-01T00:00:00+00:00",
}
VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture
def page(tmp_path):
    figure = figures.bars({"D_rand": {"the set": RATE, "control": 0.11}})
    picture = figures.save(figure, tmp_path / "bars.png")
    return write_report(
        tmp_path / "report.html",
        title="Mislabelled data",
        findings=FINDINGS,
        introduction="What was done.",
        claims=CLAIMS,
        sections=[
            Section(
                "Accuracy",
                [
                    "Some words.",
                    Table(
                        caption="On the original test set",
                        columns=["set", *(f"column {i}" for i in range(12))],
                        rows=[["D_rand", *[RATE] * 12], ["D_det", *[None] * 11, 3]],
                    ),
                    Picture(path=picture, alt='Bars of "accuracy"', caption="Higher is better."),
                ],
            )
        ],
        command="python -m experiments.mislabeled --workdir=runs/a",
        record=RECORD,
        cost={"wall_seconds": 203.4, "peak_memory_bytes": 1_900_000_000},
    )


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
        *FINDINGS, "What was done.", "Some words.", "On the original test set",
        "87.8 % [86.0, 89.4]", "Higher is better.", "–",
        "python -m experiments.mislabeled --workdir=runs/a", "3 min 23 s", "1.90 GB",
        "1 × cpu, 2 CPU cores", "abc123", "python 3.11.7, jax 0.10.2", "--seeds 0, 1",
        "--dry_run yes", *(claim["verdict"] for claim in CLAIMS),
    ]:  # fmt: skip
        assert part in text, part
    assert "flax" not in text  # what is not installed has no version
    body = text.split("What was found")[1]
    assert body.index(FINDINGS[0]) < body.index("What was done.") < body.index("claim holds")
    badges = [value for _, name, value in attributes if name == "class" and "badge " in value]
    assert badges == ["badge yes", "badge no", "badge open"]


def test_it_is_self_contained_and_described(page):
    text = page.read_text(encoding="utf-8")
    _, attributes = read(page)
    sources = [value for _, name, value in attributes if name in ("src", "href")]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    assert "<script" not in text
    assert not re.search(r"https?://|@import|url\(", text)
    assert ("img", "alt", 'Bars of "accuracy"') in attributes
    assert ("html", "lang", "en") in attributes


def test_numbers_are_escaped_text(page):
    assert "<nobody>" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (RATE, "87.8 % [86.0, 89.4]"),
        ({"mean": 0.5, "low": None, "high": None, "n": 1}, "50.0 %"),
        ({"mean": None, "low": None, "high": None, "n": 0}, "–"),
        ({"mean": float("nan"), "low": 0.0, "high": 1.0, "n": 0}, "–"),
        ({"mean": 1.0, "low": 0.99, "high": 1.0, "n": 9}, "100.0 % [99.0, 100.0]"),
        (True, "yes"),
        (np.float32(0.25), "0.25"),
        (float("inf"), "inf"),
        ("text", "text"),
    ],
)
def test_cells(value, text):
    assert report.format_cell(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_what_cannot_be_shown_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"GIF89a, not a PNG file")

    def write(block=None, claims=()):
        sections = [Section("s", [block])] if block else []
        write_report(tmp_path / "r.html", title="t", findings=[], sections=sections, claims=claims)

    with pytest.raises(ValueError, match="alt"):
        write(Picture(path=tmp_path / "a.png", alt=" "))
    with pytest.raises(ValueError, match="not a PNG"):
        write(Picture(path=tmp_path / "a.png", alt="a"))
    with pytest.raises(FileNotFoundError):
        write(Picture(path=tmp_path / "none.png", alt="a"))
    with pytest.raises(ValueError, match="'c'"):
        write(Table(caption="c", columns=("a", "b"), rows=[("only one",)]))
    with pytest.raises(ValueError, match="verdict"):
        write(claims=[{**CLAIMS[0], "verdict": "maybe"}])
    assert not (tmp_path / "r.html").exists()


# In a browser

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MEASURE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll(".scroll")].map(e => e.scrollWidth > e.clientWidth);
  const images = [...document.images].map(i => [i.naturalWidth, i.clientWidth]);
  const page = [document.documentElement.scrollWidth, innerWidth];
  document.title = JSON.stringify({wide, images, page});
})</script>"""


def browse(page, *options, folder):
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder}", "--enable-logging=stderr", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 500])  # headless Chromium's window is never narrower
def test_a_browser_shows_it_whole(page, tmp_path, width):
    measured = page.with_name("measured.html")
    measured.write_text(page.read_text().replace("</head>", MEASURE + "</head>"))
    size = f"--window-size={width},1400"
    dom = browse(measured, size, "--virtual-time-budget=3000", "--dump-dom", folder=tmp_path / "p")
    found = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
    assert "D_rand gives 87.8 % where its control gives 11 %." in dom
    assert all(natural > 0 and 200 < shown <= width for natural, shown in found["images"])
    assert found["images"]
    assert found["page"][0] <= found["page"][1] == width  # the page itself never scrolls sideways
    assert found["wide"][-1]  # the table of thirteen columns does

    shot = tmp_path / "shot.png"
    browse(page, size, f"--screenshot={shot}", folder=tmp_path / "p")
    with Image.open(shot) as image:
        assert image.size == (width, 1400)
        pixels = np.asarray(image.convert("L"))
    assert pixels.std() > 10
    assert pathlib.Path(shot).stat().st_size > 10_000
