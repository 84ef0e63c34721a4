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

from jax.experimental import multihost_utils

from advfeat.runs import processes

TERMINATED = 143  # the shells' code for an end by SIGTERM


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, nothing but the end of the program is meant."""


class _State:
    listening = False
    requested = False
    held = 0
    looks = 0


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
    _State.listening = True
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _State.listening = _State.requested = False


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


def agreed() -> bool:
    """Whether SIGTERM has come to any process of a distributed training, told to all alike.

    While processes are joined, JAX takes the signal, in each of them, and finds a number of calls
    that none has made yet; so all must call it equally often.
    """
    if not _State.requested:
        _State.looks += 1
        _State.requested = multihost_utils.reached_preemption_sync_point(_State.looks)
    return _State.requested


def leave() -> None:
    """Parts from the other processes; the signal is this one's own again."""
    processes.leave()
    if _State.listening:
        signal.signal(signal.SIGTERM, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    del number, frame
    if not _State.requested:
        _State.requested = True
        if not _State.held:
            raise Terminated
