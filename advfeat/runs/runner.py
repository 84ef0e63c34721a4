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

How a command ends, always with one line on stderr where the code is not 0:

====  ============================================================================================
0     finished, now or before
1     it cannot go on: the disk is full or not to be written to, a file of the run is damaged,
      or the loss is no number
2     wrong input (it shows in ``prepare``, before anything is written)
130   Ctrl-C
143   SIGTERM, as a cluster sends before it takes the machine back; a training has been saved
====  ============================================================================================

Any other error in ``work`` is a bug and a traceback. After all of them but 2 the same command goes
on from what is there.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from advfeat import figures, stats
from advfeat.runs import command, processes, signals
from advfeat.runs.command import USAGE
from advfeat.runs.config import Config, UsageError
from advfeat.runs.directory import RunDirectory
from advfeat.runs.files import DamagedError
from advfeat.stats import Claim
from advfeat.training import NotFinite

C = TypeVar("C", bound=Config)
Inputs = TypeVar("Inputs")
T = TypeVar("T")

FAILED = 1
INTERRUPTED = 130  # the shells' code for an end by Ctrl-C
_PLACE = {  # errors of the place that is written to, which no change of the flags would mend
    code for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE")
    if (code := getattr(errno, name, None)) is not None
}  # fmt: skip


class CannotGoOn(RuntimeError):
    """The work stopped for a reason that one line says; the same command goes on."""


def execute(
    config: C,
    prepare: Callable[[C], Inputs],
    work: Callable[[C, Inputs, RunDirectory], Mapping[str, Any]],
    *,
    name: str,
    follow: Callable[[C, Inputs], None] | None = None,
) -> dict[str, Any]:
    """Do an experiment's work once, in its run directory.

    Args:
        config: Validated here.
        prepare: Config to inputs: loads data, makes models, reads checkpoints. Runs before
            anything is written and only if there is work to do.
        work: Config, inputs and the open run directory to the summary. In a run directory whose
            ``state`` is "resumed" it goes on from what is there.
        name: The experiment's name, kept in run.json.
        follow: What the other processes do meanwhile, where several share the work; the run
            directory is the first one's alone.

    Returns:
        The summary, with ``experiment``, ``dry_run``, ``claims``, ``wall_seconds`` and
        ``peak_memory_bytes`` added; that of the finished run where one with the same flags lies
        in ``workdir``. A dry run's claims have no verdicts, and its figures are marked. In the
        other processes nothing.

    Raises:
        UsageError: The config, the run directory or what ``prepare`` read cannot be used.
            Nothing has been written.
        CannotGoOn: The disk is full or cannot be written to, a file of the run is damaged, or a
            loss is no number.
    """
    place: dict[str, Any] = {"name": name, "overwrite": config.overwrite}
    first = processes.first()

    def inspect() -> str:
        config.validate()
        return RunDirectory.inspect(config.workdir, config.identity(), **place) if first else ""

    state = _together(inspect)
    if not processes.alone():
        state = processes.tell_all(state)
    inputs = _together(lambda: prepare(config) if state != "finished" else None)
    run = _together(
        lambda: RunDirectory.open(config.workdir, config.identity(), **place) if first else None
    )
    try:
        if run is not None:
            return _do(config, inputs, run, work, name)
        if follow is not None and inputs is not None:
            follow(config, inputs)
        return {}
    except NotFinite as error:
        raise CannotGoOn(command.one_line(error)) from error
    except DamagedError as error:
        raise CannotGoOn(
            f"{command.one_line(error)}; delete it, and the same command makes it again"
        ) from error
    except OSError as error:
        if error.errno not in _PLACE:
            raise
        raise CannotGoOn(
            f"{config.workdir}: {command.one_line(error)}; once that is mended, the same command "
            "goes on"
        ) from error


def judged(claims: Sequence[Claim], config: Config) -> list[Claim]:
    """All claims of a report with their verdicts; in a dry run without, since it shows nothing."""
    return list(claims) if config.dry_run else stats.judge(claims)


def _together(step: Callable[[], T]) -> T:
    """Does a step in all processes; where it fails in one, all of them end."""
    failure: Exception | None = None
    try:
        done = step()
    except (ValueError, OSError, ImportError) as error:
        failure = error
    went_well = processes.gather(failure is None)
    if failure is not None and (processes.first() or went_well[0]):
        raise UsageError(command.one_line(failure)) from failure
    if not all(went_well):
        sys.exit(USAGE)  # another process says why
    return done


def _do(
    config: C,
    inputs: Inputs | None,
    run: RunDirectory,
    work: Callable[[C, Inputs, RunDirectory], Mapping[str, Any]],
    name: str,
) -> dict[str, Any]:
    with run:
        if run.state == "finished":
            print(f"{run.path} holds this run, finished (--overwrite starts afresh)")
            summary = run.summary()
        else:
            if run.state == "resumed":
                print(f"{run.path}: going on with the run begun there")
            with figures.marked("dry run" if config.dry_run else ""):
                done = work(config, inputs, run)  # type: ignore[arg-type]
            about = {"experiment": name, "dry_run": config.dry_run}
            summary = run.finish({**about, "claims": [], **done, **run.cost()})
    print(f"report: {run.report}" if run.report.exists() else f"results: {run.path}")
    return summary


def main(
    run: Callable[[C], Any],
    config_class: type[C],
    doc: str | None,
    arguments: Sequence[str] | None = None,
    *,
    distributed: bool = False,
) -> None:
    """An experiment's command line.

    Args:
        run: The experiment, which calls :func:`execute`.
        config_class: Its config.
        doc: Its module docstring, shown by ``--help``.
        arguments: The command line without the program; default: this process's.
        distributed: Whether several processes can share its work.

    Raises:
        SystemExit: With a code of this module's docstring, after one line on stderr.
    """
    config = command.check(config_class, doc, arguments)
    try:
        with signals.listening():
            _join(config, distributed)
            run(config)
    except UsageError as error:
        command.tell(error)
        sys.exit(USAGE)
    except CannotGoOn as error:
        if processes.first() or not isinstance(error.__cause__, NotFinite):
            command.tell(error)
        if not isinstance(error.__cause__, NotFinite):
            _abandon()
        sys.exit(FAILED)
    except signals.Terminated:
        if processes.first():
            print(f"\n{command.program()}: terminated; the same command goes on", file=sys.stderr)
        sys.exit(signals.TERMINATED)
    except KeyboardInterrupt:
        print(f"\n{command.program()}: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception:
        if not processes.alone():
            traceback.print_exc()
        _abandon()
        raise


def _join(config: Config, distributed: bool) -> None:
    """Meets the other processes of the same command, if there are any."""
    try:
        if not distributed and processes.launched() is None:
            return
        if not distributed:
            raise ValueError("this experiment runs in one process, and several were started")
        if processes.join(getattr(config, "distributed", False)) > 0:
            # They print nothing; this is also for what JAX's libraries write there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"distributed run: {command.one_line(error)}") from error


def _abandon() -> None:
    """Ends this process where others may wait for it: they notice, as of one that was killed."""
    if not processes.alone():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(FAILED)
