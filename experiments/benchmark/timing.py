"""Times contenders turn by turn, and compares them without assuming a distribution."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special

from advfeat.stats import Estimate

SHORTEST = 0.1
"""Seconds: a call that takes less is repeated within a turn."""
LEAST_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do a work.

    Attributes:
      name: "advfeat", or a peer.
      call: does the work and returns its result once it is computed, not merely begun.
      found: turns that result into what is compared; not timed.
    """

    name: str
    call: Callable[[], Any]
    found: Callable[[Any], Any] = lambda result: result


def once(call: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the seconds of a call, and its result."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def in_turns(
    contenders: Sequence[Contender],
    warm: Sequence[float],
    *,
    rounds: int,
    budget: float,
    shortest: float = SHORTEST,
) -> np.ndarray:
    """Times contenders turn by turn; the order alternates, so that none always comes first.

    Args:
      contenders: which have been called before and compile nothing any more.
      warm: seconds of such a call of each, roughly.
      rounds: number of rounds.
      budget: seconds after which no further round begins, once there are `LEAST_ROUNDS`.
      shortest: seconds that a turn takes at least, by repeating the call.

    Returns:
      `[C, rounds]` seconds of a call; fewer rounds if the budget ended.
    """
    begun = time.monotonic()
    repeats = [max(1, math.ceil(shortest / max(seconds, 1e-6))) for seconds in warm]
    took: list[np.ndarray] = []
    while len(took) < rounds:
        if len(took) >= LEAST_ROUNDS and time.monotonic() - begun > budget:
            break
        turn = np.zeros(len(contenders))
        order = range(len(contenders))
        for index in order if len(took) % 2 == 0 else reversed(order):
            call = contenders[index].call
            started = time.perf_counter()
            for _ in range(repeats[index]):
                call()
            turn[index] = (time.perf_counter() - started) / repeats[index]
        took.append(turn)
    return np.stack(took, axis=1)


def median(values: np.ndarray) -> Estimate:
    """Returns a median with the distribution-free interval between two order statistics.

    The number of values below the true median is binomial. Fewer than six values have no interval
    of 95 %.

    >>> print(median(np.array([1.1, 1.3, 1.2, 1.25, 1.15, 1.22])))
    1.210 [1.100, 1.300]
    >>> median(np.array([1.0, 2.0, 3.0])).known
    False
    """
    ordered = np.sort(np.asarray(values, np.float64))
    count = len(ordered)

    def at(level: float) -> tuple[float, float] | None:
        # Values k and N - 1 - k (from 0) miss with a chance of P(Binomial(N, 1/2) <= k) each.
        inside = [
            k for k in range((count + 1) // 2) if 2 * scipy.special.bdtr(k, count, 0.5) <= 1 - level
        ]
        return (float(ordered[inside[-1]]), float(ordered[-1 - inside[-1]])) if inside else None

    low, high = at(0.95) or (None, None)
    return Estimate(float(np.median(ordered)), low, high, count, unit="number")


class PeakMemory:
    """What a call adds at most to the process's resident memory, in bytes; Linux only.

    The kernel keeps the high-water mark and resets it on request; what the allocator has kept is
    given back first, so that it is not mistaken for memory in use.
    """

    _STATUS, _RESET = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")

    @classmethod
    def of(cls, call: Callable[[], Any]) -> tuple[float, float]:
        """Calls and returns the bytes, NaN where the system does not tell, and the seconds."""
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)
            cls._RESET.write_text("5")
            before = cls._read("VmRSS")
        except (OSError, AttributeError):
            return math.nan, once(call)[0]
        seconds, _ = once(call)
        return max(cls._read("VmHWM") - before, 0.0), seconds

    @classmethod
    def _read(cls, name: str) -> float:
        for line in cls._STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024.0 * int(line.split()[1])
        raise OSError(f"{cls._STATUS} has no {name}")
