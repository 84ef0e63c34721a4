"""Objectives: a scalar to ascend and what counts as success, from ONE forward pass.

Objectives are frozen dataclasses rather than closures: equal ones compare equal, so that making one
anew does not recompile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from advfeat.images.augmentation import Transform
from advfeat.objectives.losses import cross_entropy, dlr_targeted, kl_divergence
from advfeat.types import Array, Key, LogitLoss, ModelFn, Objective

TargetedLoss = Callable[[Array, Array, Array], Array]
"""Logits `[K]`, label `[]`, target `[]` -> loss `[]` to ascend."""


@dataclasses.dataclass(frozen=True)
class Untargeted:
    """Ascend the loss at the label; success is any other prediction.

    Attributes:
      loss: logits `[K]`, label `[]` -> `[]`.
    """

    takes_label: ClassVar[bool] = True
    loss: LogitLoss = cross_entropy

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        logits = model_fn(x)
        return self.loss(logits, y), jnp.argmax(logits) != y


@dataclasses.dataclass(frozen=True)
class Targeted:
    """Descend the loss at the target; success is a prediction of the target.

    Attributes:
      loss: logits `[K]`, target `[]` -> `[]`.
    """

    takes_label: ClassVar[bool] = True
    loss: LogitLoss = cross_entropy

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        logits = model_fn(x)
        return -self.loss(logits, y), jnp.argmax(logits) == y


@dataclasses.dataclass(frozen=True)
class AwayTowards:
    """Ascend a loss towards a target; success is any prediction but the label.

    What the targeted attacks of an untargeted threat use: the target only shows the way. The aim is
    a pair of label and target.

    Attributes:
      loss: logits `[K]`, label `[]`, target `[]` -> `[]`, to ascend.
    """

    loss: TargetedLoss = dlr_targeted

    def __call__(
        self, model_fn: ModelFn, x: Array, y: tuple[Array, Array], key: Key
    ) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        label, target = y
        logits = model_fn(x)
        return self.loss(logits, label, target), jnp.argmax(logits) != label


@dataclasses.dataclass(frozen=True)
class Diverging:
    """Ascend the divergence from a given prediction; success is another predicted class.

    The aim is the logits `[K]` of that prediction.
    """

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at `x`, from one forward pass."""
        del key
        logits = model_fn(x)
        return kl_divergence(y, logits), jnp.argmax(logits) != jnp.argmax(y)


@dataclasses.dataclass(frozen=True)
class Transformed:
    """An objective seen through a random transform of the input, drawn anew at every step.

    Attributes:
      objective: what to ascend.
      transform: `(key, x) -> x`.
    """

    objective: Objective
    transform: Transform

    def __call__(self, model_fn: ModelFn, x: Array, y: Any, key: Key) -> tuple[Array, Array]:
        """Score and success at a transform of `x`, from one forward pass."""
        key_transform, key_objective = jax.random.split(key)
        return self.objective(model_fn, self.transform(key_transform, x), y, key_objective)


def transformed(objective: Objective, transform: Transform) -> Transformed:
    """An objective that a perturbation reaches through flips and shifts too: it transfers better.

    Xie et al. (2019), "Improving Transferability with Input Diversity",
    https://arxiv.org/abs/1803.06978; one draw per step of the expectation over transformations of
    Athalye et al. (2018), https://arxiv.org/abs/1707.07397.
    """
    return Transformed(objective, transform)


def untargeted(loss: LogitLoss = cross_entropy) -> Untargeted:
    """The objective of an attack away from the label.

    >>> import jax, advfeat
    >>> score, success = untargeted()(lambda x: x, jnp.array([2.0, 0.0]), 0, jax.random.key(0))
    >>> bool(success)
    False
    """
    return Untargeted(loss)


def targeted(loss: LogitLoss = cross_entropy) -> Targeted:
    """The objective of an attack towards a target: the attack's `y` is then the target.

    >>> import jax
    >>> score, success = targeted()(lambda x: x, jnp.array([2.0, 0.0]), 0, jax.random.key(0))
    >>> bool(success)
    True
    """
    return Targeted(loss)


def diverging() -> Diverging:
    """The objective of an attack on a prediction, whatever the label: the inner one of TRADES.

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573, equation 5. The attack's `y` is then the
    logits `[K]` to diverge from; at the point they were read off, the gradient is zero.

    >>> import jax
    >>> score, success = diverging()(
    ...     lambda x: x, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]), jax.random.key(0))
    >>> bool(score > 0), bool(success)
    (True, True)
    """
    return Diverging()


def likely_target(logits: Array, label: Array, rank: Array) -> Array:
    """The class other than the label that the network finds most likely, or second most, …

    Args:
      logits: `[K]`.
      label: `[]` integer in `[0, K)`.
      rank: `[]` integer in `[0, K - 1)`; 0 is the most likely.

    Returns:
      `[]` integer. Of equal logits the first comes first.

    >>> likely_target(jnp.array([1.0, 4.0, 2.0]), jnp.array(1), jnp.array(0))
    Array(2, dtype=int32)
    """
    order = jnp.argsort(-logits)
    place = jnp.argmax(order == label)
    return jnp.take(order, rank + (rank >= place).astype(jnp.int32))
