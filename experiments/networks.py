"""Networks inside a run: trained once, with a bar and checkpoints, then read from the run."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import checkpoints, models, training
from advfeat.checkpoints import Network, NetworkSpec
from advfeat.data import Dataset, Split
from advfeat.results import RunDirectory
from advfeat.training_checkpoints import Saved, TrainingCheckpoints
from experiments import stopping
from experiments.config import UsageError
from experiments.recipes import Recipe
from experiments.selection import Watch

SAVE_SECONDS = 30.0  # a kill loses at most this much work; ADVFEAT_SAVE_SECONDS overrides it
LOOK_SECONDS = 1.0  # between two looks at the clock, and one step


def spec_for(
    dataset: Dataset, model: str, *, width: int | None = None, bfloat16: bool = False
) -> NetworkSpec:
    """A network for a data set: its classes, its images, its pixel statistics."""
    spec = NetworkSpec(
        model=model,
        class_names=tuple(dataset.class_names),
        input_shape=dataset.input_shape,
        mean=tuple(float(value) for value in dataset.mean),
        std=tuple(max(float(value), 1e-3) for value in dataset.std),
        width=width,
        bfloat16=bfloat16,
    )
    # What does not fit (images too small for the strides, say) shows before any work.
    built = spec.build()
    jax.eval_shape(lambda: models.init(jax.random.key(0), built, spec.input_shape))
    return spec


def train(
    run: RunDirectory,
    name: str,
    key: jax.Array,
    recipe: Recipe,
    split: Split,
    *,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    keep: bool = True,
    on_epoch: Callable[[int], Any] | None = None,
) -> Network:
    """Trains a network in a run, going on where a killed process left it.

    Args:
      run: the open run directory.
      name: the network's name in it.
      key: a typed key; initial weights, order and attacks follow from it.
      recipe: architecture and training.
      split: what to train on.
      held_out: images in [0, 1] and labels whose accuracy is logged after every epoch.
      keep: whether the run keeps the network itself (`networks/NAME`).
      on_epoch: called with the epochs done since the last call (a bar's `update`); by default a
        bar of its own.

    Returns:
      The trained network.
    """
    kept_at = run.path / "networks" / name
    watch = None
    if recipe.selection is not None and recipe.threat is not None and held_out is not None:
        place = run.checkpoints / f"{name}.watch"
        watch = Watch(place, recipe.selection, recipe.spec, recipe.threat, held_out)
    if keep and checkpoints.is_saved(kept_at):
        # A kill may have come before the states of its training were removed.
        shutil.rmtree(run.checkpoints / name, ignore_errors=True)
        if watch is not None:  # a kill may have come before this
            watch.close()
        return checkpoints.load_network(str(kept_at))
    key_init, key_fit = jax.random.split(key)
    variables, procedure = recipe.variables(key_init), recipe.procedure()
    progress = _Progress(run, name, recipe, held_out, on_epoch, watch)
    weights: Any = None
    try:
        with stopping.held():
            earlier = progress.earlier(variables, len(split))
        # Where an earlier process ended the training, and was killed then, there is none to do.
        if watch is None or watch.ended is None:
            state = training.fit(
                key_fit,
                recipe.loss_fn(),
                variables,
                split.image,
                split.label,
                recipe.how,
                num_classes=len(recipe.spec.class_names),
                procedure=procedure,
                ids=split.id,
                state=earlier.state if earlier else None,
                seen=earlier.seen if earlier else None,
                look=progress.look,
                on_chunk=progress.chunk,
                on_epoch=progress.epoch,
            )
            weights = procedure.variables(state)
        record = recipe.record()
        if watch is not None:
            weights, record["selection"] = watch.chosen(weights), watch.summary()
        network = Network(recipe.spec, weights, record)
        if keep:
            checkpoints.save_network(kept_at, network)
    except training.NotFinite as error:
        kept = progress.good_until(error.step)
        progress.close(finished=False)
        raise training.NotFinite(f"{name}: {error}; {kept}", error.step) from None
    except BaseException:
        progress.close(finished=False)
        raise
    progress.close(finished=True)
    if watch is not None:
        watch.close()
    return network


def _save_seconds() -> float:
    text = os.environ.get("ADVFEAT_SAVE_SECONDS", "")
    try:
        return float(text or SAVE_SECONDS)
    except ValueError:
        raise UsageError(f"ADVFEAT_SAVE_SECONDS={text}: must be a number of seconds") from None


class _Progress:
    """The bar, the log and the checkpoints of one training."""

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
        self._every = _save_seconds()
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
        away = time.monotonic() - self._looked_at
        return stopping.requested() or away > LOOK_SECONDS

    def chunk(self, state: training.TrainState, seen: dict[str, np.ndarray]) -> None:
        """Saves the state now and then, and before the process must go."""
        self._looked_at = time.monotonic()
        if stopping.requested():
            self._opened().save(state, seen, wait=True)
            raise stopping.Terminated
        if self._looked_at - self._saved_at >= self._every and self._opened().save(state, seen):
            self._saved_at = time.monotonic()

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

    def _opened(self) -> TrainingCheckpoints:
        if self._store is None:
            self._store = TrainingCheckpoints(self._path, warn=_warn)
        return self._store

    def epoch(self, epoch: int, state: training.TrainState, means: dict[str, float]) -> bool:
        """Logs an epoch with the held-out accuracy of the network as it stands; True ends here."""
        scalars, ends = dict(means), False
        variables = self._procedure.variables(state)
        if self._held_out is not None:
            hits = advfeat.accuracy(models.model_fn(self._model, variables), *self._held_out)
            scalars["held_out_accuracy"] = float(hits.mean())
        if self._watch is not None:
            scalars["held_out_robust_accuracy"], ends = self._watch.epoch(epoch, variables)
        self._run.log(epoch, stage=f"train/{self._name}", **scalars)
        self._advance(epoch - self._epochs_before)  # several where a saved state came first
        self._epochs_before = epoch
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.3f}" for k, v in scalars.items()}, refresh=False)
        return ends

    def close(self, *, finished: bool) -> None:
        """Ends the bar; a finished training's checkpoints are no longer needed."""
        if self._bar is not None:
            self._bar.close()
        if self._store is not None:
            self._store.close(delete=finished)


def _warn(text: str) -> None:
    tqdm.write(f"warning: {text}", file=sys.stderr)  # a bar may be on the terminal
