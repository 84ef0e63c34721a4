"""The attacks of an experiment's flags."""

from __future__ import annotations

from typing import Any

from advfeat.evaluation.suites import Suite, resolve, shortened
from advfeat.runs.config import Config
from advfeat.threats.balls import ThreatModel


def suite_for(config: Config, named: Any, threat: ThreatModel, *, num_classes: int) -> Suite:
    """Builds the attacks that were asked for, in a dry run with few steps and restarts.

    Args:
      config: the experiment's config.
      named: as for `advfeat.evaluation.suites.resolve`.
      threat: the threat model.
      num_classes: K.

    Raises:
      ValueError: as for `resolve`.
    """
    suite = resolve(named, threat, num_classes=num_classes)
    return shortened(suite) if config.dry_run else suite  # no flag holds the steps of a suite
