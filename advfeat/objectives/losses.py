"""Losses on the logits of ONE example; use `jax.vmap` for batches."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float

from advfeat.types import Array, Label

DLR_TINY = 1e-12  # the authors' guard against ties of the leading logits


def cross_entropy(logits: Float[Array, " K"], label: Label) -> Float[Array, ""]:
    """Computes the softmax cross-entropy, `-log softmax(logits)[label]`.

    Args:
      logits: unnormalised (not probabilities).
      label: in `[0, K)`.

    Returns:
      The loss, in nats.

    >>> cross_entropy(jnp.zeros(4), jnp.array(1)).round(4)
    Array(1.3863, dtype=float32)
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def margin(logits: Float[Array, " K"], label: Label) -> Float[Array, ""]:
    """Computes the margin of the best other class over `label`: `max_{i != label} z_i - z_label`.

    It is positive exactly where the network is wrong. This is the loss of Carlini and Wagner
    (2017), https://arxiv.org/abs/1608.04644, without their clipping; unlike cross-entropy it does
    not saturate.

    Args:
      logits: unnormalised, with K >= 2.
      label: in `[0, K)`.

    Returns:
      The margin, in units of the logits.

    >>> margin(jnp.array([1.0, 4.0, 2.0]), jnp.array(1))
    Array(-2., dtype=float32)
    """
    best_other = jnp.max(jnp.where(_is_class(logits, label), -jnp.inf, logits))
    return best_other - jnp.take(logits, label)


def smoothed_cross_entropy(
    logits: Float[Array, " K"], label: Label, *, smoothing: float
) -> Float[Array, ""]:
    """Computes cross-entropy against `1 - smoothing` on the label plus `smoothing / K` per class.

    Szegedy et al. (2016), https://arxiv.org/abs/1512.00567, section 7.

    Args:
      logits: unnormalised.
      label: in `[0, K)`.
      smoothing: in [0, 1); 0 gives `cross_entropy`.

    Returns:
      The loss, in nats.

    >>> smoothed_cross_entropy(jnp.zeros(4), jnp.array(1), smoothing=0.1).round(4)
    Array(1.3863, dtype=float32)
    """
    log_probabilities = jax.nn.log_softmax(logits)
    hit = jnp.take(log_probabilities, label)
    return -(1.0 - smoothing) * hit - smoothing * jnp.mean(log_probabilities)


@dataclasses.dataclass(frozen=True)
class LabelSmoothing:
    """`smoothed_cross_entropy` with `smoothing` fixed: a `LogitLoss`. Make with `label_smoothing`.

    Attributes:
      smoothing: in [0, 1).
    """

    smoothing: float

    def __call__(self, logits: Float[Array, " K"], label: Label) -> Float[Array, ""]:
        """Computes the loss of one example."""
        return smoothed_cross_entropy(logits, label, smoothing=self.smoothing)


