"""Base class of procedures: one train step from objective, optimiser, state and batch.

Most robust training methods only change the loss. Procedures cover the rest: several updates per
minibatch, gradients at other weights than those updated, averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from advfeat.attacks.step_rules import moved
from advfeat.checks import check_positive
from advfeat.training.padding import has_unit_weights
from advfeat.training.state import TrainState
from advfeat.types import Array, Batch, Key, LossFn, Metrics, pytree, static


@pytree
class Procedure:
    """Base class of procedures: a frozen, registered dataclass whose numbers are leaves.

    Attributes:
      accumulate: number of parts in which a batch is attacked and differentiated, static. Memory
        then holds the activations of one part only. The result equals that of the whole batch, up
        to rounding, unless examples of a batch interact (batch normalisation) or masks are drawn
        (dropout).
    """

    accumulate: int = static(default=1, kw_only=True)

    @property
    def updates(self) -> int:
        """Number of weight updates per step; the schedule counts them."""
        return 1

    def init(self, params: Any, model_state: Any, shape: tuple[int, ...] | None) -> Any:
        """Returns the carried state before the first step.

        Args:
          params: the initial weights.
          model_state: the network's state.
          shape: `(B, H, W, C)` of a batch.
        """
        del params, model_state, shape
        return ()

    def check(self, loss_fn: LossFn) -> None:
        """Raises a ValueError for an objective that this procedure does not support."""
        del loss_fn

    def prepare(
        self, key: Key, loss_fn: LossFn, params: Any, model_state: Any, batch: Batch
    ) -> Batch:
        """Does the part of a step that treats every example alone: the objective's attack, if any.

        Devices may share it, and `finish` then runs on one of them.

        Args:
          key: the step's own, as `finish` takes it.
          loss_fn: the objective.
          params: the weights.
          model_state: the network's state.
          batch: see `types.Batch`.
        """
        key_prepare, _ = jax.random.split(key)
        return prepared(key_prepare, loss_fn, params, model_state, batch, self.accumulate)

    def finish(
        self,
        key: Key,
        loss_fn: LossFn,
        optimiser: optax.GradientTransformation,
        state: TrainState,
        batch: Batch,
        share: Array,
    ) -> tuple[TrainState, Metrics]:
        """Updates the state on a prepared batch and counts the step.

        Args:
          key: the step's own, as `prepare` takes it.
          loss_fn: the objective.
          optimiser: an optax transformation.
          state: the state to update.
          batch: as `prepare` returns it.
          share: `[]` in [0, 1], the finished share of the training.
        """
        raise NotImplementedError

    def step(
        self,
        key: Key,
        loss_fn: LossFn,
        optimiser: optax.GradientTransformation,
        state: TrainState,
        batch: Batch,
        share: Array,
    ) -> tuple[TrainState, Metrics]:
        """Makes one train step: prepares the batch and finishes; arguments as for these."""
        batch = self.prepare(key, loss_fn, state.params, state.model_state, batch)
        return self.finish(key, loss_fn, optimiser, state, batch, share)

    def variables(self, state: TrainState) -> dict[str, Any]:
        """Returns the variables of the trained network."""
        return {"params": state.params, **state.model_state}


def check_accumulate(accumulate: int) -> None:
    """Checks the number of parts of a batch, which must be positive."""
    check_positive(accumulate, name="accumulate")


def prepare_and_descend(loss_fn: LossFn) -> tuple[Callable[..., Batch], LossFn]:
    """Returns an objective's `prepare` and `descend`; any other loss has only a descent."""
    prepare = getattr(loss_fn, "prepare", None)
    if prepare is None:
        return (lambda key, params, model_state, batch: batch), loss_fn
    return prepare, loss_fn.descend  # type: ignore[attr-defined]


def microbatches(batch: Any, parts: int) -> Any:
    """Splits a batch into parts, `[parts, B / parts, ...]`.

    Each part takes every parts-th example, so that a batch sharded over devices stays in place.

    Raises:
      ValueError: while tracing, if `parts` does not divide the batch.
    """

    def cut(leaf: Array) -> Array:
        if leaf.shape[0] % parts:
            raise ValueError(f"accumulate={parts} does not divide the batch of {leaf.shape[0]}")
        return jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)

    return jax.tree.map(cut, batch)


