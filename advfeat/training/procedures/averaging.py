"""Weight averaging: the trained network is a mean over the training's iterates.

An average wraps any other procedure, which needs no knowledge of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from advfeat.checks import check_fraction
from advfeat.training.procedures.base import Procedure
from advfeat.training.procedures.plain import plain
from advfeat.training.state import TrainState
from advfeat.types import Array, Batch, Key, LossFn, Metrics, pytree


class Average(NamedTuple):
    """The state of an average.

    Attributes:
      params: the averaged weights.
      model_state: the averaged batch statistics.
      terms: `[]` int32, number of steps in the average.
      inner: the state of the inner procedure.
    """

    params: Any
    model_state: Any
    terms: Array
    inner: Any


@pytree
class Averaged(Procedure):
    """Base class of averages; a subclass defines the coefficient of the newest weights.

    Attributes:
      inner: the procedure whose weights are averaged.
    """

    inner: Procedure

    def newest(self, terms: Array, share: Array) -> tuple[Array, Array]:
        """Returns the newest weights' coefficient in the average, and the new number of terms.

        Args:
          terms: `[]` int32, number of terms so far.
          share: `[]`, the finished share of the training.
        """
        raise NotImplementedError

    @property
    def updates(self) -> int:
        """Number of updates of the inner procedure."""
        return self.inner.updates

    def init(self, params: Any, model_state: Any, shape: tuple[int, ...] | None) -> Any:
        """Returns the initial network; its weights never enter the average."""

        def begin(leaf: Array) -> Array:
            # A copy, because a train step donates each array of its state once. At least float32:
            # in half precision, an average over many steps stops moving.
            floating = jnp.issubdtype(leaf.dtype, jnp.floating)
            wide = jnp.promote_types(leaf.dtype, jnp.float32) if floating else leaf.dtype
            return jnp.array(leaf, wide)

        params, model_state = jax.tree.map(begin, (params, model_state))
        inner = self.inner.init(params, model_state, shape)
        return Average(params, model_state, jnp.zeros((), jnp.int32), inner)

    def check(self, loss_fn: LossFn) -> None:
        """Delegates to the inner procedure."""
        self.inner.check(loss_fn)

    def prepare(
        self, key: Key, loss_fn: LossFn, params: Any, model_state: Any, batch: Batch
    ) -> Batch:
        """Delegates to the inner procedure."""
        return self.inner.prepare(key, loss_fn, params, model_state, batch)

    def finish(
        self,
        key: Key,
        loss_fn: LossFn,
        optimiser: optax.GradientTransformation,
        state: TrainState,
        batch: Batch,
        share: Array,
    ) -> tuple[TrainState, Metrics]:
        """Finishes the inner step, then adds its weights to the average."""
        kept: Average = state.extra
        inner = state._replace(extra=kept.inner)
        inner, metrics = self.inner.finish(key, loss_fn, optimiser, inner, batch, share)
        part, terms = self.newest(kept.terms, share)

        def mix(old: Array, new: Array) -> Array:
            if not jnp.issubdtype(new.dtype, jnp.floating):
                return new
            return jnp.where(part < 1.0, old + part * (new.astype(old.dtype) - old), new)

        params = jax.tree.map(mix, kept.params, inner.params)
        model_state = jax.tree.map(mix, kept.model_state, inner.model_state)
        return inner._replace(extra=Average(params, model_state, terms, inner.extra)), metrics

    def variables(self, state: TrainState) -> dict[str, Any]:
        """Returns averaged weights and batch statistics, in the network's dtypes."""
        kept = state.extra.params, state.extra.model_state
        params, model_state = jax.tree.map(
            lambda mean, leaf: mean.astype(leaf.dtype), kept, (state.params, state.model_state)
        )
        return {"params": params, **model_state}


@pytree
class Ema(Averaged):
    """Exponential moving average of the weights; see `ema`.

    Attributes:
      decay: `[]`, the average's weight for itself at every step.
    """

    decay: Array

    def newest(self, terms: Array, share: Array) -> tuple[Array, Array]:
        """Returns `(1 - d) / (1 - d^t)`, so that the coefficients sum to 1."""
        del share
        terms = terms + 1
        kept = -jnp.expm1(terms.astype(jnp.float32) * jnp.log(self.decay))
        # At decay 0 the logarithm is -inf and so is its product with t: kept is 1.
        return jnp.where(terms > 1, (1.0 - self.decay) / kept, 1.0), terms


@pytree
class Swa(Averaged):
    """Stochastic weight averaging over the end of the training; see `swa`.

    Attributes:
      start: `[]`, the share of the training after which the average begins.
    """

    start: Array

    def newest(self, terms: Array, share: Array) -> tuple[Array, Array]:
        """Returns one over the number of terms; before the start, the newest weights alone."""
        terms = jnp.where(share >= self.start, terms + 1, 0)
        return 1.0 / jnp.maximum(terms, 1).astype(jnp.float32), terms


def _check(inner: Procedure) -> None:
    if isinstance(inner, Averaged):
        name = type(inner).__name__.lower()
        raise ValueError(f"inner must be a procedure without an average of its own, got {name}")


def ema(inner: Procedure | None = None, *, decay: float | Array = 0.999) -> Ema:
    """Averages the weights exponentially: `d w_avg + (1 - d) w`.

    Polyak and Juditsky (1992), https://doi.org/10.1137/0330046; in robust training Gowal et al.
    (2020), https://arxiv.org/abs/2010.03593, section 3.4 (0.995 to 0.999). The average is over the
    weights after every step, divided by the sum of its coefficients, `1 - d^t`, so that the initial
    weights never enter. Batch statistics are averaged in the same way.

    Args:
      inner: the procedure whose weights are averaged; by default `plain()`.
      decay: `[]` in [0, 1); 0 disables averaging.

    Raises:
      ValueError: for a decay outside [0, 1), or a procedure that averages already.

    >>> float(ema(decay=0.5).decay)
    0.5
    """
    inner = plain() if inner is None else inner
    _check(inner)
    check_fraction(decay, name="decay")
    return Ema(inner, jnp.asarray(decay, jnp.float32))


def swa(inner: Procedure | None = None, *, start: float | Array = 0.75) -> Swa:
    """Averages the weights uniformly over all steps from `start` on.

    Izmailov et al. (2018), https://arxiv.org/abs/1803.05407, equation 2, with every step in the
    mean instead of one per cycle; against robust overfitting Chen et al. (2021),
    https://openreview.net/forum?id=qZzy5urZw9. Batch statistics are averaged in the same way, which
    replaces the paper's extra pass over the data.

    Args:
      inner: the procedure whose weights are averaged; by default `plain()`.
      start: `[]` in [0, 1), the share of the training after which the mean begins.

    Raises:
      ValueError: for a start outside [0, 1), or a procedure that averages already.

    >>> float(swa(start=0.5).start)
    0.5
    """
    inner = plain() if inner is None else inner
    _check(inner)
    check_fraction(start, name="start")
    return Swa(inner, jnp.asarray(start, jnp.float32))
