"""The directory an experiment writes into: made, resumed, finished, or refused.

What a run directory holds::

    run.json        experiment, flags, versions, devices, revision
    metrics.jsonl   one line per logging step: stage, step, seconds, scalars
    tensorboard/    the same scalars as TensorBoard events
    figures/*.png
    report.html
    summary.json    written last and atomically: where it exists, the run is finished
"""

from __future__ import annotations

import datetime
import hashlib
import io
import os
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from advfeat.runs import provenance as _provenance
from advfeat.runs.files import CHECKSUM, plain, read_json, write_bytes, write_json
from advfeat.runs.locks import RunLock
from advfeat.runs.metrics import MetricsLog

State = Literal["fresh", "resumed", "finished"]

RUN, SUMMARY, REPORT = "run.json", "summary.json", "report.html"
_LOCK, _CLEARING = ".lock", ".clearing"
_ABSENT = "(absent)"


class RunDirectory:
    """One experiment's run on disk; make one with :meth:`open`.

    Attributes:
        path: The directory.
        state: "fresh", "resumed" (an unfinished run of the same flags) or "finished".
    """

    def __init__(self, path: pathlib.Path, state: State, lock: RunLock | None):
        self.path = path
        self.state: State = state
        self._lock = lock
        self._log = MetricsLog(path)
        self._begun = time.monotonic()
        # The log's last line may be older than what the lock says, or the lock be gone.
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
        """Say what :meth:`open` would find, and write nothing.

        Args:
            path: The run directory; need not exist.
            flags: The options that decide the run's result: what must be equal for two runs
                to be the same one.
            name: The experiment.
            overwrite: Whether a run that lies there may be deleted.

        Returns:
            "fresh", "resumed" or "finished".

        Raises:
            ValueError: The directory holds another run (the first flag that differs is named
                with both values), or files that are no run of ours, or is not a directory.
            PermissionError: It cannot be written to.
        """
        path = pathlib.Path(path)
        _check_place(path)
        entries = _entries(path)
        if not entries or (path / _CLEARING).exists():
            return "fresh"
        record = _record(path)
        if overwrite:
            nested = sorted(path.glob(f"*/{RUN}"))
            if nested:
                raise ValueError(f"workdir {path} holds other runs ({nested[0].parent}): kept")
            return "fresh"
        _check_same(path, record, _flags_json(flags), name)
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
        """Make the run directory, or go on with the run that lies there.

        The directory stays locked against a second process until :meth:`close`; a kill
        releases it too.

        Args:
            path: The run directory; parents are made.
            flags: The options that decide the run's result.
            name: The experiment.
            overwrite: Delete the run that lies there and start afresh. Only a directory that
                is a run (it has a run.json of ours) is ever deleted.

        Returns:
            The directory; look at its ``state``.

        Raises:
            ValueError: As :meth:`inspect`, or another process is writing there, or the
                directory cannot be made.
            PermissionError: It cannot be written to.
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
            # Another process may have finished or begun a run before the lock was ours.
            state = cls.inspect(path, flags, name=name, overwrite=overwrite)
            if state == "fresh":
                lock.seconds = 0.0
                _clear(path)
                write_json(path / RUN, {"experiment": name, "flags": _flags_json(flags), **_now()})
            elif state == "resumed":
                record = _record(path)
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
        """Where the report goes."""
        return self.path / REPORT

    @property
    def checkpoints(self) -> pathlib.Path:
        """Where checkpoints go."""
        return self.path / "checkpoints"

    @property
    def seconds(self) -> float:
        """Seconds of work so far, those of earlier, killed processes included."""
        return self._before + time.monotonic() - self._begun

    def record(self) -> dict[str, Any]:
        """What run.json says: experiment, flags, versions, devices, revision."""
        return _record(self.path)

    def cost(self) -> dict[str, Any]:
        """``wall_seconds`` over all processes of the run and this one's ``peak_memory_bytes``."""
        return {
            "wall_seconds": self.seconds,
            "peak_memory_bytes": _provenance.peak_memory_bytes(),
        }

    def log(self, step: int, *, stage: str = "", **scalars: Any) -> None:
        """Add one line to metrics.jsonl and one point per scalar to the TensorBoard events.

        After a resume, the first line of a stage drops what the killed process had logged for
        that stage at this step and after it, so that a step is never there twice.

        Args:
            step: The step the scalars belong to.
            stage: Which part of the run, as "train/standard"; steps count per stage.
            **scalars: Anything ``float`` takes, device scalars included; any name but
                "seconds", which every line has.
        """
        if "seconds" in scalars:
            raise ValueError("scalars: every line has its own 'seconds', choose another name")
        values = {key: float(value) for key, value in scalars.items()}
        self._log.write(int(step), stage, self.seconds, values)

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The lines logged so far, of one stage or of all."""
        return self._log.lines(stage)

    def figure(self, name: str) -> pathlib.Path:
        """Path for a figure, ``figures/NAME.png``; its folder exists afterwards."""
        path = self.path / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def arrays_path(self, name: str) -> pathlib.Path:
        """Where :meth:`save_arrays` puts NAME; exists only when it was written completely."""
        return self.path / f"{name}.npz"

    def save_arrays(
        self, name: str, arrays: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> pathlib.Path:
        """Write ``NAME.npz`` and, beside it, ``NAME.json`` saying where it came from.

        Args:
            name: File name without ending, relative to the run directory.
            arrays: Name to array; numbers, booleans or strings, since the file must open with
                ``allow_pickle=False``.
            provenance: Anything JSON can hold. Shapes, dtypes, the file's SHA-256, the
                revision and the versions are added.

        Returns:
            Path of the ``.npz``.

        Raises:
            ValueError: An array of another dtype.
        """
        host = {key: np.asarray(value) for key, value in arrays.items()}
        for key, value in host.items():
            if value.dtype.kind not in "biufcSU":
                raise ValueError(
                    f"arrays[{key!r}] has dtype {value.dtype}: a .npz without pickle holds only "
                    "numbers, booleans and strings (cast bfloat16 to float32)"
                )
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **host)  # type: ignore[arg-type]
        content = buffer.getvalue()
        path = self.arrays_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The record first: an array file, once there, is never without its provenance.
        record = {
            **provenance,
            "arrays": {k: {"shape": v.shape, "dtype": str(v.dtype)} for k, v in host.items()},
            CHECKSUM: hashlib.sha256(content).hexdigest(),
            "revision": _provenance.revision(),
            "versions": _provenance.versions(),
        }
        write_json(path.with_suffix(".json"), record)
        write_bytes(path, content)
        return path

    def finish(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Write summary.json, which makes the run a finished one, and close the directory.

        Args:
            summary: Nested dicts and lists of numbers and strings; arrays become lists, NaN
                and infinity become null.

        Returns:
            The summary as it now reads on disk.
        """
        self._log.close()
        write_json(self.path / SUMMARY, summary)
        self.state = "finished"
        self.close()
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """The finished run's summary.

        Raises:
            FileNotFoundError: The run is not finished.
            DamagedError: It is no JSON object.
        """
        return read_json(self.path / SUMMARY)

    def close(self) -> None:
        """Flush the metrics and let other processes at the directory."""
        try:
            self._log.close()
        finally:  # the log's last words may not fit on the disk
            if self._lock is not None:
                self._lock.close()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _flags_json(flags: Mapping[str, Any]) -> dict[str, Any]:
    # eps may be infinite, which must not become the same null as "no value".
    return plain(dict(flags), nonfinite="text")


