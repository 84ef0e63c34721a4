"""A train step in two programs: the attack shared by all CPU devices, the update on one.

An attack treats every example alone, and a device per core runs it faster than one program on all
cores. The update's weight gradients use all cores already, and shared they would need sums over the
devices (docs/results/speed.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from advfeat import devices
from advfeat.images.augmentation import Transform
from advfeat.training.losses.base import AdversarialObjective
from advfeat.training.padding import filled
from advfeat.training.procedures import Procedure
from advfeat.training.state import TrainState
from advfeat.training.steps import augmented, risen, weighted
from advfeat.types import Array, Key, LossFn, Metrics


def is_apart(loss_fn: LossFn, batch_size: int) -> bool:
    """Tests whether a step is made in two programs: for an attack, where CPU devices share it."""
    mesh = devices.local_mesh()
    if mesh is None or mesh.devices.flat[0].platform != "cpu":
        return False
    return isinstance(loss_fn, AdversarialObjective) and batch_size >= mesh.size


def apart_update(
    keys: tuple[Key, Key],
    state: TrainState,
    loss_fn: LossFn,
    given: Any,
    hyper: dict[str, Array],
    procedure: Procedure,
    *,
    make_optimiser: Callable[[dict[str, Array]], optax.GradientTransformation],
    augment: Transform,
) -> tuple[TrainState, Metrics]:
    """Makes one step; the state stays on one device.

    Args:
      keys: of the augmentation and of the steps.
      state: the state to update; its memory is donated.
      loss_fn: the objective, a pytree.
      given: arrays with the leading axis of the batch: `image`, `label`, `id`, and `weight` where
        rows may be padding.
      hyper: as for `train_update`.
      procedure: as for `train_update`.
      make_optimiser: as for `train_update`.
      augment: as for `train_update`.
    """
    key_augment, key = keys
    weights = (state.params, state.model_state)
    rest = (loss_fn, given, hyper, procedure)
    batch = devices.home(_prepared(key_augment, key, state.step, *weights, *rest, augment))
    return _finished(key, state, loss_fn, batch, hyper, procedure, make_optimiser=make_optimiser)


@devices.shared("given", static=("augment",))
def _prepared(
    key_augment: Key,
    key: Key,
    step: Array,
    params: Any,
    model_state: Any,
    loss_fn: LossFn,
    given: Any,
    hyper: dict[str, Array],
    procedure: Procedure,
    augment: Transform,
) -> dict[str, Any]:
    """Augments and attacks rows; returns no weights where none are given."""
    batch = augmented(key_augment, step, given, augment)
    loss_fn, procedure, _ = risen(step, loss_fn, hyper, procedure)
    root = jax.random.fold_in(key, step)
    found = procedure.prepare(root, loss_fn, params, model_state, filled(batch))
    return {name: leaf for name, leaf in found.items() if name in given or name != "weight"}  # type: ignore[misc]


@partial(jax.jit, static_argnames=("make_optimiser",), donate_argnames=("state",))
def _finished(
    key: Key,
    state: TrainState,
    loss_fn: LossFn,
    batch: Any,
    hyper: dict[str, Array],
    procedure: Procedure,
    *,
    make_optimiser: Callable[[dict[str, Array]], optax.GradientTransformation],
) -> tuple[TrainState, Metrics]:
    """Updates the state on what `_prepared` returns."""
    loss_fn, procedure, share = risen(state.step, loss_fn, hyper, procedure)
    root = jax.random.fold_in(key, state.step)
    batch = filled(weighted(batch))
    return procedure.finish(root, loss_fn, make_optimiser(hyper), state, batch, share)
