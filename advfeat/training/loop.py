"""The training loop: a pure function of key and data, interruptible between chunks of steps.

Order of the examples and all random draws follow from the key and the step, so a training resumed
from a saved state ends bit for bit like an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from advfeat import devices
from advfeat.checks import check_ids, check_images, check_labels, check_positive, check_share
from advfeat.edges import one_key
from advfeat.images.augmentation import TRANSFORMS
from advfeat.training.apart import apart_update, is_apart
from advfeat.training.hooks import Hooks, Saved
from advfeat.training.optimisers import SCHEDULES, schedule, sgd
from advfeat.training.procedures import Procedure
from advfeat.training.state import TrainState
from advfeat.training.steps import PLAIN, initial, train_update
from advfeat.training.warmup import check_scalable
from advfeat.types import Key, LossFn, Metrics

CHUNK = 50  # steps between two transfers to the host, each of which waits for the device
_AHEAD = 2  # steps queued beyond the running one: stopping has to wait for them


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training hyper-parameters: plain numbers, so a run's provenance can store them.

    Attributes:
      epochs: passes over the training set.
      batch_size: examples per step; a smaller training set becomes a single batch.
      learning_rate: the schedule's maximum.
      schedule: one of `SCHEDULES`.
      momentum: Nesterov momentum of SGD.
      weight_decay: L2 penalty on all weights.
      augment: one of `TRANSFORMS`.
      eps_warmup: the share of the training over which eps and step size of the objective's (or
        procedure's) attack rise linearly from 0; 0 means no warm-up. At a large eps, a freshly
        initialised network collapses to one class; raising eps gradually avoids this.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: str = "onecycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: str = "none"
    eps_warmup: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self.epochs, name="epochs")
        check_positive(self.batch_size, name="batch_size")
        if self.augment not in TRANSFORMS:
            raise ValueError(
                f"augment must be one of {', '.join(TRANSFORMS)}, got {self.augment!r}"
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum!r}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay!r}")
        check_share(self.eps_warmup, name="eps_warmup")


class NotFinite(ArithmeticError):
    """Raised when the loss becomes NaN or infinite; the message names the step.

    Attributes:
      step: the number of updates before the failure.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def _make_optimiser(
    hyper: dict[str, Any], *, name: str, steps: int
) -> optax.GradientTransformation:
    rate = schedule(name, learning_rate=1.0, steps=steps)
    return sgd(
        lambda count: hyper["learning_rate"] * rate(count),
        momentum=hyper["momentum"],
        weight_decay=hyper["weight_decay"],
    )


@cache
def _optimiser_factory(name: str, steps: int) -> Callable[..., optax.GradientTransformation]:
    """Caches one factory per schedule and length: a fresh partial would recompile the update."""
    return partial(_make_optimiser, name=name, steps=steps)


def initial_state(
    variables: Any,
    config: TrainConfig,
    procedure: Procedure = PLAIN,
    *,
    shape: tuple[int, ...] | None = None,
) -> TrainState:
    """Returns the state before the first step of `fit`, as a template for reading saved states.

    Args:
      variables: of the network, before training.
      config: as `fit` takes it.
      procedure: as `fit` takes it.
      shape: `(N, H, W, C)` of the training set, for procedures that carry a batch.
    """
    optimiser = _make_optimiser(_hyper(config), name=config.schedule, steps=1)
    if shape is not None:
        shape = (min(config.batch_size, shape[0]), *shape[1:])
    return initial(variables, optimiser, procedure, shape=shape)


def _hyper(config: TrainConfig, steps: int = 1) -> dict[str, Any]:
    hyper = {
        "learning_rate": jnp.float32(config.learning_rate),
        "momentum": jnp.float32(config.momentum),
        "weight_decay": jnp.float32(config.weight_decay),
        "steps": jnp.float32(steps),
    }
    # Only when requested: not every attack can be scaled.
    return hyper | ({"eps_warmup": jnp.float32(config.eps_warmup)} if config.eps_warmup else {})


def epoch_rows(key: Key, epoch: int, count: int, batch_size: int) -> np.ndarray:
    """Returns the rows of each step of an epoch, `[S, B]`: reshuffled, incomplete batch dropped."""
    size = min(batch_size, count)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), count), np.int32)
    steps = count // size
    return order[: steps * size].reshape(steps, size)


