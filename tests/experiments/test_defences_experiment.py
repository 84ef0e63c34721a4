"""`experiments.defences`: who is called broken, and its smallest run."""

import json

import numpy as np
import pytest
from estimates import assert_claims

from advfeat import stats
from experiments.defences import (
    flags as defences_flags,
    summary as defences_summary,
    work as defences_work,
)


@pytest.mark.parametrize(
    ("count", "gained", "wanted"),
    [
        (100, 0, True),
        (100, 3, False),  # three points more, but eight cannot be ruled out
        (1000, 30, True),
        (1000, 45, False),
        (20, 0, False),  # of so few images nothing can be said
    ],
)
def test_broken_is_decidably_less_than_five_points_more(count, gained, wanted):
    gain = stats.difference(np.arange(count) < gained, np.zeros(count, bool))
    assert defences_summary.broken(gain) is wanted


def test_what_has_no_interval_is_not_called_broken():
    assert not defences_summary.broken(stats.Estimate(0.0, None, None, 3, unit="points"))


@pytest.mark.slow
def test_the_smallest_run(tmp_path):
    config = defences_flags.Config(workdir=str(tmp_path / "run"), dry_run=True, width=8)
    summary = defences_work.run(config)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    assert_claims(summary["claims"])
    assert len(summary["claims"]) == 3
    names = [name for name in summary["networks"] if name in config.defences]
    assert len(names) == 3
    for name, part in summary["networks"].items():
        assert (part["gain"] is None) == (name not in names)
        assert not part["broken"]
    assert (tmp_path / "run" / "report.html").exists()
