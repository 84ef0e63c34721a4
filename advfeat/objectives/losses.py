"""Losses on the logits of one example; batches are a `jax.vmap` away."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from advfeat.types import Array

DLR_TINY = 1e-12  # the authors' guard against ties of the leading logits


def cross_entropy(logits: Array, label: Array) -> Array:
    """Cross-entropy of the softmax, `-log softmax(logits)[label]`.

    Args:
      logits: `[K]`, unnormalised (not probabilities).
      label: `[]` integer in `[0, K)`.

    Returns:
      `[]`, in nats.

    >>> cross_entropy(jnp.zeros(4), jnp.array(1)).round(4)
    Array(1.3863, dtype=float32)
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def margin(logits: Array, label: Array) -> Array:
    """How far the best other class lies above `label`: `max_{i != label} z_i - z_label`.

    Positive exactly where the network is wrong. It is the loss of Carlini and Wagner (2017),
    https://arxiv.org/abs/1608.04644, without their clipping, and does not saturate as
    cross-entropy does.

    Args:
      logits: `[K]` with K >= 2.
      label: `[]` integer in `[0, K)`.

    Returns:
      `[]`, in units of the logits.

    >>> margin(jnp.array([1.0, 4.0, 2.0]), jnp.array(1))
    Array(-2., dtype=float32)
    """
    best_other = jnp.max(jnp.where(_is_class(logits, label), -jnp.inf, logits))
    return best_other - jnp.take(logits, label)


def smoothed_cross_entropy(logits: Array, label: Array, *, smoothing: float) -> Array:
    """Cross-entropy against `(1 - smoothing)` on the label and `smoothing / K` on every class.

    Szegedy et al. (2016), https://arxiv.org/abs/1512.00567, section 7.

    Args:
      logits: `[K]`.
      label: `[]` integer in `[0, K)`.
      smoothing: in [0, 1); 0 is `cross_entropy`.

    Returns:
      `[]`, in nats.

    >>> smoothed_cross_entropy(jnp.zeros(4), jnp.array(1), smoothing=0.1).round(4)
    Array(1.3863, dtype=float32)
    """
    log_probabilities = jax.nn.log_softmax(logits)
    hit = jnp.take(log_probabilities, label)
    return -(1.0 - smoothing) * hit - smoothing * jnp.mean(log_probabilities)


@dataclasses.dataclass(frozen=True)
class LabelSmoothing:
    """`smoothed_cross_entropy` with its number inside: a `LogitLoss`; see `label_smoothing`.

    Attributes:
      smoothing: in [0, 1).
    """

    smoothing: float

    def __call__(self, logits: Array, label: Array) -> Array:
        """Logits `[K]`, label `[]` -> `[]`."""
        return smoothed_cross_entropy(logits, label, smoothing=self.smoothing)


def label_smoothing(smoothing: float) -> LabelSmoothing:
    """Cross-entropy with smoothed labels as a loss for training; equal ones compare equal.

    Args:
      smoothing: how much of the label is spread evenly over all classes, in [0, 1).

    Raises:
      ValueError: if it lies outside [0, 1).

    >>> label_smoothing(0.1) == label_smoothing(0.1)
    True
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must lie in [0, 1), got {smoothing!r}")
    return LabelSmoothing(float(smoothing))


def kl_divergence(reference: Array, logits: Array) -> Array:
    """`KL(softmax(reference) || softmax(logits))`, finite for any finite logits.

    Args:
      reference: `[K]` logits of the distribution that the mean is taken over.
      logits: `[K]` of the other.

    Returns:
      `[]`, in nats.

    >>> kl_divergence(jnp.array([0.0, 0.0]), jnp.array([0.0, 1.0])).round(4)
    Array(0.1201, dtype=float32)
    """
    ours, theirs = jax.nn.log_softmax(reference), jax.nn.log_softmax(logits)
    probability = jnp.exp(ours)
    # A class of probability 0 adds nothing, though its logarithms may differ by infinity.
    gap = jnp.where(probability > 0, ours - theirs, 0.0)
    return jnp.sum(probability * gap)


def boosted_cross_entropy(logits: Array, label: Array) -> Array:
    """Cross-entropy plus how sure the network is of the best other class.

    Wang et al. (2020), https://openreview.net/forum?id=rklOg6EFwS, equation 8:
    `-log p_y - log(1 - max_{k != y} p_k)`, the loss of MART.

    Args:
      logits: `[K]` with K >= 2.
      label: `[]` integer in `[0, K)`.

    Returns:
      `[]`, in nats; finite for any finite logits.

    >>> boosted_cross_entropy(jnp.zeros(4), jnp.array(1)).round(4)
    Array(1.674, dtype=float32)
    """
    other = jnp.argmax(jnp.where(_is_class(logits, label), -jnp.inf, logits))
    # 1 - p_k is the sum of the other probabilities: no difference of nearly equal numbers.
    rest = jax.nn.logsumexp(jnp.where(_is_class(logits, other), -jnp.inf, logits))
    return cross_entropy(logits, label) + jax.nn.logsumexp(logits) - rest


def _is_class(logits: Array, index: Array) -> Array:
    """`[K]` bool, in one type of integer whatever the label's, as strict promotion asks."""
    classes = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    return classes == jnp.asarray(index).astype(jnp.int32)


