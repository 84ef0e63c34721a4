"""SIGTERM, which a cluster sends before it takes a machine back: save, then leave.

Ctrl-C is somebody at the terminal, who has a second one. A preempted process has half a minute,
so what is in the middle of a step ends it, saves and goes.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

TERMINATED = 143  # the shells' code for an end by SIGTERM


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, nothing but the end of the program is meant."""


class _State:
    requested = False
    held = 0


def requested() -> bool:
    """Whether SIGTERM has come: who holds it is to save and raise :class:`Terminated`."""
    return _State.requested


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """While it lasts, SIGTERM raises :class:`Terminated`, once; more of them change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _State.requested = False


@contextlib.contextmanager
def held() -> Iterator[None]:
    """While it lasts, SIGTERM only sets :func:`requested`; at its end it is raised."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
    if _State.requested and not _State.held:
        raise Terminated


def _handle(number: int, frame: FrameType | None) -> None:
    del number, frame
    if not _State.requested:
        _State.requested = True
        if not _State.held:
            raise Terminated
