"""A run's report: one self-contained HTML file a person reads first."""

from __future__ import annotations

import base64
import dataclasses
import importlib.resources
import math
import pathlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from advfeat.files import write_bytes
from advfeat.stats import Claim, Estimate

_TEMPLATE = "report_template.html"
_FIGURE_DPI, _CSS_DPI = 150, 96  # a figure is shown at its size in inches
_BADGES = {
    "holds": ("yes", "✓"),
    "the other way": ("no", "✗"),
    "no effect above": ("no", "✗"),
    "not decidable at this size": ("open", "?"),
    "a dry run shows nothing": ("open", "–"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of the report.

    Attributes:
        path: A PNG file, copied into the report.
        alt: What it shows, for those who cannot see it.
        caption: Text below it.
    """

    path: pathlib.Path
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the report.

    Attributes:
        caption: Text above it.
        columns: Heads, ``[C]``.
        rows: ``[R][C]`` cells: text, numbers, estimates, None for
            "there is none". The first of a row is its head.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Section:
    """A headed part of the report: paragraphs (as text), tables and pictures in their order."""

    title: str
    blocks: Sequence[str | Table | Picture]


def write_report(
    path: pathlib.Path,
    *,
    title: str,
    findings: Sequence[str],
    sections: Sequence[Section],
    claims: Sequence[Claim | Mapping[str, Any]] = (),
    introduction: str = "",
    command: str = "",
    record: Mapping[str, Any] | None = None,
    cost: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Write the report atomically.

    Args:
        path: The HTML file, ``run.report``.
        title: Head line.
        findings: What was found in this run, in plain sentences; they come first.
        sections: The evidence.
        claims: As they were judged together; without a verdict in a dry run.
        introduction: What was done, below the findings.
        command: The command line that repeats the run.
        record: What ``run.record()`` says: flags, versions, devices, revision.
        cost: What ``run.cost()`` says: ``wall_seconds`` and ``peak_memory_bytes``.

    Returns:
        `path`.

    Raises:
        ValueError: A picture without alt text or that is no PNG, a row of another length than
            the columns, an unknown verdict.
        FileNotFoundError: A picture that is not there.
    """
    flags = (record or {}).get("flags", {})
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = importlib.resources.files("advfeat").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=title,
        findings=list(findings),
        introduction=introduction,
        sections=[
            {"title": section.title, "blocks": [_block(block) for block in section.blocks]}
            for section in sections
        ],
        claims=[_claim(claim) for claim in claims],
        command=command,
        facts=_facts(record or {}, cost or {}),
        flags=[(f"--{key}", format_cell(value)) for key, value in flags.items()],
    )
    write_bytes(path, page.encode())
    return path


def format_rate(rate: Any) -> str:
    r"""A rate with its interval, in percent.

    Example:
        >>> rate = {"mean": 0.878, "low": 0.86, "high": 0.894, "n": 360}
        >>> format_rate(rate).replace("\N{NO-BREAK SPACE}", " ")
        '87.8 % [86.0, 89.4]'
    """
    mean, low, high = (_known(field(rate, key)) for key in ("mean", "low", "high"))
    if mean is None:
        return "–"
    shown = f"{100 * mean:.1f}\u00a0{'points' if field(rate, 'unit') == 'points' else '%'}"
    return shown if low is None or high is None else f"{shown} [{100 * low:.1f}, {100 * high:.1f}]"


def format_number(value: Any, digits: int = 2) -> str:
    r"""A number with its interval, as it is; a dash where there is none.

    Example:
        >>> format_number({"mean": 0.878, "low": 0.86, "high": 0.894, "n": 360})
        '0.88 [0.86, 0.89]'
    """
    mean, low, high = (_known(field(value, key)) for key in ("mean", "low", "high"))
    if mean is None:
        return "–"
    ends = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{mean:.{digits}f}{ends}"


def format_seconds(seconds: float) -> str:
    """A length of time the way it is said.

    Example:
        >>> format_seconds(12.3), format_seconds(203), format_seconds(7384)
        ('12 s', '3 min 23 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_cell(value: Any) -> str:
    """Text of a table's cell.

    Example:
        >>> format_cell(None), format_cell(1797), format_cell(0.123456), format_cell((1, 2))
        ('–', '1797', '0.1235', '1, 2')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (Mapping, Estimate)):
        return (format_number(value, 3) if field(value, "unit") == "number"
                else format_rate(value))  # fmt: skip
    if isinstance(value, (list, tuple)):
        return ", ".join(format_cell(item) for item in value)
    number = float(value)
    if math.isnan(number):
        return "–"
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.4g}"


def field(value: Any, name: str) -> Any:
    """Of an estimate or a claim, also as a summary holds it; None where it has no such thing."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _known(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _block(block: str | Table | Picture) -> dict[str, Any]:
    if isinstance(block, str):
        return {"kind": "text", "text": block}
    if isinstance(block, Picture):
        return _picture(block)
    for row in block.rows:
        if len(row) != len(block.columns):
            raise ValueError(
                f"table {block.caption!r}: {len(row)} cells in a row of {len(block.columns)}"
            )
    rows = [[format_cell(cell) for cell in row] for row in block.rows]
    return {"kind": "table", "caption": block.caption, "columns": block.columns, "rows": rows}


def _picture(picture: Picture) -> dict[str, Any]:
    if not picture.alt.strip():
        raise ValueError(f"picture {picture.path.name}: must have an alt text")
    content = picture.path.read_bytes()
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise ValueError(f"picture {picture.path}: is not a PNG file")
    size = struct.unpack(">II", content[16:24])
    width, height = (round(side * _CSS_DPI / _FIGURE_DPI) for side in size)
    return {
        "kind": "picture",
        "data": base64.b64encode(content).decode(),
        "alt": picture.alt,
        "caption": picture.caption,
        "width": width,
        "height": height,
    }


def _claim(claim: Claim | Mapping[str, Any]) -> dict[str, str]:
    verdict = field(claim, "verdict")
    verdict = "a dry run shows nothing" if verdict is None else verdict
    known = [words for words in _BADGES if verdict.startswith(words)]
    if not known:
        raise ValueError(f"verdict: must be one of {', '.join(_BADGES)}, not {verdict!r}")
    badge, sign = _BADGES[known[0]]
    return {
        "claim": field(claim, "claim"),
        "effect": format_cell(field(claim, "effect")),
        "control": format_cell(field(claim, "control")),
        "verdict": verdict,
        "badge": badge,
        "sign": sign,
    }


def _facts(record: Mapping[str, Any], cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines about the run itself: only what is known."""
    facts = []
    if "wall_seconds" in cost:
        facts.append(("Time", format_seconds(cost["wall_seconds"])))
    if cost.get("peak_memory_bytes"):
        facts.append(("Peak memory", f"{cost['peak_memory_bytes'] / 1e9:.2f} GB"))
    if "devices" in record:
        devices = record["devices"]
        kinds = ", ".join(devices["kinds"])
        facts.append(("Devices", f"{devices['count']} × {kinds}, {devices['cpus']} CPU cores"))
        facts.append(("System", devices["system"]))
    if "started" in record:
        facts.append(("Begun", record["started"]))
    if record.get("resumed"):
        facts.append(("Resumed", ", ".join(again["started"] for again in record["resumed"])))
    if "revision" in record:
        facts.append(("Revision", record["revision"]))
    if "versions" in record:
        known = [f"{name} {version}" for name, version in record["versions"].items() if version]
        facts.append(("Versions", ", ".join(known)))
    return facts
