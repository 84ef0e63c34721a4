"""Objectives: a score to ascend and a success criterion, from ONE forward pass.

Objectives are frozen dataclasses rather than closures: they compare by value, so constructing an
equal one does not trigger a recompilation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer

from advfeat.images.augmentation import Transform
from advfeat.objectives.losses import cross_entropy, dlr_targeted, kl_divergence
from advfeat.types import Array, Key, Label, LogitLoss, ModelFn, Objective, Scored

TargetedLoss = Callable[[Float[Array, " K"], Label, Label], Float[Array, ""]]
"""Logits, label, target -> loss to ascend."""


@dataclasses.dataclass(frozen=True)
class Untargeted:
    """Ascends the loss at the label; success is any other prediction.

    Attributes:
      loss: of logits at the label.
    """

    takes_label: ClassVar[bool] = True
    loss: LogitLoss = cross_entropy

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        logits = model_fn(x)
        return self.loss(logits, y), jnp.argmax(logits) != y


@dataclasses.dataclass(frozen=True)
class Targeted:
    """Descends the loss at the target; success is a prediction of the target.

    Attributes:
      loss: of logits at the target.
    """

    takes_label: ClassVar[bool] = True
    loss: LogitLoss = cross_entropy

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        logits = model_fn(x)
        return -self.loss(logits, y), jnp.argmax(logits) == y


@dataclasses.dataclass(frozen=True)
class UntargetedViaTarget:
    """Ascends a loss towards a target; success is any prediction but the label.

    For targeted attacks in an untargeted evaluation, where the target only provides a search
    direction. The aim is the pair (label, target).

    Attributes:
      loss: of logits at label and target, to ascend.
    """

    loss: TargetedLoss = dlr_targeted

    def __call__(
        self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: tuple[Label, Label]
    ) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        label, target = y
        logits = model_fn(x)
        return self.loss(logits, label, target), jnp.argmax(logits) != label


@dataclasses.dataclass(frozen=True)
class KLDivergence:
    """Ascends the KL divergence from a reference prediction; success is another predicted class.

    The aim is the logits `[K]` of the reference prediction.
    """

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at `x`, from one forward pass."""
        del key
        logits = model_fn(x)
        return kl_divergence(y, logits), jnp.argmax(logits) != jnp.argmax(y)


@dataclasses.dataclass(frozen=True)
class Transformed:
    """Evaluates an objective at a random transform of the input, redrawn at every step.

    Attributes:
      objective: what to ascend.
      transform: `(key, x) -> x`.
    """

    objective: Objective
    transform: Transform

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> Scored:
        """Returns score and success at a transform of `x`, from one forward pass."""
        key_transform, key_objective = jax.random.split(key)
        return self.objective(key_objective, model_fn, self.transform(key_transform, x), y)


def transformed(objective: Objective, transform: Transform) -> Transformed:
    """Wraps an objective in a random input transform, which makes perturbations transfer better.

    Input diversity: Xie et al. (2019), "Improving Transferability with Input Diversity",
    https://arxiv.org/abs/1803.06978. Equivalently, expectation over transformation (Athalye et al.,
    2018, https://arxiv.org/abs/1707.07397) with one sample per step.
    """
    return Transformed(objective, transform)


def untargeted(loss: LogitLoss = cross_entropy) -> Untargeted:
    """Returns the objective of an untargeted attack, away from the label.

    >>> import jax, advfeat
    >>> score, success = untargeted()(jax.random.key(0), lambda x: x, jnp.array([2.0, 0.0]), 0)
    >>> bool(success)
    False
    """
    return Untargeted(loss)


def targeted(loss: LogitLoss = cross_entropy) -> Targeted:
    """Returns the objective of a targeted attack; the attack's `y` is then the target.

    >>> import jax
    >>> score, success = targeted()(jax.random.key(0), lambda x: x, jnp.array([2.0, 0.0]), 0)
    >>> bool(success)
    True
    """
    return Targeted(loss)


def kl_from_prediction() -> KLDivergence:
    """Returns the label-free inner objective of TRADES: KL divergence from a prediction.

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573, equation 5. The attack's `y` is then the
    logits `[K]` to diverge from. At the point where those logits were computed the gradient is
    zero, so start elsewhere.

    >>> import jax
    >>> score, success = kl_from_prediction()(
    ...     jax.random.key(0), lambda x: x, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
    >>> bool(score > 0), bool(success)
    (True, True)
    """
    return KLDivergence()


def likely_target(
    logits: Float[Array, " K"], label: Label, rank: Integer[ArrayLike, "*n"]
) -> Int[Array, "*n"]:
    """Returns the classes with the `rank`-th largest logits among all classes but the label.

    Args:
      logits: of one example.
      label: in `[0, K)`.
      rank: one or several in `[0, K - 1)`; 0 is the most likely class.

    Returns:
      A class for each rank. Ties are broken in favour of the lower class index.

    >>> likely_target(jnp.array([1.0, 4.0, 2.0]), jnp.array(1), jnp.array(0))
    Array(2, dtype=int32)
    """
    order = jnp.argsort(-logits)
    place = jnp.argmax(order == label)
    return jnp.take(order, rank + (rank >= place).astype(jnp.int32))