def label_smoothing(smoothing: float) -> LabelSmoothing:
    """Returns cross-entropy with smoothed labels as a training loss that compares by value.

    Args:
      smoothing: label mass spread evenly over all classes, in [0, 1).

    Raises:
      ValueError: for a smoothing outside [0, 1).

    >>> label_smoothing(0.1) == label_smoothing(0.1)
    True
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must lie in [0, 1), got {smoothing!r}")
    return LabelSmoothing(float(smoothing))


def kl_divergence(reference: Float[Array, " K"], logits: Float[Array, " K"]) -> Float[Array, ""]:
    """Computes `KL(softmax(reference) || softmax(logits))`, finite for any finite logits.

    Args:
      reference: logits of the distribution under which the expectation is taken.
      logits: logits of the other distribution.

    Returns:
      The loss, in nats.

    >>> kl_divergence(jnp.array([0.0, 0.0]), jnp.array([0.0, 1.0])).round(4)
    Array(0.1201, dtype=float32)
    """
    ours, theirs = jax.nn.log_softmax(reference), jax.nn.log_softmax(logits)
    probability = jnp.exp(ours)
    # A class of probability 0 contributes nothing, even if the log-ratio is infinite.
    gap = jnp.where(probability > 0, ours - theirs, 0.0)
    return jnp.sum(probability * gap)


def boosted_cross_entropy(logits: Float[Array, " K"], label: Label) -> Float[Array, ""]:
    """Computes MART's boosted cross-entropy, which also penalises the most likely wrong class.

    Wang et al. (2020), https://openreview.net/forum?id=rklOg6EFwS, equation 8:
    `-log p_y - log(1 - max_{k != y} p_k)`.

    Args:
      logits: unnormalised, with K >= 2.
      label: in `[0, K)`.

    Returns:
      The loss, in nats; finite for any finite logits.

    >>> boosted_cross_entropy(jnp.zeros(4), jnp.array(1)).round(4)
    Array(1.674, dtype=float32)
    """
    other = jnp.argmax(jnp.where(_is_class(logits, label), -jnp.inf, logits))
    # 1 - p_k as the sum of the other probabilities, to avoid cancellation.
    rest = jax.nn.logsumexp(jnp.where(_is_class(logits, other), -jnp.inf, logits))
    return cross_entropy(logits, label) + jax.nn.logsumexp(logits) - rest


def _is_class(logits: Float[Array, " K"], index: Label) -> Bool[Array, " K"]:
    """Returns a mask; int32 throughout, since strict promotion forbids mixed types."""
    classes = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    return classes == jnp.asarray(index).astype(jnp.int32)


def _need_classes(logits: Array, least: int, *, name: str, instead: str) -> None:
    """Raises for too few classes; shapes are static, so this works while tracing."""
    if logits.shape[-1] < least:
        raise ValueError(
            f"{name} needs logits of at least {least} classes, got {logits.shape[-1]}; "
            f"take {instead} instead"
        )


def dlr(logits: Float[Array, " K"], label: Label) -> Float[Array, ""]:
    """Computes the difference of logits ratio: the margin over the gap of first to third logit.

    Croce and Hein (2020), https://arxiv.org/abs/2003.01690, equation 5:
    `-(z_y - max_{i != y} z_i) / (z_pi1 - z_pi3)`, with pi in descending order. Like the margin it
    is positive exactly where the network is wrong. It is also invariant to the scale of the logits,
    so its gradient does not vanish for overconfident networks.

    Args:
      logits: unnormalised, with K >= 3.
      label: in `[0, K)`.

    Returns:
      The ratio, to ascend; in [-1, 0) where the network is correct.

    Raises:
      ValueError: while tracing, for fewer than three classes.

    >>> dlr(jnp.array([1.0, 4.0, 2.0, 0.0]), jnp.array(1)).round(4)
    Array(-0.6667, dtype=float32)
    """
    _need_classes(logits, 3, name="dlr", instead="margin")
    top = jax.lax.top_k(logits, 3)[0]
    return margin(logits, label) / (top[0] - top[2] + DLR_TINY)


def margin_targeted(logits: Float[Array, " K"], label: Label, target: Label) -> Float[Array, ""]:
    """Computes the margin of the target over `label`: `z_target - z_label`.

    Args:
      logits: unnormalised.
      label: in `[0, K)`.
      target: in `[0, K)`.

    Returns:
      The margin, in units of the logits, to ascend.

    >>> margin_targeted(jnp.array([1.0, 4.0, 2.0]), jnp.array(1), jnp.array(0))
    Array(-3., dtype=float32)
    """
    return jnp.take(logits, target) - jnp.take(logits, label)


def dlr_targeted(logits: Float[Array, " K"], label: Label, target: Label) -> Float[Array, ""]:
    """Computes the targeted difference of logits ratio.

    Croce and Hein (2020), https://arxiv.org/abs/2003.01690, equation 6:
    `-(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2)`, with pi in descending order.

    Args:
      logits: unnormalised, with K >= 4.
      label: in `[0, K)`.
      target: in `[0, K)`.

    Returns:
      The ratio, to ascend; positive exactly where the target's logit exceeds the label's.

    Raises:
      ValueError: while tracing, for fewer than four classes.

    >>> dlr_targeted(jnp.array([1.0, 4.0, 2.0, 0.0]), jnp.array(1), jnp.array(2)).round(4)
    Array(-0.5714, dtype=float32)
    """
    _need_classes(logits, 4, name="dlr_targeted", instead="margin_targeted")
    top = jax.lax.top_k(logits, 4)[0]
    gap = top[0] - 0.5 * (top[2] + top[3])
    return margin_targeted(logits, label, target) / (gap + DLR_TINY)


def cross_entropy_targeted(
    logits: Float[Array, " K"], label: Label, target: Label
) -> Float[Array, ""]:
    """Computes the log-probability of the target: `log softmax(logits)[target]`.

    Args:
      logits: unnormalised.
      label: unused.
      target: in `[0, K)`.

    Returns:
      The log-probability, in nats, to ascend.

    >>> cross_entropy_targeted(jnp.zeros(4), jnp.array(0), jnp.array(1)).round(4)
    Array(-1.3863, dtype=float32)
    """
    del label
    return -cross_entropy(logits, target)
