"""Draws the figures and writes the report of `experiments.benchmark`."""

from __future__ import annotations

from typing import Any

import numpy as np

from advfeat import figures
from advfeat.runs.directory import RunDirectory
from advfeat.runs.report import Picture, Section, Table, format_number, format_seconds, write_report

from ..shared.words import terms
from . import check
from .flags import Config
from .ours import NAME
from .peers import TITLES
from .plan import Plan

AXES = {
    "images": "images in a batch",
    "steps": "steps",
    "restarts": "restarts",
    "classes": "classes",
    "devices": "CPU devices, simulated",
}


def write(config: Config, plan: Plan, run: RunDirectory, summary: dict[str, Any]) -> None:
    """Draws the figures and writes `report.html`."""
    pictures = _ratios(summary)
    shares = _shares(summary)
    lead = pictures.pop(0) if pictures else shares
    if shares is not None and lead is not shares:
        pictures.append(shares)
    sections = []
    if summary["work"]:
        blocks: list[Any] = [*pictures, _times(summary)]
        if any(part["ratio"] for part in summary["work"].values()):
            blocks.insert(0, _ratio_table(summary))
        sections.append(Section("Works", blocks))
    if summary["growth"]:
        blocks = [_growth(axis, found) for axis, found in summary["growth"].items()]
        sections.append(Section("How time grows", blocks))
    missing = [*_missing(summary)]
    if missing:
        columns = ["work or peer", "why it has no time"]
        table = Table(caption="Left out", columns=columns, rows=missing)
        sections.append(Section("What is not measured", [table]))
    write_report(
        run,
        summary,
        title="How fast?",
        sentence=sentence(summary),
        lead=lead,
        terms=terms(
            "interval",
            **{
                "ratio": "a peer's time over ours, median over the rounds: above 1, advfeat is "
                "ahead",
                "limit": "the best matrix product measured on this machine in this run, "
                f"{summary['limit']['flops_per_second'] / 1e9:.0f} GFLOP/s",
            },
        ),
        findings=findings(summary, dry_run=config.dry_run),
        introduction=_introduction(config, summary),
        sections=sections,
        recipe={
            **summary["machine"],
            "images": f"{config.dataset}: {len(plan.images)}, repeated where a work takes more",
            "memory bandwidth": f"{summary['limit']['bytes_per_second'] / 1e9:.1f} GB/s",
            "forward pass of one image": {
                name: f"{flops / 1e6:.1f} MFLOP"
                for name, flops in summary["limit"]["forward_flops"].items()
            },
        },
    )


def sentence(summary: dict[str, Any]) -> str:
    """Returns question and answer in one sentence."""
    ratios = fastest(summary)
    if ratios:
        values = sorted(estimate.mean for _, estimate in ratios.values())
        return (
            "How fast is advfeat beside other libraries? The fastest peer of a work takes "
            f"{values[0]:.2f} to {values[-1]:.2f} times as long "
            f"(median {np.median(values):.2f}, {len(values)} works)."
        )
    shares = [p["share_of_limit"] for p in summary["work"].values() if p["share_of_limit"]]
    if not shares:
        return "How fast is advfeat? This run measured no work whose arithmetic is known."
    return (
        "How fast is advfeat? It computes at "
        f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of what the machine's best matrix "
        f"product reaches ({len(shares)} works)."
    )


