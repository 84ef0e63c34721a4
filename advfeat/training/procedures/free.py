"""Free adversarial training: every backward pass updates both weights and perturbation.

Shafahi et al. (2019), https://arxiv.org/abs/1904.12843.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from advfeat.checks import check_eps, check_positive
from advfeat.threats.balls import ThreatModel
from advfeat.training.padding import real_rows
from advfeat.training.procedures.base import (
    Procedure,
    check_accumulate,
    gradients,
    updated,
)
from advfeat.training.state import TrainState
from advfeat.types import Array, Batch, Key, LossFn, Metrics, pytree, static


@pytree
class Free(Procedure):
    """Several updates per minibatch with a persistent perturbation; see `free`.

    The carried state is the perturbation, `[B, H, W, C]`.

    Attributes:
      threat: the set of allowed inputs.
      step_size: `[]`, of the perturbation's updates.
      replays: updates per minibatch, static.
    """

    threat: ThreatModel
    step_size: Array
    replays: int = static()

    @property
    def updates(self) -> int:
        """One update per replay."""
        return self.replays

    def init(self, params: Any, model_state: Any, shape: tuple[int, ...] | None) -> Any:
        """Returns a zero perturbation."""
        del params, model_state
        if shape is None:
            raise ValueError("free training carries a perturbation: give the shape of a batch")
        return jnp.zeros(shape, jnp.float32)

    def check(self, loss_fn: LossFn) -> None:
        """Raises a ValueError for an objective with its own attack."""
        if hasattr(loss_fn, "attack"):
            raise ValueError(
                "free training makes its own perturbation: its objective must be without an "
                f"attack, such as standard(model), got {type(loss_fn).__name__}"
            )

    def finish(
        self,
        key: Key,
        loss_fn: LossFn,
        optimiser: optax.GradientTransformation,
        state: TrainState,
        batch: Batch,
        share: Array,
    ) -> tuple[TrainState, Metrics]:
        """Replays one minibatch; the metrics are means over the replays."""
        del share
        image = batch["image"]
        project, direction = jax.vmap(self.threat.project), jax.vmap(self.threat.direction)
        real = real_rows(batch)

        def replay(state: TrainState, index: Array) -> tuple[TrainState, Metrics]:
            # Project the last minibatch's perturbation onto ball and box around this one.
            x = project(image, image + state.extra)
            gradient, (model_state, metrics) = gradients(
                loss_fn,
                jax.random.fold_in(key, index),
                state.params,
                state.model_state,
                {**batch, "image": x},
                self.accumulate,
                by_image=True,
            )
            moved = project(image, x + self.step_size * direction(x, gradient["image"]))
            extra = moved - image
            if real is not None:
                extra = jnp.where(real[:, None, None, None], extra, state.extra)
            state = updated(optimiser, state, gradient["params"], model_state)
            return state._replace(extra=extra), metrics

        state, metrics = jax.lax.scan(replay, state, jnp.arange(self.replays))
        metrics = jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)
        return state._replace(step=state.step + 1), metrics


def free(
    threat: ThreatModel,
    *,
    replays: int = 8,
    step_size: float | Array | None = None,
    accumulate: int = 1,
) -> Free:
    """Updates weights and perturbation from ONE backward pass, `replays` times per minibatch.

    Shafahi et al. (2019), https://arxiv.org/abs/1904.12843, algorithm 1: in each of `replays`
    passes over a minibatch the weights descend the gradient, and the perturbation ascends it by
    `step_size` along the norm's steepest direction. The perturbation persists across minibatches.
    The schedule counts updates, so train for `epochs / replays` passes over the data where another
    procedure takes `epochs`. One backward pass serves both, so the perturbation sees the network in
    training mode.

    Args:
      threat: the set of allowed inputs.
      replays: updates per minibatch (the paper's m: 8 for CIFAR-10).
      step_size: `[]`, by default eps, as in the paper.
      accumulate: number of parts in which a batch is differentiated.

    Raises:
      ValueError: for counts below 1, an infinite eps, or a step size that is negative or NaN.

    >>> import advfeat
    >>> free(advfeat.linf(8 / 255), replays=4).updates
    4
    """
    check_positive(replays, name="replays")
    check_accumulate(accumulate)
    check_eps(threat.eps, finite=True)
    size = threat.eps if step_size is None else step_size
    check_eps(size, name="step_size", finite=True)
    return Free(threat, jnp.asarray(size, jnp.float32), replays, accumulate=accumulate)
