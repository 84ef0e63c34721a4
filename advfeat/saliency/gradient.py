"""Gradient of a score with respect to the image, and gradient times input.

Simonyan et al. (2014), https://arxiv.org/abs/1312.6034.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Float

from advfeat.edges import on_one
from advfeat.numerics import finite
from advfeat.objectives.features import class_score
from advfeat.types import Array, Key, ModelFn, Objective, pytree, static, with_key


@pytree
class Gradient:
    """Gradient of an objective's score; make one with `gradient`.

    Attributes:
      objective: `(key, model_fn, x, y) -> (score, success)`, static.
      times_input: whether to multiply by the image, static.
    """

    objective: Objective = static()
    times_input: bool = static()

    def __call__(
        self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any
    ) -> Float[Array, "*x"]:
        """Computes the map of ONE example."""
        key, x, y = on_one(key, self, model_fn, x, y, box=False)
        found = score_gradient(key, self.objective, model_fn, x, y)
        return found * x if self.times_input else found


def score_gradient(
    key: Key, objective: Objective, model_fn: ModelFn, x: Float[Array, "*x"], y: Any
) -> Float[Array, "*x"]:
    """Computes the gradient of a score at ONE example; non-finite entries are set to 0."""

    def score(point: Array) -> Array:
        return objective(key, with_key(model_fn, key), point, y)[0]

    return finite(jax.grad(score)(x))


def gradient(objective: Objective = class_score()) -> Gradient:
    """Returns vanilla gradient saliency: the change of the score with each pixel.

    Args:
      objective: objective to differentiate; by default the logit of the class `y`, as in Simonyan
        et al. Use `advfeat.untargeted()` for the loss at the label.

    Returns:
      A method: `(key, model_fn, x, y) -> map` of ONE example; `advfeat.attack_batch` and
      `advfeat.attack_dataset` run it over many.

    >>> import jax.numpy as jnp
    >>> weights = jnp.array([[1.0, -2.0], [0.0, 3.0]])
    >>> gradient()(jax.random.key(0), lambda x: weights @ x, jnp.ones(2), 0).tolist()
    [1.0, -2.0]
    """
    return Gradient(objective, times_input=False)


def gradient_times_input(objective: Objective = class_score()) -> Gradient:
    """Returns gradient times input: exact contributions for a linear network without bias.

    Shrikumar et al. (2016), https://arxiv.org/abs/1605.01713.

    >>> import jax.numpy as jnp
    >>> weights = jnp.array([[1.0, -2.0], [0.0, 3.0]])
    >>> x = jnp.array([2.0, 0.5])
    >>> gradient_times_input()(jax.random.key(0), lambda x: weights @ x, x, 0).tolist()
    [2.0, -1.0]
    """
    return Gradient(objective, times_input=True)
