"""What a training calls on the host, and from where an interrupted one goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from advfeat.training.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """Functions that a training calls on the host; those that are None are not called.

    Attributes:
      stop: `() -> bool`, polled after every step; True ends the chunk of steps there, e.g. because
        the process must stop.
      on_chunk: `(state, metrics)`, called after every chunk of steps; the metrics are those of the
        epoch's steps so far, each `[n]` float64. It may keep the state, and stops the training by
        raising.
      on_epoch: `(finished epochs, state, the epoch's mean metrics)`, called after every epoch;
        returning True ends the training.
    """

    stop: Callable[[], bool] | None = None
    on_chunk: Callable[[TrainState, dict[str, np.ndarray]], Any] | None = None
    on_epoch: Callable[[int, TrainState, dict[str, float]], Any] | None = None


class Saved(NamedTuple):
    """Where an interrupted training stood, to resume it: what its `Hooks.on_chunk` was last given.

    Attributes:
      state: the training state.
      seen: metric name to `[n]` float64, over the epoch's steps before the state, so that the
        epoch's means cover all its steps.
    """

    state: TrainState
    seen: Mapping[str, np.ndarray] = MappingProxyType({})