def fastest(summary: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Returns the fastest peer of each work that has one, with its ratio."""
    return {
        name: min(part["ratio"].items(), key=lambda pair: pair[1].mean)
        for name, part in summary["work"].items()
        if part["ratio"]
    }


def findings(summary: dict[str, Any], *, dry_run: bool = False) -> list[str]:
    """Returns a sentence per peer, and one on the limit; a dry run decides nothing."""
    found = []
    for peer, title in TITLES.items():
        ratios = {n: p["ratio"][peer] for n, p in summary["work"].items() if peer in p["ratio"]}
        if ratios:
            ahead = sum(e.low is not None and e.low > 1 for e in ratios.values())
            behind = sum(e.high is not None and e.high < 1 for e in ratios.values())
            least = min(ratios, key=lambda name: ratios[name].mean)
            sides = f"ahead in {ahead} and behind in {behind} of {len(ratios)} works"
            found.append(
                f"{title}: "
                + ("" if dry_run else f"advfeat is {sides}, by the intervals; ")
                + f"its smallest ratio is {format_number(ratios[least])} ({least})."
            )
    for reason in summary["peers_left_out"].items():
        found.append(f"{TITLES[reason[0]]}: {reason[1]}.")
    return found


def _introduction(config: Config, summary: dict[str, Any]) -> str:
    return (
        f"{config.rounds} rounds at most, in each of which every contender takes its turn, with "
        f"{summary['machine']['threads']} threads in {config.precision}; a work that exceeds "
        f"{config.budget:g} seconds has 3 rounds at least, and fewer than 6 have no interval. "
        "Same weights, images and step sizes; PGD starts at the image. The suite quick, which only "
        "advfeat has, stands beside the peers' standard AutoAttack. A peer's time counts if the "
        f"logits agree within {check.LOGITS[config.precision]:.0e} of the largest and the result "
        f"is the same: what PGD adds to the mean loss within {100 * check.LOSS:.0f} %, robust "
        f"accuracies within {100 * check.RATE:.0f} points (or two images), the loss of an epoch "
        f"within {100 * check.TRAINING:.0f} %, SmoothGrad maps with a mean cosine at most "
        f"{check.COSINE} below that of ours under other noise. The arithmetic of a work is that "
        "of its forward passes, as XLA counts one, and as much for every gradient of the pixels. "
        "Peak memory is what a call after the first adds to the process, on Linux and for CPUs; "
        "what a GPU holds is not in it."
    )


def _by_batch(summary: dict[str, Any], field: str) -> dict[str, dict[int, Any]]:
    """Returns a field of PGD's works, by attack and network and then by batch size."""
    groups: dict[str, dict[int, Any]] = {}
    for name, part in summary["work"].items():
        if part["family"] == "pgd" and part[field]:
            groups.setdefault(name.rpartition("_b")[0], {})[part["batch"]] = part[field]
    return groups


def _ratios(summary: dict[str, Any]) -> list[Picture]:
    """Draws ratios against the batch size, a figure per attack and network, the largest first."""
    groups = _by_batch(summary, "ratio")
    pictures = []
    for group, batches in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        sizes = sorted(batches)
        there = [peer for peer in TITLES if any(peer in batches[size] for size in sizes)]
        lines = {TITLES[peer]: [batches[size].get(peer) for size in sizes] for peer in there}
        figure = figures.curves(
            sizes,
            {**lines, "as fast as advfeat": [1.0] * len(sizes)},
            xlabel="images in a batch",
            ylabel="time of the peer / time of advfeat",
            rates=False,
            log=len(sizes) > 1,
        )
        pictures.append(
            Picture(
                f"ratio_{group}",
                figure,
                alt=f"Ratio of each peer against the batch size, {group}, and a line at 1",
                caption=f"{group}: above 1, advfeat is ahead. Medians over the rounds with their "
                "intervals, compilation apart.",
            )
        )
    return pictures


def _shares(summary: dict[str, Any]) -> Picture | None:
    """Draws the share of the limit against the batch size, a line per attack and network."""
    groups = _by_batch(summary, "share_of_limit")
    if not groups:
        return None
    sizes = sorted({size for batches in groups.values() for size in batches})
    figure = figures.curves(
        sizes,
        {group: [batches.get(size) for size in sizes] for group, batches in groups.items()},
        xlabel="images in a batch",
        ylabel="share of the limit",
        log=len(sizes) > 1,
    )
    return Picture(
        "shares",
        figure,
        alt="Share of the limit against the batch size, a line per attack and network",
        caption="Arithmetic per second, over the best matrix product of the machine.",
    )


def _ratio_table(summary: dict[str, Any]) -> Table:
    rows = [
        [
            name,
            TITLES[peer],
            format_number(ratio),
            part["ratio_with_compilation"][peer],
            ratio.n,
        ]
        for name, part in summary["work"].items()
        for peer, ratio in part["ratio"].items()
    ]
    return Table(
        caption="Time of a peer over ours; above 1, advfeat is ahead",
        columns=["work", "peer", "ratio", "of first calls, compilation included", "rounds"],
        rows=rows,
    )


def _times(summary: dict[str, Any]) -> Table:
    rows = []
    for name, part in summary["work"].items():
        for who, found in part["contenders"].items():
            memory, speed = found["peak_memory_bytes"], found["image_steps_per_second"]
            share = part["share_of_limit"] if who == NAME else None
            result = f"{part['compared_by']} {found['result']:.4g}"
            if found["verdicts_that_differ"] is not None:
                result += f", {found['verdicts_that_differ']} verdicts differ"
            rows.append(
                [
                    f"{name}: {TITLES.get(who, who)}",
                    f"{found['seconds'].mean:.4g}",
                    f"{found['compile_seconds']:.1f}",
                    None if speed is None else f"{speed:,.0f}",
                    None if memory is None else f"{memory / 2**20:,.0f}",
                    None if share is None else f"{100 * share:.0f} %",
                    result,
                ]
            )
    return Table(
        caption="Median time of a call, compilation apart",
        columns=[
            "work: contender",
            "seconds",
            "seconds of compilation",
            "image-steps per second",
            "peak memory, MiB",
            "share of the limit",
            "result",
        ],
        rows=rows,
    )


def _growth(axis: str, found: dict[str, Any]) -> Picture:
    return Picture(
        f"growth_{axis}",
        figures.curves(
            found["sizes"],
            {"advfeat": found["seconds"]},
            xlabel=AXES[axis],
            ylabel="seconds of a call",
            rates=False,
            log=len(found["sizes"]) > 1,
        ),
        alt=f"Seconds of a call over the number of {AXES[axis]}",
        caption=f"PGD on the convolutional net against the number of {AXES[axis]}. The first calls "
        f"took {', '.join(format_seconds(value) for value in found['first_call_seconds'])}.",
    )


def _missing(summary: dict[str, Any]) -> list[list[str]]:
    rows = [[name, reason] for name, reason in summary["not_measured"].items()]
    absent = summary["peers_left_out"]
    rows += [[TITLES[name], reason] for name, reason in absent.items()]
    for name, part in summary["work"].items():
        rows += [
            [f"{name}: {TITLES[peer]}", reason]
            for peer, reason in part["left_out"].items()
            if peer not in absent and not reason.startswith("not asked")
        ]
    return rows
