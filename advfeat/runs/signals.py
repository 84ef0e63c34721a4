"""Handles SIGTERM, which a cluster sends before it reclaims a machine: save, then exit.

After Ctrl-C somebody at the terminal can press it again. A preempted process has half a minute, so
a training stops after the current step, saves and exits.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from jax.experimental import multihost_utils

from advfeat.runs import processes

TERMINATED = 143  # the shells' exit code for SIGTERM


class Terminated(BaseException):
    """Raised on SIGTERM; like KeyboardInterrupt, it should only end the program."""


class _State:
    listening = False
    requested = False
    held = 0
    looks = 0


def requested() -> bool:
    """Returns whether SIGTERM has come; a holder must then save and raise `Terminated`."""
    return _State.requested


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """While active, SIGTERM raises `Terminated` once; further signals have no effect."""
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
    """While active, SIGTERM only sets `requested`; it is raised at the end."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
    if _State.requested and not _State.held:
        raise Terminated


def agreed() -> bool:
    """Returns whether SIGTERM has come to any process of a distributed training, equally for all.

    While processes are joined, JAX handles the signal in each of them and agrees on a call count
    that no process has reached yet; so all must call this equally often.
    """
    if not _State.requested:
        _State.looks += 1
        _State.requested = multihost_utils.reached_preemption_sync_point(_State.looks)
    return _State.requested


def leave() -> None:
    """Leaves the other processes; SIGTERM is handled by this process alone again."""
    processes.leave()
    if _State.listening:
        signal.signal(signal.SIGTERM, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    del number, frame
    if not _State.requested:
        _State.requested = True
        if not _State.held:
            raise Terminated
