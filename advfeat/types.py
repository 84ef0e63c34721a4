"""The protocols that every layer speaks: plain callables and NamedTuples of arrays.

One example at a time: a batch, restarts and a sweep over eps are each one more `jax.vmap`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax

Array = jax.Array
F = TypeVar("F")
Key = jax.Array
"""A typed key, as `jax.random.key` makes it."""

ModelFn = Callable[[Array], Array]
"""ONE example `[H, W, C]` in [0, 1] -> logits `[K]` (or features). Pixel normalisation is inside.

At a `jit` edge it must be a pytree: `jax.tree_util.Partial` over the weights; see `as_model_fn`."""

LogitLoss = Callable[[Array, Array], Array]
"""Logits `[K]`, label `[]` -> loss `[]`."""

Objective = Callable[[ModelFn, Array, Any, Key], tuple[Array, Array]]
"""Model, example, aim (a label, a target, a unit …), key -> (score to ASCEND, success)."""


class Evaluation(NamedTuple):
    """What an oracle saw at one point.

    Attributes:
      score: `[]`, the value that is ascended.
      success: `[]` bool, whether the objective counts as reached.
      grad: like the example, the gradient of the score, finite; None where only scores were asked
        for.
    """

    score: Array
    success: Array
    grad: Array | None


Oracle = Callable[[Key, Array], Evaluation]
"""Key, example -> Evaluation. White box, scores only, an ensemble …: the kernel cannot tell."""


class Best(NamedTuple):
    """An iterate worth keeping.

    Attributes:
      x: like the example.
      score: `[]`.
      success: `[]` bool.
      distance: `[]`, from the example, in the threat model's norm.
    """

    x: Array
    score: Array
    success: Array
    distance: Array


class AttackResult(NamedTuple):
    """What an attack on one example returns; batched, every leaf gains leading axes.

    Attributes:
      best: the preferred iterate (for attacks: successful first, then the highest score).
      last: the final iterate, which visualisations and some papers' protocols ask for.
      queries: `[]` int32, forward passes spent, those of gradients included.
      gradients: `[]` int32, backward passes spent.
    """

    best: Best
    last: Best
    queries: Array
    gradients: Array


AttackFn = Callable[[Key, ModelFn, Array, Any], AttackResult]
"""Key, model, ONE example, label (or target) -> AttackResult. Itself a pytree: eps is traced."""

Batch = dict[str, Array]
"""`image` [B, H, W, C] in [0, 1], `label` [B] int32, `id` [B] int32, `weight` [B] float32."""

Metrics = dict[str, Array]

LossFn = Callable[[Key, Any, Any, Batch], tuple[Array, tuple[Any, Metrics]]]
"""Key, params, model state, batch -> (loss, (model state, metrics)): what a train step descends."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Randomised:
    """A network with randomness of its own (a defence, dropout left on): a `ModelFn`.

    Attacks and evaluations give it a fresh key at every evaluation; called as it is, it uses the
    key it holds. Make one with `randomised`.

    Attributes:
      fn: `(key, x) -> logits`, a pytree.
      key: what the next call uses.
    """

    fn: Callable[[Key, Array], Array]
    key: Key

    def __call__(self, x: Array) -> Array:
        """ONE example -> logits, with the key it holds."""
        return self.fn(self.key, x)


def randomised(fn: Callable[[Key, Array], Array]) -> Randomised:
    """Tells attacks that a network is random, so that they see a fresh draw at every step.

    Args:
      fn: `(key, x) -> logits [K]` for ONE example; a pytree, or a plain function made once.

    >>> noisy, x = randomised(lambda key, x: x + jax.random.normal(key, ())), jax.numpy.zeros(2)
    >>> bool((noisy(x) == with_key(noisy, jax.random.key(1))(x)).all())
    False
    """
    return Randomised(as_model_fn(fn), jax.random.key(0, impl="threefry2x32"))


def with_key(model_fn: ModelFn, key: Key) -> ModelFn:
    """The network as it is at one evaluation: itself, unless it is `Randomised`."""
    if isinstance(model_fn, Randomised):
        return dataclasses.replace(model_fn, key=key)
    return model_fn


def as_model_fn(fn: F) -> F:
    """Makes a plain function a pytree, so that it can be an argument of a compiled function.

    Functions that are pytrees already (`jax.tree_util.Partial`, an attack, a module of an
    equinox-like library) are returned as they are. A plain function is compared by identity:
    make it once, not anew for every call, or every call compiles.

    >>> import jax.numpy as jnp
    >>> as_model_fn(jnp.sin)(0.0)
    Array(0., dtype=float32, weak_type=True)
    """
    leaves = jax.tree.leaves(fn)
    is_plain = len(leaves) == 1 and leaves[0] is fn
    return jax.tree_util.Partial(fn) if is_plain else fn  # type: ignore[arg-type,return-value]


def frozen(model_fn: ModelFn, x: Array) -> ModelFn:
    """The same network with its weights cut off from differentiation.

    Attacks begin with it: stopping only their result would keep every step's activations alive
    when an un-jitted `grad` surrounds the attack.

    Args:
      model_fn: a pytree over its weights, or a plain function that closes over them.
      x: an example, for its shape and type.
    """

    def stop(leaf: Any) -> Any:
        return jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.Array) else leaf

    stopped = jax.tree.map(stop, model_fn)
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model_fn)):
        return stopped
    if dataclasses.is_dataclass(model_fn):
        return stopped  # it may have methods that an objective calls
    # What a plain function closes over is found by tracing it once.
    explicit, weights = jax.closure_convert(stopped, x)
    weights = [jax.lax.stop_gradient(weight) for weight in weights]
    return lambda point: explicit(point, *weights)
