"""Accompanies one training in a run: progress bar, log, saved states, stop on a signal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import models, training
from advfeat.devices import home
from advfeat.runs import processes, signals
from advfeat.runs.config import UsageError
from advfeat.runs.directory import RunDirectory
from advfeat.runs.selection import Watch
from advfeat.runs.train_states import TrainingCheckpoints

from .recipes import Recipe

SAVE_SECONDS = 30.0  # a kill loses at most this much work; ADVFEAT_SAVE_SECONDS overrides it
LOOK_SECONDS = 1.0  # between two returns to the host, plus at most one step


def save_seconds() -> float:
    """Returns the seconds between two saves.

    Raises:
      UsageError: if the environment variable is not a number.
    """
    text = os.environ.get("ADVFEAT_SAVE_SECONDS", "")
    try:
        return float(text or SAVE_SECONDS)
    except ValueError:
        raise UsageError(f"ADVFEAT_SAVE_SECONDS={text}: must be a number of seconds") from None


class Progress:
    """Bar, log and checkpoints of one training, in the process that owns the run."""

    def __init__(
        self,
        run: RunDirectory,
        name: str,
        recipe: Recipe,
        held_out: tuple[np.ndarray, np.ndarray] | None,
        advance: Callable[[int], Any] | None,
        watch: Watch | None = None,
    ) -> None:
        self._run, self._name, self._recipe, self._held_out = run, name, recipe, held_out
        self._watch, self._procedure = watch, recipe.procedure()
        self._model = recipe.spec.build()
        self._path = run.checkpoints / name
        self._store: TrainingCheckpoints | None = None
        self._every = save_seconds()
        self._saved_at = self._looked_at = time.monotonic()
        self._bar = None if advance else tqdm(total=recipe.config.epochs, desc=name, unit="epoch")
        self._advance = advance or self._bar.update  # type: ignore[union-attr]
        self._epochs_before = 0

    def earlier(self, variables: Any, examples: int) -> training.Saved | None:
        """Returns the newest saved state of this training, if a killed process left one."""
        if not self._path.exists():
            return None
        shape = (examples, *self._recipe.spec.input_shape)
        blank = training.initial_state(variables, self._recipe.config, self._procedure, shape=shape)
        return self._opened().latest(blank)

    def stop(self) -> bool:
        """Returns whether to end the chunk: on a signal, or if the host has waited too long."""
        if not processes.alone():  # clocks differ, but all processes must stop together
            return signals.agreed()
        away = time.monotonic() - self._looked_at
        return signals.requested() or away > LOOK_SECONDS

    def chunk(self, state: training.TrainState, seen: dict[str, np.ndarray]) -> None:
        """Saves the state periodically, and before the process has to exit."""
        self._looked_at = time.monotonic()
        if signals.requested():
            self._opened().save(state, seen, wait=True)
            processes.wait("saved")
            raise signals.Terminated
        if self._looked_at - self._saved_at >= self._every and self._opened().save(state, seen):
            self._saved_at = time.monotonic()

    def epoch(self, epoch: int, state: training.TrainState, means: dict[str, float]) -> bool:
        """Logs an epoch with the network's current held-out accuracy; True ends the training."""
        scalars, ends = dict(means), False
        variables = home(self._procedure.variables(state))
        if self._held_out is not None:
            hits = advfeat.correct(models.model_fn(self._model, variables), *self._held_out)
            scalars["held_out_accuracy"] = float(hits.mean())
        if self._watch is not None:
            scalars["held_out_robust_accuracy"], ends = self._watch.epoch(epoch, variables)
        self._run.log(epoch, stage=f"train/{self._name}", **scalars)
        self._advance(epoch - self._epochs_before)  # more than one after resuming
        self._epochs_before = epoch
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.3f}" for k, v in scalars.items()}, refresh=False)
        return ends if processes.alone() else bool(processes.tell_all(ends))

    def good_until(self, step: int) -> str:
        """Discards states from `step`, where the loss was not finite; says which state is kept."""
        if self._store is not None:
            self._store.discard_from(step)
        steps = self._store.steps() if self._store is not None else []
        if not steps:
            return "no state had been saved before it; start again in another workdir"
        return (
            f"the state of step {steps[-1]} is kept in {self._path}; rerun the command to resume "
            "from it, or start again in another workdir with another rate"
        )

    def close(self, *, finished: bool) -> None:
        """Closes the bar; deletes the checkpoints of a finished training."""
        if self._bar is not None:
            self._bar.close()
        if self._store is not None:
            self._store.close(delete=finished)

    def _opened(self) -> TrainingCheckpoints:
        if self._store is None:
            self._store = TrainingCheckpoints(self._path, warn=_warn)
        return self._store


class Follower:
    """Counterpart of `Progress` in the other processes: waits whenever the first has work to do."""

    def stop(self) -> bool:
        """Like `Progress.stop`."""
        return signals.agreed()

    def chunk(self, state: training.TrainState, seen: dict[str, np.ndarray]) -> None:
        """Like `Progress.chunk`; the first process saves."""
        del state, seen
        if signals.requested():
            processes.wait("saved")
            raise signals.Terminated

    def epoch(self, epoch: int, state: training.TrainState, means: dict[str, float]) -> bool:
        """Like `Progress.epoch`; the first process measures and decides whether to stop."""
        del epoch, state, means
        return bool(processes.tell_all(None))


def _warn(text: str) -> None:
    tqdm.write(f"warning: {text}", file=sys.stderr)  # leaves a progress bar intact
