"""Logs a run's scalars per step, as JSON lines and as TensorBoard events.

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
    """Writes `metrics.jsonl` and `tensorboard/` of a run, by one process at a time.

    A line truncated by a kill is removed when the log is reopened.

    Args:
      root: the run directory.

    Attributes:
      seconds: seconds of work according to the last line found at opening.
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
        """Adds one line, and one point per scalar.

        The first line of a stage since opening removes an earlier process's entries of that stage
        from this step on.

        Args:
          step: the step of the scalars; steps count per stage.
          stage: the part of the run; "" is the run itself.
          seconds: seconds of work so far.
          scalars: name to value; NaN and infinity become null in the line.
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
            import tensorboardX  # imported only by runs that log

            # purge_step makes TensorBoard drop an earlier file's points from here on.
            self._events[stage] = tensorboardX.SummaryWriter(
                str(self._root / EVENTS / stage), purge_step=step if stale else None
            )
        for name, value in scalars.items():
            if math.isfinite(value):  # tensorboardX warns about non-finite values
                self._events[stage].add_scalar(name, value, step)

    def lines(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Returns the existing lines, of one stage or of all."""
        return [line for line in self._read() if stage is None or line["stage"] == stage]

    def close(self) -> None:
        """Flushes and closes every file; writing reopens them."""
        self._close_lines()
        for writer in self._events.values():
            writer.close()
        self._events.clear()

    def _close_lines(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> list[dict[str, Any]]:
        """Returns the lines before the first truncated one."""
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
        """Removes the stage's lines from `step` on."""
        self._close_lines()
        kept = [line for line in self._read() if line["stage"] != stage or line["step"] < step]
        write_bytes(self._path, _encode(kept))


def _encode(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
