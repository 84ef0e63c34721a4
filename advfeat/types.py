"""Shared protocols of all layers: plain callables and NamedTuples of arrays.

Everything handles ONE example; a batch, restarts or a sweep over eps is one more `jax.vmap`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, dataclass_transform

import jax
from jaxtyping import ArrayLike, Bool, Float, Integer, PyTree, Real

Array = jax.Array
F = TypeVar("F")
T = TypeVar("T")
Key = jax.Array
"""A typed key, as returned by `jax.random.key`."""

if TYPE_CHECKING:
    Number = float | Array
    Label = int | Array
else:
    Number = Real[ArrayLike, ""]
    """A number that may be traced."""

    Label = Integer[ArrayLike, ""]
    """A class index in `[0, K)` that may be traced."""

ModelFn = Callable[[Float[Array, "*example"]], Float[Array, "*output"]]
"""ONE example (`[H, W, C]` in [0, 1]) -> logits `[K]` (or features), including pixel normalisation.

At a `jit` boundary it must be a pytree, e.g. `jax.tree_util.Partial`; see `as_model_fn`."""

LogitLoss = Callable[[Float[Array, " K"], Label], Float[Array, ""]]
"""Logits, label -> loss."""

Scored = tuple[Float[Array, ""], Bool[Array, ""]]
"""A score to ASCEND, and whether the objective is reached."""

Objective = Callable[[Key, ModelFn, Float[Array, "*example"], Any], Scored]
"""Key, model, example, aim (a label, a target, a unit …) -> score and success."""


class Evaluation(NamedTuple):
    """Evaluation of one point by an oracle.

    Attributes:
      score: `[]`, the value to ascend.
      success: `[]` bool, whether the objective is reached.
      grad: like the example, finite gradient of the score; None for a scores-only oracle.
    """

    score: Array
    success: Array
    grad: Array | None


Oracle = Callable[[Key, Array], Evaluation]
"""Key, example -> Evaluation. White box, scores only, an ensemble …, opaque to the kernel."""


class Best(NamedTuple):
    """An evaluated iterate.

    Attributes:
      x: like the example.
      score: `[]`.
      success: `[]` bool.
      distance: `[]`, distance from the example in the threat model's norm.

    Batched, every leaf has leading axes.
    """

    x: Float[Array, " ..."]
    score: Float[Array, "*batch"]
    success: Bool[Array, "*batch"]
    distance: Float[Array, "*batch"]


class AttackResult(NamedTuple):
    """Result of an attack on one example; batched, every leaf gains leading axes.

    Attributes:
      best: the preferred iterate (for attacks: success first, then the highest score).
      last: the final iterate, as needed for visualisations and the protocols of some papers.
      queries: `[]` int32, forward passes spent, including those of gradients.
      gradients: `[]` int32, backward passes spent.
    """

    best: Best
    last: Best
    queries: Integer[Array, "*batch"]
    gradients: Integer[Array, "*batch"]


AttackFn = Callable[[Key, ModelFn, Float[Array, "*example"], Any], AttackResult]
"""Key, model, ONE example, label (or target) -> AttackResult. Itself a pytree: eps is traced."""

Batch = dict[str, Array]
"""`image` [B, H, W, C] in [0, 1], `label` [B] int32, `id` [B] int32, `weight` [B] float32."""

Metrics = dict[str, Array]

Descended = tuple[Float[Array, ""], tuple[PyTree, Metrics]]
"""A loss to minimise, and with it the new model state and metrics."""

LossFn = Callable[[Key, PyTree, PyTree, Batch], Descended]
"""Key, params, model state, batch -> (loss, (model state, metrics)): minimised by a train step."""


def static(**options: Any) -> Any:
    """Declares a field of a `pytree` that is not a leaf: compared by equality, never traced."""
    return dataclasses.field(metadata={"static": True}, **options)


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static, dataclasses.field)
)
def pytree(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass whose fields are leaves, unless declared `static()`.

    Instances are compared by identity: `jax.jit` hashes its arguments, and arrays have no hash.

    >>> @pytree
    ... class Line:
    ...     slope: Array
    ...     name: str = static()
    >>> jax.tree.leaves(Line(slope=2.0, name="steep"))
    [2.0]
    """
    made = dataclasses.dataclass(frozen=True, eq=False)(cls)
    return jax.tree_util.register_dataclass(made)


@pytree
class Randomised:
    """A randomised network (a stochastic defence, dropout at test time): a `ModelFn`.

    Attacks and evaluations pass a fresh key at every evaluation; a plain call uses the stored key.
    Make one with `randomised`.

    Attributes:
      fn: `(key, x) -> logits`, a pytree.
      key: key of a plain call.
    """

    fn: Callable[[Key, Array], Array]
    key: Key

    def __call__(self, x: Array) -> Array:
        """Maps ONE example to logits under the stored key."""
        return self.fn(self.key, x)


def randomised(fn: Callable[[Key, Array], Array]) -> Randomised:
    """Marks a network as random, so that attacks see a fresh draw at every step.

    Args:
      fn: `(key, x) -> logits [K]` for ONE example; a pytree, or a plain function created once.

    >>> noisy, x = randomised(lambda key, x: x + jax.random.normal(key, ())), jax.numpy.zeros(2)
    >>> bool((noisy(x) == with_key(noisy, jax.random.key(1))(x)).all())
    False
    """
    return Randomised(as_model_fn(fn), jax.random.key(0, impl="threefry2x32"))


def with_key(model_fn: ModelFn, key: Key) -> ModelFn:
    """Sets the key of a `Randomised` network; returns other networks unchanged."""
    if isinstance(model_fn, Randomised):
        return dataclasses.replace(model_fn, key=key)
    return model_fn


def as_model_fn(fn: F) -> F:
    """Converts a plain function to a pytree, so that it can be passed to a compiled function.

    Functions that already are pytrees (`jax.tree_util.Partial`, an attack, a module of an
    equinox-like library) are returned unchanged. A plain function is compared by identity: create
    it once and reuse it, or every call recompiles.

    >>> import jax.numpy as jnp
    >>> as_model_fn(jnp.sin)(0.0)
    Array(0., dtype=float32, weak_type=True)
    """
    leaves = jax.tree.leaves(fn)
    is_plain = len(leaves) == 1 and leaves[0] is fn
    return jax.tree_util.Partial(fn) if is_plain else fn  # type: ignore[arg-type,return-value]


def frozen(model_fn: ModelFn, x: Array) -> ModelFn:
    """Stops gradients with respect to the weights of a network.

    Every attack applies it first. Stopping only the gradient of the attack's result would keep the
    activations of every step alive when an un-jitted `grad` surrounds the attack.

    Args:
      model_fn: a pytree over its weights, or a plain function that closes over them.
      x: an example that provides shape and type.
    """

    def stop(leaf: Any) -> Any:
        return jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.Array) else leaf

    stopped = jax.tree.map(stop, model_fn)
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model_fn)):
        return stopped
    if dataclasses.is_dataclass(model_fn):
        return stopped  # keeps methods that an objective may call
    # Tracing finds the arrays that a plain function closes over.
    explicit, weights = jax.closure_convert(stopped, x)
    weights = [jax.lax.stop_gradient(weight) for weight in weights]
    return lambda point: explicit(point, *weights)
