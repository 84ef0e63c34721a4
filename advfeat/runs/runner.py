"""The form of an experiment, and the `main` shared by all of them.

An experiment is its flags and two functions::

    class Config(BaseConfig):            # flags.py; imports nothing slow
        SMALLEST = {"epochs": 1}         # what a dry run reduces
        epochs: int = flag(60, "Passes over the training images.", kind="count")

    def prepare(config):                 # plan.py; reads the user's input, writes nothing
        return data.load(config.dataset, ...)

    def work(config, inputs, run):       # work.py; run: the open RunDirectory
        hits = run.cached("measured/all", lambda: (arrays, provenance))  # survives a kill
        summary = {"accuracy": stats.rate(hits["robust"]), "claims": judged(claims, config)}
        # A nested dict, every rate with its interval; kept before anything is drawn.
        return reported(run, summary, lambda: write_report(run, summary, title=..., ...))

    run = Experiment("mine", prepare, work)

and a `__main__.py` that calls `experiments.shared.start.start`. A dry run performs
`config.smallest()`, so that `prepare` and `work` see an ordinary config; the runner compiles it
quickly, the runner and the report mark what it draws and writes, and `judged` gives no verdicts.

Exit codes; every code but 0 comes with one line on stderr:

====  ============================================================================================
0     finished, now or before
1     cannot continue: the disk is full or not writable, a file of the run or an image of a stream
      is damaged, the loss is not finite, or the report cannot be drawn
2     wrong input (found by `prepare`, before anything is written)
130   Ctrl-C
143   SIGTERM, as a cluster sends before it reclaims the machine; a training has been saved
====  ============================================================================================

Any other error in `work` is a bug and gives a traceback. After every code but 2, rerunning the same
command resumes from what exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax

from advfeat import figures, stats
from advfeat.data import DataError
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
INTERRUPTED = 130  # the shells' exit code for Ctrl-C
_PLACE = {  # errors of the output location, which no change of flags would fix
    code
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE")
    if (code := getattr(errno, name, None)) is not None
}


class CannotGoOn(RuntimeError):
    """Raised when the work has to stop; one line gives the reason, and a rerun resumes."""


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[C, Inputs]):
    """An experiment, callable with its config; it performs the work once, in its run directory.

    A dry run prepares and performs `config.smallest()`, under the flags that were given: the same
    flags are the same run, and a finished dry run is no finished run.

    Attributes:
      name: stored in run.json.
      prepare: config to inputs: loads data, builds models, reads checkpoints. Called before
        anything is written, and only if there is work to do.
      work: config, inputs and the open run directory to the summary. If the directory's `state` is
        "resumed", it continues from what exists.
      follow: the work of the other processes, if several share it; only the first writes the run
        directory.
    """

    name: str
    prepare: Callable[[C], Inputs]
    work: Callable[[C, Inputs, RunDirectory], Mapping[str, Any]]
    follow: Callable[[C, Inputs], None] | None = None

    def __call__(self, config: C) -> dict[str, Any]:
        """Runs the experiment.

        Args:
          config: validated here.

        Returns:
          The summary with added `experiment`, `dry_run`, `claims`, `wall_seconds` and
          `peak_memory_bytes`; if `workdir` holds a finished run with the same flags, that run's
          summary. The claims of a dry run have no verdicts, and its figures are marked. Other
          processes return an empty dict.

        Raises:
          UsageError: if the config, the run directory or the input of `prepare` is unusable.
            Nothing has been written.
          CannotGoOn: if the disk is full or not writable, a file of the run or an image of a
            stream is damaged, a loss is not finite, or the report cannot be drawn.
        """
        place: dict[str, Any] = {"name": self.name, "overwrite": config.overwrite}
        first = processes.first()

        def inspect() -> str:
            config.validate()
            return RunDirectory.inspect(config.workdir, config.identity(), **place) if first else ""

        state = _together(inspect)
        if not processes.alone():
            state = processes.tell_all(state)
        performed = config.smallest() if config.dry_run else config
        with _compiling(quickly=config.dry_run):
            return self._perform(config, performed, state, place)

    def _perform(
        self, config: C, performed: C, state: str, place: dict[str, Any]
    ) -> dict[str, Any]:
        """Prepares `performed` and does its work in the run directory of `config`."""
        first = processes.first()
        inputs = _together(lambda: self.prepare(performed) if state != "finished" else None)
        run = _together(
            lambda: RunDirectory.open(config.workdir, config.identity(), **place) if first else None
        )
        try:
            if run is not None:
                run.command = config.command(self.work.__module__.rpartition(".")[0])
                return self._do(performed, inputs, run)
            if self.follow is not None and inputs is not None:
                self.follow(performed, inputs)
            return {}
        except NotFinite as error:
            raise CannotGoOn(command.one_line(error)) from error
        except DataError as error:  # of a stream, which decodes its images during the work
            raise CannotGoOn(
                f"{command.one_line(error)}; once that is mended, rerun the command to resume"
            ) from error
        except DamagedError as error:
            raise CannotGoOn(
                f"{command.one_line(error)}; delete it and rerun the command to recreate it"
            ) from error
        except OSError as error:
            if error.errno not in _PLACE:
                raise
            raise CannotGoOn(
                f"{config.workdir}: {command.one_line(error)}; once that is fixed, rerun the "
                "command to resume"
            ) from error

    def _do(self, config: C, inputs: Inputs | None, run: RunDirectory) -> dict[str, Any]:
        with run:
            if run.state == "finished":
                print(f"{run.path} already holds this run, finished (--overwrite starts afresh)")
                summary = run.summary()
            else:
                if run.state == "resumed":
                    print(f"{run.path}: resuming the run found there")
                with figures.marked("dry run" if config.dry_run else ""):
                    done = self.work(config, inputs, run)  # type: ignore[arg-type]
                about = {"experiment": self.name, "dry_run": config.dry_run}
                summary = run.finish({**about, "claims": [], **done, **run.cost()})
        print(f"report: {run.report}" if run.report.exists() else f"results: {run.path}")
        return summary


@contextlib.contextmanager
def _compiling(*, quickly: bool) -> Iterator[None]:
    """Compiles with few optimisations: a dry run spends most of its time compiling."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, quickly or before)
    try:
        yield
    finally:
        jax.config.update(name, before)