def fit(
    key: Key,
    loss_fn: LossFn,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    config: TrainConfig,
    *,
    num_classes: int,
    procedure: Procedure = PLAIN,
    ids: np.ndarray | None = None,
    mesh: Mesh | None = None,
    resume: Saved | None = None,
    hooks: Hooks = Hooks(),
) -> TrainState:
    """Trains a network on a data set that fits on the device.

    Args:
      key: a typed key; data order, augmentation and attacks follow from it.
      loss_fn: the objective, a pytree: `standard(model)`, `adversarial(model, loss, attack)`.
      variables: of the network, before training.
      images: `[N, H, W, C]`, uint8 or float32 in [0, 1].
      labels: `[N]` integers.
      config: epochs, batch size, learning rate and other hyper-parameters.
      num_classes: number of classes of the network.
      procedure: how a step uses the objective: `plain()`, `free(threat)`, `awp()`, `ema(...)`.
      ids: `[N]`, by default 0 … N-1.
      mesh: the devices that share the rows of every batch (`devices.data_mesh()`); every process
        of the training passes the same mesh, and the state stays on it. By default as many GPUs or
        TPUs of this process as divide the batch; on CPU all devices share the attack, and one
        makes the update with all cores.
      resume: where an interrupted training stood, to go on from there.
      hooks: what is called after steps, chunks of steps and epochs.

    Returns:
      The state after the last step; `procedure.variables(state)` is the trained network.

    Raises:
      ValueError: for bad images or labels, an objective that the procedure (or a warm-up) does not
        support, or a batch size that the devices do not divide.
      NotFinite: if the loss becomes NaN or infinite.
    """
    # 8-bit pixels cannot be out of range, so one image suffices to check the shape.
    check_images(images[:1] / np.float32(255) if images.dtype == np.uint8 else images)
    check_labels(labels, num_classes=num_classes, count=len(images))
    key, count = one_key(key), len(images)
    ids = np.arange(count) if ids is None else np.asarray(ids)
    check_ids(ids, count=count)
    steps = len(epoch_rows(key, 0, count, config.batch_size))
    shape = (min(config.batch_size, count), *images.shape[1:])
    state, make, hyper = set_up(loss_fn, variables, config, procedure, steps, shape, resume)
    data: Any = (np.asarray(images), np.asarray(labels, np.int32), np.asarray(ids, np.int32))
    key_order, key_steps = jax.random.split(key)
    done = int(state.step)
    options: Any = {"make_optimiser": make, "augment": TRANSFORMS[config.augment]}
    chosen = mesh is not None
    mesh = mesh if mesh is not None else devices.training_mesh(shape[0])
    if not chosen and is_apart(loss_fn, shape[0]):
        keys: Any = tuple(jax.random.split(key_steps))
        update: Any = partial(apart_update, **options)
        take: Any = partial(_on_host, data)
    elif mesh.size == 1 and not chosen:
        keys, update, take = key_steps, partial(train_update, **options), _batches(data, None)
    else:
        devices.check_divides(shape[0], mesh)
        everywhere = devices.replicate((state, key_steps, loss_fn, hyper, procedure), mesh)
        state, keys, loss_fn, hyper, procedure = everywhere
        update, take = devices.sharded(train_update, mesh, **options), _batches(data, mesh)

    def inputs(epoch: int, begin: int) -> Iterator[Any]:
        return map(take, epoch_rows(key_order, epoch, count, config.batch_size)[begin:])

    def step(state: TrainState, given: Any) -> tuple[TrainState, Metrics]:
        return update(keys, state, loss_fn, *given, hyper, procedure)

    state = descend(
        state,
        step,
        inputs,
        epochs=config.epochs,
        steps=steps,
        done=done,
        seen=resume.seen if resume else {},
        hooks=hooks,
    )
    return state if chosen else devices.home(state)


def _on_host(data: tuple[np.ndarray, ...], rows: np.ndarray) -> tuple[dict[str, np.ndarray]]:
    """Returns the rows of a step as `apart_update` takes them."""
    images, labels, ids = (leaf[rows] for leaf in data)
    return ({"image": images, "label": labels, "id": ids},)


