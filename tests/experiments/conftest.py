"""Dry runs that several files of tests read."""

import pytest
from sweep_runs import SWEEPS


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory):
    """Returns path and summary of the finished dry run of a sweep, by its name."""
    found = {}

    def finished(name):
        if name not in found:
            path = tmp_path_factory.mktemp(name) / "whole"
            found[name] = path, SWEEPS[name].run(SWEEPS[name].config(path))
        return found[name]

    return finished
