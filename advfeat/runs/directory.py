"""Run directories: created, resumed, finished or refused.

A run directory holds::

    run.json        experiment, flags, versions, devices, revision
    metrics.jsonl   one line per logging step: stage, step, seconds, scalars
    tensorboard/    the same scalars as TensorBoard events
    figures/*.png
    report.html
    kept.json       the summary until the report is drawn: what was measured outlives a figure
    summary.json    written last and atomically: its existence marks the run as finished
"""

from __future__ import annotations

import datetime
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from advfeat.runs import provenance as _provenance
from advfeat.runs.files import read_arrays, read_json, write_arrays, write_json
from advfeat.runs.identity import RUN, check_same, flags_json, read_record
from advfeat.runs.locks import RunLock
from advfeat.runs.metrics import MetricsLog

State = Literal["fresh", "resumed", "finished"]

KEPT, SUMMARY, REPORT = "kept.json", "summary.json", "report.html"
_LOCK, _CLEARING = ".lock", ".clearing"


class RunDirectory:
    """The directory of one experiment's run; create it with `open`.

    Attributes:
      path: the directory.
      state: "fresh", "resumed" (an unfinished run of the same flags) or "finished".
      command: the command line that repeats the run, if the runner opened it.
    """

    def __init__(self, path: pathlib.Path, state: State, lock: RunLock | None):
        self.path = path
        self.state: State = state
        self.command = ""
        self._lock = lock
        self._log = MetricsLog(path)
        self._begun = time.monotonic()
        # The log's last line may be older than the lock's time, or the lock may be missing.
        self._before = max(self._log.seconds, lock.seconds if lock else 0.0)
        if lock:
            lock.count(self._before)

    @classmethod
    def inspect(
        cls,
        path: str | os.PathLike[str],
        flags: Mapping[str, Any],
        *,
        name: str,
        overwrite: bool = False,
    ) -> State:
        """Returns what `open` would find, without writing anything.

        Args:
          path: the run directory; need not exist.
          flags: the options that determine the result; runs with equal flags are the same run.
          name: the experiment.
          overwrite: whether an existing run may be deleted.

        Returns:
          "fresh", "resumed" or "finished".

        Raises:
          ValueError: if the directory holds another run (naming the first differing flag with both
            values) or files that are not a run, or if the path is not a directory.
          PermissionError: if it is not writable.
        """
        path = pathlib.Path(path)
        _check_place(path)
        entries = _entries(path)
        if not entries or (path / _CLEARING).exists():
            return "fresh"
        record = read_record(path)
        if overwrite:
            nested = sorted(path.glob(f"*/{RUN}"))
            if nested:
                raise ValueError(f"workdir {path} holds other runs ({nested[0].parent}): kept")
            return "fresh"
        check_same(path, record, flags_json(flags), name)
        return "finished" if (path / SUMMARY).exists() else "resumed"

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        flags: Mapping[str, Any],
        *,
        name: str,
        overwrite: bool = False,
    ) -> RunDirectory:
        """Creates the run directory, or resumes the run in it.

        The directory stays locked against a second process until `close` or the end of the process,
        even by a kill.

        Args:
          path: the run directory; parents are created.
          flags: the options that determine the result.
          name: the experiment.
          overwrite: delete an existing run and start afresh. Only a directory that is a run (with a
            run.json of this package) is ever deleted.

        Returns:
          The directory; its `state` tells whether the run was resumed.

        Raises:
          ValueError: as for `inspect`, or if another process is writing there or the directory
            cannot be created.
          PermissionError: if it is not writable.
        """
        path = pathlib.Path(path)
        state = cls.inspect(path, flags, name=name, overwrite=overwrite)
        if state == "finished":
            return cls(path, state, None)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"workdir {path} cannot be made: {error.strerror}") from error
        lock = _acquire(path)
        try:
            # Another process may have finished or started a run before this one took the lock.
            state = cls.inspect(path, flags, name=name, overwrite=overwrite)
            if state == "fresh":
                lock.seconds = 0.0
                _clear(path)
                write_json(path / RUN, {"experiment": name, "flags": flags_json(flags), **_now()})
            elif state == "resumed":
                record = read_record(path)
                record.setdefault("resumed", []).append(_now())
                write_json(path / RUN, record)
            return cls(path, state, lock)
        except BaseException:
            lock.close()
            raise

    @property
    def finished(self) -> bool:
        """Whether the summary has been written."""
        return (self.path / SUMMARY).exists()

    @property
    def report(self) -> pathlib.Path:
        """Path of the report."""
        return self.path / REPORT

    @property
    def checkpoints(self) -> pathlib.Path:
        """Path of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def seconds(self) -> float:
        """Seconds of work so far, including earlier, killed processes."""
        return self._before + time.monotonic() - self._begun

    def record(self) -> dict[str, Any]:
        """Reads run.json: experiment, flags, versions, devices, revision."""
        return read_record(self.path)

    def cost(self) -> dict[str, Any]:
        """Returns the run's total `wall_seconds` and this process's `peak_memory_bytes`."""
        return {
            "wall_seconds": self.seconds,
            "peak_memory_bytes": _provenance.peak_memory_bytes(),
        }

    def log(self, step: int, *, stage: str = "", **scalars: Any) -> None:
        """Adds a line to metrics.jsonl and a point per scalar to the TensorBoard events.

        After a resume, the first line of a stage removes the killed process's entries of that stage
        from this step on, so that no step appears twice.

        Args:
          step: the step of the scalars.
          stage: the part of the run, such as "train/standard"; steps count per stage.
          **scalars: anything `float` accepts, including device scalars; any name except "seconds",
            which every line has.
        """
        if "seconds" in scalars:
            raise ValueError("scalars: every line has its own 'seconds', choose another name")
        values = {key: float(value) for key, value in scalars.items()}
        self._log.write(int(step), stage, self.seconds, values)

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Returns the lines logged so far, of one stage or of all."""
        return self._log.lines(stage)

    def figure(self, name: str) -> pathlib.Path:
        """Returns the path of a figure, `figures/NAME.png`, and creates its folder."""
        path = self.path / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def arrays_path(self, name: str) -> pathlib.Path:
        """Returns the path used by `save_arrays`; the file exists only once written completely."""
        return self.path / f"{name}.npz"

    def save_arrays(
        self, name: str, arrays: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> pathlib.Path:
        """Writes `NAME.npz` and, beside it, `NAME.json` with its provenance.

        Args:
          name: file name without ending, relative to the run directory.
          arrays: name to array; numbers, booleans or strings, because the file must open with
            `allow_pickle=False`.
          provenance: JSON-serialisable. Shapes, dtypes, the file's SHA-256, the revision and the
            versions are added.

        Returns:
          Path of the `.npz`.

        Raises:
          ValueError: for an array of another dtype.
        """
        path = self.arrays_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"revision": _provenance.revision(), "versions": _provenance.versions()}
        write_arrays(path, arrays, {**provenance, **about})
        return path

    def cached(
        self,
        name: str,
        compute: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]],
        *,
        found: Callable[[], Any] | None = None,
    ) -> dict[str, np.ndarray]:
        """Reads `NAME.npz` if an earlier process of the run wrote it; else computes and writes it.

        Args:
          name: file name without ending, relative to the run directory.
          compute: returns the arrays and their provenance, as for `save_arrays`.
          found: called if nothing had to be computed (to advance a bar).

        Returns:
          Name to array.

        Raises:
          DamagedError: if the file exists and is damaged.
          ValueError: as for `save_arrays`.
        """
        path = self.arrays_path(name)
        if path.exists():
            if found is not None:
                found()
            return read_arrays(path)
        arrays, provenance = compute()
        self.save_arrays(name, arrays, provenance)
        return {key: np.asarray(value) for key, value in arrays.items()}

    def keep(self, summary: Mapping[str, Any]) -> pathlib.Path:
        """Writes kept.json, before anything that may fail is done with the numbers.

        Args:
          summary: as for `finish`, which replaces the file by summary.json.

        Returns:
          Its path.
        """
        write_json(self.path / KEPT, summary)
        return self.path / KEPT

    def finish(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Writes summary.json, which marks the run as finished, and closes the directory.

        Args:
          summary: nested dicts and lists of numbers and strings; arrays become lists, NaN and
            infinity become null.

        Returns:
          The summary as read back from disk.
        """
        self._log.close()
        write_json(self.path / SUMMARY, summary)
        (self.path / KEPT).unlink(missing_ok=True)
        self.state = "finished"
        self.close()
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """Reads the summary of a finished run.

        Raises:
          FileNotFoundError: if the run is not finished.
          DamagedError: if the file is not a JSON object.
        """
        return read_json(self.path / SUMMARY)

    def close(self) -> None:
        """Flushes the metrics and releases the lock."""
        try:
            self._log.close()
        finally:  # flushing may fail on a full disk
            if self._lock is not None:
                self._lock.close()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _now() -> dict[str, Any]:
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": _provenance.versions(),
        "devices": _provenance.devices(),
        "revision": _provenance.revision(),
    }


def _check_place(path: pathlib.Path) -> None:
    """Raises unless `path` is a writable directory or can be created."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"workdir {path}: {nearest} is a file, not a directory")
    finished = nearest == path and (path / SUMMARY).exists()
    if not finished and not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"workdir {path}: {nearest} cannot be written to")


def _entries(path: pathlib.Path) -> list[pathlib.Path]:
    """Lists the directory without the files of a run killed at its very start."""
    if not path.is_dir():
        return []
    ours = {_LOCK, _CLEARING, f".{RUN}.tmp"}
    return [entry for entry in path.iterdir() if entry.name not in ours]


def _acquire(path: pathlib.Path) -> RunLock:
    try:
        return RunLock(path / _LOCK)
    except BlockingIOError:
        raise ValueError(f"workdir {path}: another process is writing there") from None


def _clear(path: pathlib.Path) -> None:
    """Empties the directory; if killed halfway, the next process notices and completes it."""
    entries = _entries(path)
    if not entries:
        (path / _CLEARING).unlink(missing_ok=True)
        return
    (path / _CLEARING).touch()
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (path / _CLEARING).unlink()
