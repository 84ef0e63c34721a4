"""The lock of a run directory, which also stores the seconds of work so far."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
import time
import weakref

try:
    import fcntl
except ImportError:  # Windows: runs go unlocked there
    fcntl = None  # type: ignore[assignment]

BEAT_SECONDS = 2.0  # the work time that a SIGKILL can leave uncounted


class RunLock:
    """Holds a directory's lock file until `close` or the end of the process, even by a kill.

    A thread writes the seconds of work to it every `BEAT_SECONDS`, so that they count however the
    process ends.

    Args:
      path: the lock file; created if it does not exist.

    Attributes:
      seconds: seconds of work stored by earlier processes.

    Raises:
      BlockingIOError: if another process holds the lock.
    """

    def __init__(self, path: pathlib.Path):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._file = open(opened, "r+b", buffering=0)  # noqa: SIM115 - held until close()
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise
        except OSError:
            pass  # some network file systems have no locks
        self.seconds = self._read()
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def count(self, before: float) -> None:
        """Starts writing the time: `before` plus the time from now on."""
        self.seconds, self._begun = before, time.monotonic()
        # A weak reference, so that the thread does not keep a forgotten lock alive.
        arguments = (weakref.ref(self), self._stop)
        self._thread = threading.Thread(target=_beat, args=arguments, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes the time once more and releases the lock."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self.write()
        self._file.close()

    def write(self) -> None:
        """Writes the seconds of work so far."""
        passed = self.seconds + time.monotonic() - self._begun
        with contextlib.suppress(OSError):  # a full disk is reported by the run's own writes
            self._file.seek(0)
            self._file.write(f"{passed:020.3f}".encode())  # in place, at a constant length

    def _read(self) -> float:
        try:
            return float(self._file.read(64))
        except (OSError, ValueError):
            return 0.0


def _beat(reference: weakref.ref[RunLock], stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        lock = reference()
        if lock is None:
            return
        lock.write()
        del lock
