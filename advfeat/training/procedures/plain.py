"""The plain train step: one gradient, one update."""

from __future__ import annotations

import jax
import optax

from advfeat.training.procedures.base import (
    Procedure,
    check_accumulate,
    gradients,
    updated,
)
from advfeat.training.state import TrainState
from advfeat.types import Array, Batch, Key, LossFn, Metrics, pytree


@pytree
class Plain(Procedure):
    """One gradient, one update; see `plain`."""

    def finish(
        self,
        key: Key,
        loss_fn: LossFn,
        optimiser: optax.GradientTransformation,
        state: TrainState,
        batch: Batch,
        share: Array,
    ) -> tuple[TrainState, Metrics]:
        """Takes one gradient and makes one update."""
        del share
        _, key_descend = jax.random.split(key)
        gradient, (model_state, metrics) = gradients(
            loss_fn, key_descend, state.params, state.model_state, batch, self.accumulate
        )
        state = updated(optimiser, state, gradient["params"], model_state)
        return state._replace(step=state.step + 1), metrics


def plain(*, accumulate: int = 1) -> Plain:
    """Returns the usual train step: one gradient of the objective, one update.

    Args:
      accumulate: number of parts in which a batch is attacked and differentiated, to save memory.

    Raises:
      ValueError: for a count below 1.

    >>> plain(accumulate=4).accumulate
    4
    """
    check_accumulate(accumulate)
    return Plain(accumulate=accumulate)
