"""Runs `experiments.mislabeled`: trains, builds the sets, trains on them, measures and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advfeat.runs import runner
from advfeat.runs.directory import RunDirectory

from . import report
from .flags import Config
from .fresh import fresh
from .plan import Plan, prepare
from .sets import build
from .sources import sources
from .summary import summarise


def work(config: Config, plan: Plan, run: RunDirectory) -> Mapping[str, Any]:
    """Trains networks, builds sets, trains fresh networks on them, measures and reports."""
    networks = sources(config, plan, run)
    sets = build(config, plan, run, networks)
    results = fresh(config, plan, run, sets)
    summary = summarise(config, plan, sets, results, networks)
    return runner.reported(
        run, summary, lambda: report.write(config, plan, run, networks, sets, results, summary)
    )


run = runner.Experiment("mislabeled", prepare, work)