def _now() -> dict[str, Any]:
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": _provenance.versions(),
        "devices": _provenance.devices(),
        "revision": _provenance.revision(),
    }


def _check_place(path: pathlib.Path) -> None:
    """Raise unless `path` is a writable directory or can be made one."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"workdir {path}: {nearest} is a file, not a directory")
    finished = nearest == path and (path / SUMMARY).exists()
    if not finished and not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"workdir {path}: {nearest} cannot be written to")


def _entries(path: pathlib.Path) -> list[pathlib.Path]:
    """What lies in the directory, but for what a run killed at its very start leaves."""
    if not path.is_dir():
        return []
    ours = {_LOCK, _CLEARING, f".{RUN}.tmp"}
    return [entry for entry in path.iterdir() if entry.name not in ours]


def _record(path: pathlib.Path) -> dict[str, Any]:
    try:
        record = read_json(path / RUN)
        kinds = {"experiment": str, "flags": dict, "resumed": list}
        if all(isinstance({"resumed": [], **record}[key], kind) for key, kind in kinds.items()):
            return record
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"workdir {path} is not empty and holds no run ({RUN}): choose another")


def _check_same(
    path: pathlib.Path, record: Mapping[str, Any], flags: Mapping[str, Any], name: str
) -> None:
    """Raise if `record` is of another experiment or other flags."""
    advice = "choose another workdir, or --overwrite"
    if record["experiment"] != name:
        raise ValueError(
            f"workdir {path} holds a run of {record['experiment']}, not of {name}; {advice}"
        )
    stored = record["flags"]
    for key in [*flags, *(key for key in stored if key not in flags)]:
        there, here = stored.get(key, _ABSENT), flags.get(key, _ABSENT)
        if there != here:
            raise ValueError(
                f"workdir {path} holds a run with --{key}={_text(there)}, "
                f"not --{key}={_text(here)}; {advice}"
            )


def _text(value: Any) -> str:
    """A flag's value as it would be typed."""
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _acquire(path: pathlib.Path) -> RunLock:
    try:
        return RunLock(path / _LOCK)
    except BlockingIOError:
        raise ValueError(f"workdir {path}: another process is writing there") from None


def _clear(path: pathlib.Path) -> None:
    """Empty the directory so that a kill in between is noticed and made good by the next."""
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