def merged(batch: Any) -> Any:
    """Inverts `microbatches`."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:]), batch)


def prepared(
    key: Key, loss_fn: LossFn, params: Any, model_state: Any, batch: Batch, parts: int
) -> Batch:
    """Prepares a batch with the objective's attack, part by part."""
    prepare, _ = prepare_and_descend(loss_fn)
    if parts > 1:  # a device may hold a share of the batch
        parts = math.gcd(parts, batch["id"].shape[0])
    if parts == 1:
        return prepare(key, params, model_state, batch)
    # The same key for every part: draws are per example.
    one = jax.lax.map(
        lambda part: prepare(key, params, model_state, part), microbatches(batch, parts)
    )
    return {**merged(one), "weight": batch["weight"]}


def gradients(
    loss_fn: LossFn,
    key: Key,
    params: Any,
    model_state: Any,
    batch: Batch,
    parts: int,
    *,
    by_image: bool = False,
) -> tuple[dict[str, Any], tuple[Any, Metrics]]:
    """Returns the gradients of a prepared batch's loss, from one backward pass per part.

    Args:
      loss_fn: the objective.
      key: for the descent.
      params: the weights.
      model_state: the network's state.
      batch: as `prepared` returns it.
      parts: number of parts.
      by_image: whether to return the images' gradient, too; it costs one more product in the first
        layer.

    Returns:
      `(gradients, (model_state, metrics))`: `gradients["params"]` and, if requested,
      `gradients["image"]` `[B, H, W, C]`.
    """
    _, descend = prepare_and_descend(loss_fn)

    def at(part: Batch) -> dict[str, Any]:
        return {"params": params, **({"image": part["image"]} if by_image else {})}

    def value(at: dict[str, Any], key: Key, state: Any, part: Batch) -> Any:
        return descend(key, at["params"], state, {**part, "image": at.get("image", part["image"])})

    differentiate = jax.grad(value, has_aux=True)
    if parts == 1:
        return differentiate(at(batch), key, model_state, batch)  # type: ignore[no-any-return]
    total = jnp.maximum(jnp.sum(batch["weight"]), 1e-9)
    unit = has_unit_weights(batch)

    def add(carry: tuple[Any, Any, Array], part: Batch) -> tuple[Any, Any]:
        summed, state, index = carry
        if unit:  # a part is traced by the loop, so its weights cannot be inspected
            ones: Any = np.ones(part["weight"].shape, np.float32)
            part = {**part, "weight": ones}
        found, (state, metrics) = differentiate(
            at(part), jax.random.fold_in(key, index), state, part
        )
        # A part's loss is the mean over its own weights.
        weight = jnp.sum(part["weight"]) / total
        found, metrics = jax.tree.map(lambda leaf: weight * leaf, (found, metrics))
        summed = jax.tree.map(jnp.add, summed, found.pop("params"))
        return (summed, state, index + 1), (found, metrics)

    # A loop: on CPU it slows ordinary convolutions as much as the loops of attacks do.
    def nothing(leaf: Array) -> Array:  # at least float32, because it accumulates
        return jnp.zeros_like(leaf, dtype=jnp.promote_types(leaf.dtype, jnp.float32))

    start = (jax.tree.map(nothing, params), model_state, jnp.zeros((), jnp.int32))
    (summed, state, _), (images, metrics) = jax.lax.scan(add, start, microbatches(batch, parts))
    metrics = jax.tree.map(lambda m: jnp.sum(m, axis=0), metrics)
    summed = jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), summed, params)
    return {"params": summed, **merged(images)}, (state, metrics)


def updated(
    optimiser: optax.GradientTransformation, state: TrainState, gradient: Any, model_state: Any
) -> TrainState:
    """Returns the state after one weight update; the caller counts the step."""
    update, opt_state = moved(optimiser, gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, update)
    return state._replace(params=params, model_state=model_state, opt_state=opt_state)
