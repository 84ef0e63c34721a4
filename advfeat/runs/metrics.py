"""Scalars of a run over its steps: JSON lines, and the same as TensorBoard events.

The events are written by tensorboardX, which needs no TensorFlow.
"""

from __future__ import annotations

import json
import math
import pathlib
from typing import IO, Any

from advfeat.runs.files import plain, write_bytes

METRICS, EVENTS = "metrics.jsonl", "tensorboard"


class MetricsLog:
    """``metrics.jsonl`` and ``tensorboard/`` of one run, written by one process at a time.

    A line torn by a kill is cut off when the log is opened again.

    Args:
        root: The run directory.

    Attributes:
        seconds: Seconds of work the last line found at opening speaks of.
    """

    def __init__(self, root: pathlib.Path):
        self._root = root
        self._path = root / METRICS
        self._file: IO[str] | None = None
        self._events: dict[str, Any] = {}
        lines = self._repair()
        self._last_step = {line["stage"]: line["step"] for line in lines}
        self.seconds = max((line["seconds"] for line in lines), default=0.0)

    def write(self, step: int, stage: str, seconds: float, scalars: dict[str, float]) -> None:
        """Add one line, and one point per scalar.

        The first line of a stage since opening drops what an earlier process had logged for
        that stage at this step and after it.

        Args:
            step: The step the scalars belong to; steps count per stage.
            stage: Which part of the run; "" is the run itself.
            seconds: Seconds of work so far.
            scalars: Name to value; NaN and infinity become null in the line.
        """
        last = self._last_step.pop(stage, None)
        stale = last is not None and last >= step
        if stale:
            self._rewind(stage, step)
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        line = {"stage": stage, "step": step, "seconds": round(seconds, 3), **scalars}
        self._file.write(json.dumps(plain(line), allow_nan=False) + "\n")
        self._file.flush()
        if stage not in self._events:
            import tensorboardX  # only a run that logs needs it

            # purge_step tells TensorBoard to forget an earlier file's points from here on.
            self._events[stage] = tensorboardX.SummaryWriter(
                str(self._root / EVENTS / stage), purge_step=step if stale else None
            )
        for name, value in scalars.items():
            if math.isfinite(value):  # tensorboardX prints a warning for every other
                self._events[stage].add_scalar(name, value, step)

    def lines(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The lines there are, of one stage or of all."""
        return [line for line in self._read() if stage is None or line["stage"] == stage]

    def close(self) -> None:
        """Flush and close every file; writing again opens them again."""
        self._close_lines()
        for writer in self._events.values():
            writer.close()
        self._events.clear()

    def _close_lines(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> list[dict[str, Any]]:
        """The complete lines before the first that is torn."""
        lines: list[dict[str, Any]] = []
        if self._path.exists():
            for line in self._path.read_bytes().split(b"\n")[:-1]:
                try:
                    found = json.loads(line)
                    str(found["stage"]), int(found["step"]), float(found["seconds"])
                except (ValueError, KeyError, TypeError):
                    break
                lines.append(found)
        return lines

    def _repair(self) -> list[dict[str, Any]]:
        lines = self._read()
        if self._path.exists() and self._path.read_bytes() != _encode(lines):
            write_bytes(self._path, _encode(lines))
        return lines

    def _rewind(self, stage: str, step: int) -> None:
        """Drop the stage's lines at `step` and after it."""
        self._close_lines()
        kept = [line for line in self._read() if line["stage"] != stage or line["step"] < step]
        write_bytes(self._path, _encode(kept))


def _encode(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
