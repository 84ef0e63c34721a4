"""What every experiment's ``main`` and ``run`` have in common.

An experiment is three functions::

    def prepare(config):                 # reads what the user named; writes nothing
        return data.load(config.dataset, ...)

    def work(config, inputs, run):       # run: the open RunDirectory
        ...
        return summary                   # nested dict; every rate with its interval

    def run(config):
        return runner.execute(config, prepare, work, name="mine")

    if __name__ == "__main__":
        runner.main(run, Config, __doc__)

Whatever is wrong with the user's input shows in ``prepare`` and ends with one line and exit code
2. What goes wrong in ``work`` is a traceback, and leaves a run that the same command resumes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from advfeat.results import RunDirectory
from experiments.config import Config, HelpRequested, UsageError, parse

C = TypeVar("C", bound=Config)
Inputs = TypeVar("Inputs")

INTERRUPTED = 130  # the shells' code for an end by Ctrl-C


def execute(
    config: C,
    prepare: Callable[[C], Inputs],
    work: Callable[[C, Inputs, RunDirectory], Mapping[str, Any]],
    *,
    name: str,
) -> dict[str, Any]:
    """Do an experiment's work once, in its run directory.

    Args:
        config: Validated here.
        prepare: Config to inputs: loads data, makes models, reads checkpoints. Runs before
            anything is written and only if there is work to do.
        work: Config, inputs and the open run directory to the summary. In a run directory whose
            ``state`` is "resumed" it goes on from what is there.
        name: The experiment's name, kept in run.json.

    Returns:
        The summary, with ``experiment``, ``claims``, ``wall_seconds`` and ``peak_memory_bytes``
        added; that of the finished run where one with the same flags lies in ``workdir``.

    Raises:
        UsageError: The config, the run directory or what ``prepare`` read cannot be used.
            Nothing has been written.
    """
    place: dict[str, Any] = {"name": name, "overwrite": config.overwrite}
    try:
        config.validate()
        state = RunDirectory.inspect(config.workdir, config.identity(), **place)
        inputs = prepare(config) if state != "finished" else None
        run = RunDirectory.open(config.workdir, config.identity(), **place)
    except (ValueError, OSError, ImportError) as error:
        raise UsageError(_one_line(error)) from error
    with run:
        if run.state == "finished":
            print(f"{run.path} holds this run, finished (--overwrite starts afresh)")
            summary = run.summary()
        else:
            if run.state == "resumed":
                print(f"{run.path}: going on with the run begun there")
            done = {"experiment": name, "claims": [], **work(config, inputs, run)}  # type: ignore[arg-type]
            summary = run.finish({**done, **run.cost()})
    print(f"report: {run.report}" if run.report.exists() else f"results: {run.path}")
    return summary


def main(
    run: Callable[[C], Any],
    config_class: type[C],
    doc: str | None,
    arguments: Sequence[str] | None = None,
) -> None:
    """An experiment's command line.

    Args:
        run: The experiment, which calls :func:`execute`.
        config_class: Its config.
        doc: Its module docstring, shown by ``--help``.
        arguments: The command line without the program; default: this process's.

    Raises:
        SystemExit: Code 2 after one line on stderr for a wrong flag or unusable input; 130
            after Ctrl-C.
    """
    try:
        run(parse(config_class, sys.argv[1:] if arguments is None else arguments, doc))
    except HelpRequested as help_text:
        try:
            print(help_text, flush=True)
        except BrokenPipeError:  # a pager left early; Python would flush once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UsageError as error:
        print(f"{_program()}: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{_program()}: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _program() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else os.path.basename(sys.argv[0])