def _batches(
    data: tuple[np.ndarray, ...], mesh: Mesh | None
) -> Callable[[np.ndarray], tuple[Any, Any]]:
    """Returns a function from the rows of a step to the `data` and `rows` of `train_update`.

    CPU devices share the host's memory: they get their rows, not a copy of the data set each.
    """
    if mesh is None:
        alone = jax.tree.map(jnp.asarray, data)
        return lambda rows: (alone, jnp.asarray(rows))
    if mesh.devices.flat[0].platform == "cpu":
        return lambda rows: (devices.share_rows(tuple(leaf[rows] for leaf in data), mesh), None)
    placed = devices.replicate(data, mesh)
    return lambda rows: (placed, devices.share_rows(rows, mesh))


def set_up(
    loss_fn: LossFn,
    variables: Any,
    config: TrainConfig,
    procedure: Procedure,
    steps: int,
    shape: tuple[int, ...],
    resume: Saved | None = None,
) -> tuple[TrainState, Callable[..., optax.GradientTransformation], dict[str, Any]]:
    """Prepares a training: its state, the optimiser's factory and the traced hyper-parameters.

    Args:
      loss_fn: as `fit` takes it.
      variables: as `fit` takes them.
      config: as `fit` takes it.
      procedure: as `fit` takes it.
      steps: steps per epoch.
      shape: `(B, H, W, C)` of a batch.
      resume: as `fit` takes it.

    Returns:
      The state, the optimiser's factory and its hyper-parameters.

    Raises:
      ValueError: for an objective that the procedure (or a warm-up) does not support.
    """
    make = _optimiser_factory(config.schedule, config.epochs * steps * procedure.updates)
    hyper = _hyper(config, config.epochs * steps)
    procedure.check(loss_fn)
    if config.eps_warmup:
        check_scalable(loss_fn)
    if resume is not None:
        return resume.state, make, hyper
    # A copy: updates donate their state's memory, and the caller keeps the variables.
    copied = jax.tree.map(jnp.array, variables)
    return initial(copied, make(hyper), procedure, shape=shape), make, hyper


def descend(
    state: TrainState,
    step: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    inputs: Callable[[int, int], Iterator[Any]],
    *,
    epochs: int,
    steps: int,
    done: int,
    seen: Mapping[str, np.ndarray],
    hooks: Hooks,
) -> TrainState:
    """Runs the loop of `fit` for any kind of step input.

    Args:
      state: the initial state.
      step: `(state, input) -> (state, metrics)`; the metrics include "loss".
      inputs: `(epoch, finished steps of it)` -> the inputs of its remaining steps.
      epochs: number of epochs.
      steps: steps per epoch.
      done: steps already finished.
      seen: metrics of the first epoch's steps among them, as in `Saved`.
      hooks: as `fit` takes them.

    Raises:
      ValueError: if the inputs run out early.
      NotFinite: if the loss becomes NaN or infinite.
    """
    for epoch in range(done // steps, epochs):
        begin = max(done - epoch * steps, 0)
        rest = inputs(epoch, begin)
        epoch_seen = dict(seen) if begin else {}
        while begin < steps:
            pending: list[Metrics] = []
            for given in itertools.islice(rest, min(CHUNK, steps - begin)):
                state, metrics = step(state, given)
                pending.append(metrics)
                if len(pending) > _AHEAD:
                    jax.block_until_ready(pending[-1 - _AHEAD])
                if hooks.stop is not None and hooks.stop():
                    break
            if not pending:
                at, of = epoch * steps + begin, epochs * steps
                raise ValueError(f"the data ended at step {at} of {of}")
            begin += len(pending)
            fetched = jax.device_get(pending)
            host = {k: np.asarray([m[k] for m in fetched], np.float64) for k in fetched[0]}
            _check_finite(host["loss"], epoch * steps + begin)
            epoch_seen = {
                k: np.concatenate([epoch_seen.get(k, host[k][:0]), host[k]]) for k in host
            }
            # Report the epoch before its last state can be saved: a training resumed from that
            # state would never report it.
            ends = False
            if hooks.on_epoch is not None and begin == steps:
                means = {k: float(values.mean()) for k, values in epoch_seen.items()}
                ends = hooks.on_epoch(epoch + 1, state, means) is True
            if hooks.on_chunk is not None:
                hooks.on_chunk(state, epoch_seen)
            if ends:
                return state
    return state


def _check_finite(losses: np.ndarray, step_after: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
        step = step_after - len(losses) + int(bad[0])
        raise NotFinite(f"the loss is {losses[bad[0]]} at step {step}: lower the rate", step)
