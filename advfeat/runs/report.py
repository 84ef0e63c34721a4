"""Writes a run's report, a single self-contained HTML file."""

from __future__ import annotations

import base64
import dataclasses
import importlib.resources
import pathlib
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jinja2

from advfeat import figures
from advfeat.runs.directory import RunDirectory
from advfeat.runs.files import write_bytes
from advfeat.stats import Claim, margin_words
from advfeat.stats.formats import (
    format_any,
    format_cell,
    format_difference,
    format_number,
    format_rate,
    format_seconds,
    parts,
)

if TYPE_CHECKING:
    from advfeat.figures.style import Figure

__all__ = [
    "Block",
    "Picture",
    "Section",
    "Table",
    "format_cell",
    "format_difference",
    "format_number",
    "format_rate",
    "format_seconds",
    "write_report",
]

_TEMPLATE = "report_template.html"
_FIGURE_DPI, _CSS_DPI = 150, 96  # figures are shown at their size in inches
_NO_EFFECT = "no effect above "  # followed by the margin
_BADGES = {
    "holds": ("yes", "✓"),
    "the other way": ("no", "✗"),
    f"{_NO_EFFECT}…": ("none", "≈"),
    "not decidable at this size": ("open", "?"),
}
_PHONE = 42  # characters per line on a phone; a wider table becomes cards there


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the report, which saves and embeds it.

    Attributes:
      name: of its file in the run, `figures/NAME.png`.
      figure: from one of the functions of `advfeat.figures`.
      alt: text alternative for readers who cannot see it.
      caption: text below it.
    """

    name: str
    figure: Figure
    _: dataclasses.KW_ONLY
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the report.

    Attributes:
      caption: text above it.
      columns: column headings, `[C]`.
      rows: `[R][C]` cells: text, numbers, estimates (see `format_cell`), None for a missing value.
        The first cell of a row is its heading.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


Block: TypeAlias = str | Table | Picture


@dataclasses.dataclass(frozen=True)
class Section:
    """A headed section of the report: paragraphs (as text), tables and pictures, in order."""

    title: str
    blocks: Sequence[Block]


def write_report(
    run: RunDirectory,
    summary: Mapping[str, Any],
    *,
    title: str,
    findings: Sequence[str],
    sections: Sequence[Section],
    sentence: str = "",
    lead: Picture | None = None,
    terms: Mapping[str, str] | None = None,
    introduction: str = "",
    recipe: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Saves the pictures of a run and writes its report, `run.report`, atomically.

    The run adds its command, record and cost, the summary its claims. The report of a dry run says
    so at the top and has no verdicts.

    Args:
      run: the open run directory.
      summary: of the run; "claims" are as judged together, without verdicts in a dry run.
      title: heading of the page.
      findings: results of this run, in plain sentences with their numbers.
      sections: the evidence.
      sentence: question and answer in one plain sentence; it opens the page.
      lead: the figure that shows the answer, directly below.
      terms: term to explanation, for every term of the sentence, the figure or the findings that a
        reader may not know, in order of first use.
      introduction: description of the method, below the findings.
      recipe: settings of the run with presets filled in: data, network, epochs, eps, steps, seeds.
        Maps names to a cell's value or to a mapping of them. An entry named like a flag gives that
        flag's effective value if it was not set.

    Returns:
      `run.report`.

    Raises:
      ValueError: for a picture without alt text, a row whose length differs from the columns', or
        an unknown verdict.
    """
    record, recipe = run.record(), recipe or {}
    flags = record.get("flags", {})
    dry_run = bool(flags.get("dry_run"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["parts"] = parts
    source = importlib.resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=title,
        dry_run=dry_run,
        sentence=sentence,
        terms=dict(terms or {}),
        lead=None if lead is None else _picture(run, lead),
        findings=list(findings),
        introduction=introduction,
        sections=[
            {"title": section.title, "blocks": [_block(run, block) for block in section.blocks]}
            for section in sections
        ],
        claims=_claims(summary.get("claims", ()), dry_run=dry_run),
        recipe=[(name.replace("_", " "), format_any(value)) for name, value in recipe.items()],
        command=run.command,
        facts=_facts(record, run.cost()),
        flags=_flags(flags, recipe),
    )
    # A class name may contain undecodable bytes, as a folder name may.
    write_bytes(run.report, page.encode("utf-8", "backslashreplace"))
    return run.report


def _block(run: RunDirectory, block: Block) -> dict[str, Any]:
    if isinstance(block, str):
        return {"kind": "text", "text": block}
    if isinstance(block, Picture):
        return _picture(run, block)
    for row in block.rows:
        if len(row) != len(block.columns):
            raise ValueError(
                f"table {block.caption!r}: {len(row)} cells in a row of {len(block.columns)}"
            )
    rows = [[format_cell(cell) for cell in row] for row in block.rows]
    return {
        "kind": "table",
        "caption": block.caption,
        "columns": block.columns,
        "rows": rows,
        "cards": _least_letters([block.columns, *rows]) > _PHONE,
    }


def _least_letters(rows: Sequence[Sequence[str]]) -> int:
    """Returns the minimum width of a table in characters; lines break only at spaces."""
    columns = zip(*rows, strict=True)
    widest = [max(len(w) for text in column for w in (*text.split(" "), "")) for column in columns]
    return sum(width + 2 for width in widest)


def _picture(run: RunDirectory, picture: Picture) -> dict[str, Any]:
    if not picture.alt.strip():
        raise ValueError(f"picture {picture.name}: must have an alt text")
    content = figures.save(picture.figure, run.figure(picture.name)).read_bytes()
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


def _claims(claims: Sequence[Claim], *, dry_run: bool) -> dict[str, Any]:
    """Returns headings and rows of the claims' table, omitting empty columns."""
    rows = [_claim(claim) for claim in claims]
    heads = {"effect": "effect", "control": "strongest control", "difference": "difference"}
    if not dry_run and any(row["margin"] for row in rows):
        heads["margin"] = "counts as none below"
    return {"rows": rows, "heads": heads, "verdicts": not dry_run}


def _claim(claim: Claim) -> dict[str, str]:
    key = claim.verdict
    if key is not None and key.startswith(_NO_EFFECT):
        key = f"{_NO_EFFECT}…"
    if key is not None and key not in _BADGES:
        raise ValueError(
            f"verdict: must be None or one of {', '.join(_BADGES)}, not {claim.verdict!r}"
        )
    badge, sign = ("", "") if key is None else _BADGES[key]
    margin = claim.margin
    return {
        "claim": claim.claim,
        "effect": format_cell(claim.effect),
        "control": format_cell(claim.control),
        "difference": format_difference(claim.difference),
        "margin": "" if margin is None else margin_words(margin, claim.difference.unit),
        "verdict": claim.verdict or "",
        "badge": badge,
        "sign": sign,
    }


def _flags(flags: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lists flags with their values; unset flags show their effective value, if known."""
    came_to = {name: recipe.get(name) if value is None else value for name, value in flags.items()}
    return [
        (f"--{name}", format_any(value)) for name, value in came_to.items() if value is not None
    ]


def _facts(record: Mapping[str, Any], cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lists the known facts about the run itself."""
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
