"""What stands around one training in a run: bar, log, saved states, the end by a signal."""

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
from advfeat.runs import processes, signals
from advfeat.runs.config import UsageError
from advfeat.runs.directory import RunDirectory
from advfeat.runs.selection import Watch
from advfeat.runs.train_states import Saved, TrainingCheckpoints
from advfeat.training.sharding import local

from .recipes import Recipe

SAVE_SECONDS = 30.0  # a kill loses at most this much work; ADVFEAT_SAVE_SECONDS overrides it
LOOK_SECONDS = 1.0  # between two looks at the clock, and one step


def save_seconds() -> float:
    """Seconds between two saves.

    Raises:
      UsageError: for a variable that is no number.
    """
    text = os.environ.get("ADVFEAT_SAVE_SECONDS", "")
    try:
        return float(text or SAVE_SECONDS)
    except ValueError:
        raise UsageError(f"ADVFEAT_SAVE_SECONDS={text}: must be a number of seconds") from None


class Progress:
    """The bar, the log and the checkpoints of one training, in the process that has the run."""

    def __init__(
        self,
        run: RunDirectory,
        name: str,
        recipe: Recipe,
        held_out: tuple[np.ndarray, np.ndarray] | None,
        on_epoch: Callable[[int], Any] | None,
        watch: Watch | None = None,
    ) -> None:
        self._run, self._name, self._recipe, self._held_out = run, name, recipe, held_out
        self._watch, self._procedure = watch, recipe.procedure()
        self._model = recipe.spec.build()
        self._path = run.checkpoints / name
        self._store: TrainingCheckpoints | None = None
        self._every = save_seconds()
        self._saved_at = self._looked_at = time.monotonic()
        self._bar = None if on_epoch else tqdm(total=recipe.how.epochs, desc=name, unit="epoch")
        self._advance = on_epoch or self._bar.update  # type: ignore[union-attr]
        self._epochs_before = 0

    def earlier(self, variables: Any, examples: int) -> Saved | None:
        """The newest saved state of this training, if a killed process left one."""
        if not self._path.exists():
            return None
        shape = (examples, *self._recipe.spec.input_shape)
        blank = training.initial_state(variables, self._recipe.how, self._procedure, shape=shape)
        return self._opened().latest(blank)

    def look(self) -> bool:
        """Whether the training is to come to the host: to stop, or because it was long away."""
        if not processes.alone():  # clocks differ, and all must come together
            return signals.agreed()
        away = time.monotonic() - self._looked_at
        return signals.requested() or away > LOOK_SECONDS

    def chunk(self, state: training.TrainState, seen: dict[str, np.ndarray]) -> None:
        """Saves the state now and then, and before the process must go."""
        self._looked_at = time.monotonic()
        if signals.requested():
            self._opened().save(state, seen, wait=True)
            processes.wait("saved")
            raise signals.Terminated
        if self._looked_at - self._saved_at >= self._every and self._opened().save(state, seen):
            self._saved_at = time.monotonic()

    def epoch(self, epoch: int, state: training.TrainState, means: dict[str, float]) -> bool:
        """Logs an epoch with the held-out accuracy of the network as it stands; True ends here."""
        scalars, ends = dict(means), False
        variables = local(self._procedure.variables(state))
        if self._held_out is not None:
            hits = advfeat.correct(models.model_fn(self._model, variables), *self._held_out)
            scalars["held_out_accuracy"] = float(hits.mean())
        if self._watch is not None:
            scalars["held_out_robust_accuracy"], ends = self._watch.epoch(epoch, variables)
        self._run.log(epoch, stage=f"train/{self._name}", **scalars)
        self._advance(epoch - self._epochs_before)  # several where a saved state came first
        self._epochs_before = epoch
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.3f}" for k, v in scalars.items()}, refresh=False)
        return ends if processes.alone() else bool(processes.tell_all(ends))

    def good_until(self, step: int) -> str:
        """Leaves no state from which the loss at `step` was no number; says what is kept."""
        if self._store is not None:
            self._store.discard_from(step)
        steps = self._store.steps() if self._store is not None else []
        if not steps:
            return "no state had been saved before it; begin again in another workdir"
        return (
            f"the state of step {steps[-1]} is kept in {self._path}, where the same command goes "
            "on; another rate begins again, in another workdir"
        )

    def close(self, *, finished: bool) -> None:
        """Ends the bar; a finished training's checkpoints are no longer needed."""
        if self._bar is not None:
            self._bar.close()
        if self._store is not None:
            self._store.close(delete=finished)

    def _opened(self) -> TrainingCheckpoints:
        if self._store is None:
            self._store = TrainingCheckpoints(self._path, warn=_warn)
        return self._store


class Follower:
    """The same in another process of the training: it waits where the first has something to do."""

    def look(self) -> bool:
        """As `Progress.look`."""
        return signals.agreed()

    def chunk(self, state: training.TrainState, seen: dict[str, np.ndarray]) -> None:
        """As `Progress.chunk`; the first process saves."""
        del state, seen
        if signals.requested():
            processes.wait("saved")
            raise signals.Terminated

    def epoch(self, epoch: int, state: training.TrainState, means: dict[str, float]) -> bool:
        """As `Progress.epoch`; the first process measures, and says whether to end."""
        del epoch, state, means
        return bool(processes.tell_all(None))


def _warn(text: str) -> None:
    tqdm.write(f"warning: {text}", file=sys.stderr)  # a bar may be on the terminal