def judged(claims: Sequence[Claim], config: Config) -> list[Claim]:
    """Judges all claims of a report; a dry run has no verdicts, since it proves nothing."""
    judged = stats.judge(claims)  # also in a dry run, which is to find what would be refused
    return list(claims) if config.dry_run else judged


def reported(
    run: RunDirectory, summary: Mapping[str, Any], draw: Callable[[], Any]
) -> Mapping[str, Any]:
    """Keeps the summary, then draws the report, so that a figure never costs what was measured.

    What the report needs besides the summary comes from `run.cached`: then a rerun of the same
    command draws again without measuring again.

    Args:
      run: the open run directory.
      summary: of the run.
      draw: draws the figures and writes the report.

    Returns:
      The summary.

    Raises:
      CannotGoOn: if `draw` fails; one line says why and where the numbers are.
    """
    kept = run.keep(summary)
    try:
        draw()
    except (OSError, DataError, DamagedError):
        raise
    except Exception as error:
        *_, place = traceback.extract_tb(error.__traceback__)
        raise CannotGoOn(
            f"{run.path}: the report was not drawn ({type(error).__name__}: "
            f"{command.one_line(error)}, {place.filename}:{place.lineno}); the numbers are in "
            f"{kept.name}, and once that is mended, the same command draws it without measuring "
            "again"
        ) from error
    return summary


def _together(step: Callable[[], T]) -> T:
    """Performs a step in all processes; if it fails in one, all of them exit."""
    failure: Exception | None = None
    try:
        done = step()
    except (ValueError, OSError, ImportError) as error:
        failure = error
    went_well = processes.gather(failure is None)
    if failure is not None and (processes.first() or went_well[0]):
        raise UsageError(command.one_line(failure)) from failure
    if not all(went_well):
        sys.exit(USAGE)  # another process prints the reason
    return done


def main(
    run: Callable[[C], Any],
    config_class: type[C],
    doc: str | None,
    arguments: Sequence[str] | None = None,
    *,
    distributed: bool = False,
) -> None:
    """Runs an experiment's command line.

    Args:
      run: the experiment.
      config_class: its config.
      doc: its module docstring, shown by `--help`.
      arguments: the command line without the program; by default that of this process.
      distributed: whether several processes can share the work.

    Raises:
      SystemExit: with an exit code from this module's docstring, after one line on stderr.
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
            print(
                f"\n{command.program()}: terminated; rerun the command to resume", file=sys.stderr
            )
        sys.exit(signals.TERMINATED)
    except KeyboardInterrupt:
        print(f"\n{command.program()}: interrupted; rerun the command to resume", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception:
        if not processes.alone():
            traceback.print_exc()
        _abandon()
        raise


def _join(config: Config, distributed: bool) -> None:
    """Joins the other processes of the same command, if there are any."""
    try:
        if not distributed and processes.launched() is None:
            return
        if not distributed:
            raise ValueError("this experiment runs in one process, and several were started")
        if processes.join(getattr(config, "distributed", False)) > 0:
            # Other processes print nothing; this also silences JAX's libraries.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"distributed run: {command.one_line(error)}") from error


def _abandon() -> None:
    """Exits abruptly if other processes may wait: they detect it like a killed process."""
    if not processes.alone():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(FAILED)
