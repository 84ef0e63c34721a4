"""The lock of a run directory, which also remembers how long its processes have worked."""

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

BEAT_SECONDS = 2.0  # of work time that a SIGKILL can leave uncounted


class RunLock:
    """Holds a directory's lock file until :meth:`close`; a kill lets it go too.

    Seconds of work are written into it every `BEAT_SECONDS` by a thread, so that they count
    whatever ends the process.

    Args:
        path: The lock file; made if it does not exist.

    Attributes:
        seconds: Seconds of work that earlier processes have left in it.

    Raises:
        BlockingIOError: Another process holds it.
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
        """Begin to write the time: `before`, and what passes from now on."""
        self.seconds, self._begun = before, time.monotonic()
        # The thread must not keep a lock alive that its owner has forgotten.
        arguments = (weakref.ref(self), self._stop)
        self._thread = threading.Thread(target=_beat, args=arguments, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the time once more and let other processes at the directory."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self.write()
        self._file.close()

    def write(self) -> None:
        """Write the seconds of work so far."""
        passed = self.seconds + time.monotonic() - self._begun
        with contextlib.suppress(OSError):  # a full disk is told by what the user asked for
            self._file.seek(0)
            self._file.write(f"{passed:020.3f}".encode())  # in place, always of one length

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
