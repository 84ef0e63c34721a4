"""ReLUs with a modified gradient, for visualisations of a network.

Networks take them as `relu`; their forward pass is that of `jax.nn.relu`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from advfeat.types import Array

Relu = Callable[[Array], Array]


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    """Passes only positive gradients backward, and only where the unit is active.

    Springenberg et al. (2015), https://arxiv.org/abs/1412.6806, figure 1.

    >>> jax.grad(lambda x: (guided_relu(x) * jnp.array([1.0, -1.0, 1.0])).sum())(
    ...     jnp.array([2.0, 2.0, -2.0])).tolist()
    [1.0, 0.0, 0.0]
    """
    return jax.nn.relu(x)


def _guided_forward(x: Array) -> tuple[Array, Array]:
    return jax.nn.relu(x), x


def _guided_backward(x: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(x > 0, jax.nn.relu(gradient), jnp.zeros_like(gradient)),)


guided_relu.defvjp(_guided_forward, _guided_backward)


@jax.custom_vjp
def fake_relu(x: Array) -> Array:
    """Passes gradients backward unchanged, so that inactive units can still be activated.

    Engstrom et al. (2019), https://arxiv.org/abs/1906.00945, appendix A: used for the last
    activation of the representation only.

    >>> jax.grad(lambda x: fake_relu(x).sum())(jnp.array([2.0, -2.0])).tolist()
    [1.0, 1.0]
    """
    return jax.nn.relu(x)


def _fake_forward(x: Array) -> tuple[Array, None]:
    return jax.nn.relu(x), None


def _fake_backward(_: None, gradient: Array) -> tuple[Array]:
    return (gradient,)


fake_relu.defvjp(_fake_forward, _fake_backward)
