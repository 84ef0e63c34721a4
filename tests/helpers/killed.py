"""Runs that end before their time: killed in the middle, or refused for their flags."""

import pytest

from advfeat.runs import runner

COSTS = {"wall_seconds", "peak_memory_bytes"}


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the run catches it."""


def killed_at_call(patch, place, name, nth, run):
    """Runs until a function of a module is called for the nth time.

    Returns:
      The first two arguments of each call; it grows with the calls of later runs.
    """
    real, calls = getattr(place, name), []

    def dying(*arguments, **options):
        calls.append(arguments[:2])
        if len(calls) == nth:
            raise Killed
        return real(*arguments, **options)

    patch.setattr(place, name, dying)
    with pytest.raises(Killed):
        run()
    return calls


def result_of(summary):
    """What a summary says besides its costs."""
    return {name: value for name, value in summary.items() if name not in COSTS}


def assert_refused(run, config, arguments, words, workdir, capsys):
    """Flags that are no good end the command with one line that says so, and write nothing."""
    with pytest.raises(SystemExit) as end:
        runner.main(run, config, None, [f"--workdir={workdir}", *arguments])
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not workdir.exists()