def _need_classes(logits: Array, least: int, *, name: str, instead: str) -> None:
    """Shapes are known while tracing, so too few classes raise there."""
    if logits.shape[-1] < least:
        raise ValueError(
            f"{name} needs logits of at least {least} classes, got {logits.shape[-1]}; "
            f"take {instead} instead"
        )


def dlr(logits: Array, label: Array) -> Array:
    """Difference of logits ratio: the margin over the gap between the first and third logit.

    Croce and Hein (2020), https://arxiv.org/abs/2003.01690, equation 5:
    `-(z_y - max_{i != y} z_i) / (z_pi1 - z_pi3)`, pi sorting downwards. Like the margin it is
    positive exactly where the network is wrong; being blind to the scale of the logits as well, it
    does not vanish on networks that are very sure of themselves.

    Args:
      logits: `[K]` with K >= 3.
      label: `[]` integer in `[0, K)`.

    Returns:
      `[]`, to ascend; in [-1, 0) where the network is right.

    Raises:
      ValueError: while tracing, for fewer than three classes.

    >>> dlr(jnp.array([1.0, 4.0, 2.0, 0.0]), jnp.array(1)).round(4)
    Array(-0.6667, dtype=float32)
    """
    _need_classes(logits, 3, name="dlr", instead="margin")
    top = jax.lax.top_k(logits, 3)[0]
    return margin(logits, label) / (top[0] - top[2] + DLR_TINY)


def margin_targeted(logits: Array, label: Array, target: Array) -> Array:
    """How far the target lies above `label`: `z_target - z_label`.

    Args:
      logits: `[K]`.
      label: `[]` integer in `[0, K)`.
      target: `[]` integer in `[0, K)`.

    Returns:
      `[]`, in units of the logits, to ascend.

    >>> margin_targeted(jnp.array([1.0, 4.0, 2.0]), jnp.array(1), jnp.array(0))
    Array(-3., dtype=float32)
    """
    return jnp.take(logits, target) - jnp.take(logits, label)


def dlr_targeted(logits: Array, label: Array, target: Array) -> Array:
    """Difference of logits ratio towards a target.

    Croce and Hein (2020), https://arxiv.org/abs/2003.01690, equation 6:
    `-(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2)`, pi sorting downwards.

    Args:
      logits: `[K]` with K >= 4.
      label: `[]` integer in `[0, K)`.
      target: `[]` integer in `[0, K)`.

    Returns:
      `[]`, to ascend; positive exactly where the target lies above the label.

    Raises:
      ValueError: while tracing, for fewer than four classes.

    >>> dlr_targeted(jnp.array([1.0, 4.0, 2.0, 0.0]), jnp.array(1), jnp.array(2)).round(4)
    Array(-0.5714, dtype=float32)
    """
    _need_classes(logits, 4, name="dlr_targeted", instead="margin_targeted")
    top = jax.lax.top_k(logits, 4)[0]
    gap = top[0] - 0.5 * (top[2] + top[3])
    return margin_targeted(logits, label, target) / (gap + DLR_TINY)


def cross_entropy_targeted(logits: Array, label: Array, target: Array) -> Array:
    """The log probability of the target, whatever the label: `log softmax(logits)[target]`.

    Args:
      logits: `[K]`.
      label: not looked at.
      target: `[]` integer in `[0, K)`.

    Returns:
      `[]`, in nats, to ascend.

    >>> cross_entropy_targeted(jnp.zeros(4), jnp.array(0), jnp.array(1)).round(4)
    Array(-1.3863, dtype=float32)
    """
    del label
    return -cross_entropy(logits, target)
