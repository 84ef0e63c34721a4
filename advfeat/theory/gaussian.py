"""The Gaussian model of Schmidt et al. (2018): the sample complexity of robustness.

"Adversarially Robust Generalization Requires More Data", https://arxiv.org/abs/1804.11285 (theorem
numbers are those of its second version). A label is a fair coin y in {-1, +1}, its example is
`x ~ N(y * mean, noise^2 I)` in R^d. The mean is either some vector of length sqrt(d) (upper bounds)
or drawn from N(0, I), whose length is close to that (lower bounds). A linear classifier predicts
`sign(<weights, x>)`; an adversary moves x by at most eps. Inputs are not confined to a box.

Every function is for ONE draw and composes with `jit` and `vmap`; numbers such as noise, eps and
count may be traced, the dimension and the number of sampled examples are static.

Example: after one training example the standard error is small but the robust error is not; after
fifty, both are.

>>> mean = jnp.ones(10_000)
>>> few, many = (draw_estimator(jax.random.key(0), mean, 6.5, n) for n in (1, 50))
>>> [round(float(robust_error(w, mean, 6.5, eps)), 2) for w in (few, many) for eps in (0.0, 0.6)]
[0.01, 1.0, 0.0, 0.0]
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc, ndtr
from jaxtyping import Float

from advfeat.checks import check_between, check_eps, check_positive
from advfeat.numerics import over
from advfeat.threats.hyperplane import dual_length
from advfeat.threats.norms import LINF, Norm, l2_length
from advfeat.types import Array, Key, Number

Vector = Float[Array, " d"]
Scalar = Float[Array, ""]


def draw_mean(key: Key, dim: int, *, fixed_length: bool = False) -> Vector:
    """Draws a mean from the prior of the lower bounds, N(0, I).

    Args:
      key: a typed key.
      dim: d.
      fixed_length: whether to scale it to the length sqrt(d) required by the upper bounds; its
        direction is uniform.

    Raises:
      ValueError: for a dimension below 1.

    >>> float(jnp.linalg.norm(draw_mean(jax.random.key(0), 100, fixed_length=True)))
    10.0
    """
    check_positive(dim, name="dim")
    mean = jax.random.normal(key, (dim,))
    return mean * (dim**0.5 / l2_length(mean)) if fixed_length else mean


def sample(
    key: Key, mean: Vector, noise: Number, count: int
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Draws examples of the model (section 2.1).

    Args:
      key: a typed key.
      mean: of the examples labelled 1.
      noise: standard deviation of each coordinate, > 0.
      count: n, static.

    Returns:
      Examples and labels, -1.0 or 1.0.

    Raises:
      ValueError: for a mean that is not a vector, a noise that is not positive, or a count below 1.

    >>> x, y = sample(jax.random.key(0), jnp.ones(3), 1.0, 4)
    >>> x.shape, sorted(set(y.tolist()) | {-1.0, 1.0})
    ((4, 3), [-1.0, 1.0])
    """
    _check_vector(mean, "mean")
    check_between(noise, name="noise")
    check_positive(count, name="count")
    key_label, key_noise = jax.random.split(key)
    label = jax.random.rademacher(key_label, (count,), mean.dtype)
    spread = noise * jax.random.normal(key_noise, (count, mean.size), mean.dtype)
    return label[:, None] * mean[None] + spread, label


def mean_estimator(x: Float[Array, "n d"], y: Float[Array, " n"]) -> Vector:
    """Returns the weights of the paper's learner, the mean of `y * x`.

    Raises:
      ValueError: for inconsistent shapes.

    >>> mean_estimator(jnp.array([[1.0, 2.0], [-3.0, 0.0]]), jnp.array([1.0, -1.0])).tolist()
    [2.0, 1.0]
    """
    if jnp.ndim(x) != 2 or jnp.shape(y) != jnp.shape(x)[:1] or len(x) == 0:
        found = f"{jnp.shape(x)} and {jnp.shape(y)}"
        raise ValueError(f"x, y must have shapes [n, d] and [n], got {found}")
    return jnp.mean(y[:, None] * x, axis=0)


def draw_estimator(key: Key, mean: Vector, noise: Number, count: Number) -> Vector:
    """Draws the result of `mean_estimator` on n fresh examples, N(mean, noise^2 / n I).

    It costs `[d]` numbers instead of `[n, d]`, and n may be traced.

    Raises:
      ValueError: for a mean that is not a vector, a noise that is not positive, or a count below 1.

    >>> draw_estimator(jax.random.key(0), jnp.ones(2), 1.0, 1e12).round(3).tolist()
    [1.0, 1.0]
    """
    _check_vector(mean, "mean")
    check_between(noise, name="noise")
    check_between(count, name="count", low=1, closed=(True, True))
    scale = noise / jnp.sqrt(jnp.asarray(count, mean.dtype))
    return mean + scale * jax.random.normal(key, mean.shape, mean.dtype)


def robust_error(
    weights: Vector, mean: Vector, noise: Number, eps: Number, *, norm: Norm = LINF
) -> Scalar:
    """Returns a linear classifier's exact robust error; at eps 0, the standard error.

    An adversary can reduce the margin `y <w, x> ~ N(<w, mean>, noise^2 |w|_2^2)` by up to
    `eps * |w|_dual`, so the error is
    `Phi((eps |w|_dual - <w, mean>) / (noise |w|_2))`. (The paper's Lemma 20 bounds it by Gaussian
    tails; this is the cdf itself.)

    Args:
      weights: of any length. All zeros give a constant classifier with error 1/2.
      mean: of the examples labelled 1.
      noise: > 0.
      eps: >= 0, in the units of x.
      norm: the norm of the adversary's perturbation.

    Raises:
      ValueError: for different shapes, a noise that is not positive, or a negative eps.

    >>> weights = mean = jnp.array([1.0, 1.0])
    >>> [round(float(robust_error(weights, mean, 1.0, eps)), 3) for eps in (0.0, 0.5, 1.0)]
    [0.079, 0.24, 0.5]
    """
    _check_vector(mean, "mean")
    if jnp.shape(weights) != jnp.shape(mean):
        raise ValueError(f"weights must have shape {jnp.shape(mean)}, got {jnp.shape(weights)}")
    check_between(noise, name="noise")
    check_eps(eps)
    unit = over(weights, l2_length(weights))
    return ndtr((eps * dual_length(norm, unit) - jnp.dot(unit, mean)) / noise)


def optimal_weights(mean: Vector, eps: Number) -> Vector:
    """Returns the most robust L-infinity classifier for a known mean: it, soft-thresholded.

    Coordinates that the adversary can cancel get weight zero, the others what it must leave:
    `sign(m) * max(|m| - eps, 0)`.

    Raises:
      ValueError: for a mean that is not a vector, or a negative eps.

    >>> optimal_weights(jnp.array([2.0, -0.5, -3.0]), 1.0).tolist()
    [1.0, 0.0, -2.0]
    """
    _check_vector(mean, "mean")
    check_eps(eps)
    # Computed from the remainder's sign, a zero would become -0.
    return mean - jnp.clip(mean, -eps, eps)


def optimal_robust_error(mean: Vector, noise: Number, eps: Number) -> Scalar:
    """Returns the least L-infinity robust error of ANY classifier for a known mean.

    It is `Phi(-|s| / noise)` with s the `optimal_weights`. No classifier does better: the adversary
    may move every example by `-y * clip(mean, -eps, eps)`, which leaves the model with mean s,
    whose Bayes error this is. The weights s attain it: `<s, mean> - eps |s|_1 = |s|_2^2`. (The
    result is that of Bhagoji et al. 2019, https://arxiv.org/abs/1909.12272, for spherical
    Gaussians.)

    Raises:
      ValueError: as for `robust_error`.

    >>> mean = jnp.array([2.0, -0.5, -3.0])
    >>> float(optimal_robust_error(mean, 1.0, 1.0))
    0.0127
    >>> float(robust_error(optimal_weights(mean, 1.0), mean, 1.0, 1.0))
    0.0127
    """
    check_between(noise, name="noise")
    return ndtr(-l2_length(optimal_weights(mean, eps)) / noise)


class Posterior(NamedTuple):
    """The predictive distribution after n examples, for the prior N(0, I) of the mean.

    Attributes:
      mean: posterior mean, also of the next `y * x`.
      noise: standard deviation of the next `y * x`, including the uncertainty of the mean.
    """

    mean: Vector
    noise: Scalar


def posterior(estimate: Vector, noise: Number, count: Number) -> Posterior:
    """Returns the next example's distribution given `mean_estimator` (sufficient, appendix A.2).

    Args:
      estimate: from `mean_estimator`.
      noise: > 0.
      count: n >= 1.

    Raises:
      ValueError: for a noise that is not positive or a count below 1.

    >>> found = posterior(jnp.ones(1), 1.0, 1.0)
    >>> found.mean.tolist(), round(float(found.noise) ** 2, 3)
    ([0.5], 1.5)
    """
    check_between(noise, name="noise")
    check_between(count, name="count", low=1, closed=(True, True))
    variance = jnp.square(jnp.asarray(noise))
    shrunk = variance / (variance + count)
    return Posterior((1.0 - shrunk) * estimate, jnp.sqrt(variance + shrunk))


def least_error(key: Key, dim: int, noise: Number, count: Number, eps: Number) -> Scalar:
    """Draws the error of the best of ALL learners once.

    Its mean over keys is the smallest expected L-infinity robust error of any learner on n
    examples, if the model's mean is drawn from N(0, I). Given the examples, the next one follows
    `posterior`, whose mean is distributed as N(0, n / (noise^2 + n) I), and `optimal_robust_error`
    is the least error there. It is attained by `optimal_weights` of the posterior mean. Theorem 11
    keeps of this only the event that the adversary cancels every coordinate.

    Raises:
      ValueError: as for `lower_bound`, and for a count below 1.

    >>> keys = jax.random.split(jax.random.key(0), 500)
    >>> least = jax.vmap(lambda key: least_error(key, 20, 2.0, 3.0, 0.5))(keys).mean()
    >>> bool(lower_bound(20, 2.0, 3.0, 0.5) < least < 0.5)
    True
    """
    check_positive(dim, name="dim")
    spread = jnp.sqrt(1.0 + jnp.square(jnp.asarray(noise)) / count)
    found = posterior(spread * jax.random.normal(key, (dim,)), noise, count)
    return optimal_robust_error(found.mean, found.noise, eps)


def lower_bound(dim: int, noise: Number, count: Number, eps: Number) -> Scalar:
    """Returns a lower bound on every learner's expected L-infinity robust error: Theorem 11.

    `1/2 P[sqrt(n / (noise^2 + n)) |v|_inf <= eps]` with v ~ N(0, I), computed exactly: if every
    coordinate of the posterior mean lies within eps, the adversary moves both classes to the same
    place. The probability is `erf(r / sqrt(2))^d`, with r the ratio of eps and the square root.

    Args:
      dim: d.
      noise: > 0.
      count: n >= 0.
      eps: >= 0.

    Raises:
      ValueError: for a number out of range.

    >>> [round(float(lower_bound(1000, 5.0, n, 0.7)), 3) for n in (0, 1, 2)]
    [0.5, 0.35, 0.0]
    """
    check_positive(dim, name="dim")
    check_between(noise, name="noise")
    check_between(count, name="count", closed=(True, True))
    check_eps(eps)
    count = jnp.asarray(count, float)
    scale = jnp.sqrt(count / (jnp.square(noise) + count))
    ratio = jnp.where(scale > 0, eps / jnp.where(scale > 0, scale, 1.0), jnp.inf)
    return 0.5 * jnp.exp(dim * jnp.log1p(-erfc(ratio / jnp.sqrt(2.0))))


def lower_bound_count(dim: int, noise: Number, eps: Number) -> Scalar:
    """Returns n up to which every learner's expected error is >= (1 - 1/d) / 2: Corollary 23.

    `eps^2 noise^2 / (8 ln d)`: then `eps >= sqrt(n / (noise^2 + n)) * 2 sqrt(2 ln d)`, which the
    largest of d Gaussians exceeds with probability at most 1/d.

    Args:
      dim: d >= 2.
      noise: > 0.
      eps: >= 0.

    Raises:
      ValueError: for a number out of range.

    >>> float(lower_bound_count(1000, 50.0, 0.5))
    11.3
    """
    check_positive(dim, name="dim")
    check_between(dim, name="dim", low=2, closed=(True, True))
    check_between(noise, name="noise")
    check_eps(eps)
    return jnp.square(eps * jnp.asarray(noise)) / (8.0 * jnp.log(float(dim)))


def upper_bound(dim: int, noise: Number, count: Number, eps: Number) -> Scalar:
    """Returns a high-probability upper bound on the mean estimator's L-infinity robust error.

    `exp(-d max(a - eps, 0)^2 / (2 noise^2))` with a from `alignment`; Theorem 18 (eps = 0) and
    Theorem 21, for a mean of length sqrt(d), except with probability `failure_probability`.

    Args:
      dim: d.
      noise: > 0.
      count: n >= 1.
      eps: >= 0.

    Raises:
      ValueError: for a number out of range.

    >>> [round(float(upper_bound(1000, 5.0, n, 0.3)), 3) for n in (1, 100, 1000)]
    [1.0, 0.542, 0.018]
    """
    check_eps(eps)
    slack = jnp.maximum(alignment(noise, count) - eps, 0.0)
    check_positive(dim, name="dim")
    return jnp.exp(-dim * jnp.square(slack / noise) / 2.0)


def alignment(noise: Number, count: Number) -> Scalar:
    """Returns a high-probability lower bound on the mean estimator's cosine to the mean: Lemma 16.

    `<w, mean> / (|w| |mean|) >= (2 sqrt(n) - 1) / (2 sqrt(n) + 4 noise)`, for a mean of length
    sqrt(d), except with probability `failure_probability`: then
    `<w, mean> >= d (1 - 1 / (2 sqrt(n)))` and `|w| <= sqrt(d) (1 + 2 noise / sqrt(n))`.

    Raises:
      ValueError: for a noise that is not positive or a count below 1.

    >>> float(alignment(5.0, 100))
    0.475
    """
    check_between(noise, name="noise")
    check_between(count, name="count", low=1, closed=(True, True))
    root = 2.0 * jnp.sqrt(jnp.asarray(count, float))
    return (root - 1.0) / (root + 4.0 * noise)


def failure_probability(dim: int, noise: Number) -> Scalar:
    """Bounds the probability that the upper bounds fail: `min(1, 2 exp(-d / (8 (noise^2 + 1))))`.

    Raises:
      ValueError: for a dimension below 1 or a noise that is not positive.

    >>> round(float(failure_probability(1000, 5.0)), 4)
    0.0163
    """
    check_positive(dim, name="dim")
    check_between(noise, name="noise")
    return jnp.minimum(1.0, 2.0 * jnp.exp(-dim / (8.0 * (jnp.square(noise) + 1.0))))


def upper_bound_count(dim: int, noise: Number, eps: Number, beta: Number) -> Scalar:
    """Returns n that suffices for a robust error <= beta w.h.p.: Theorem 21, solved for n.

    With c = eps + noise sqrt(2 ln(1/beta) / d) the theorem's condition is
    `2 sqrt(n) (1 - c) >= 1 + 4 noise c`. (Corollary 22's max(1, 64 eps^2 sqrt(d)) for beta = 0.01
    and noise <= d^(1/4) / 32 is larger.)

    Args:
      dim: d.
      noise: > 0.
      eps: >= 0.
      beta: the target error, in (0, 1).

    Returns:
      n >= 1, not rounded; infinite if the theorem covers no n.

    Raises:
      ValueError: for a number out of range.

    >>> [round(float(upper_bound_count(1000, 5.0, eps, 0.01))) for eps in (0.0, 0.25, 0.5)]
    [104, 833, 261282]
    """
    check_positive(dim, name="dim")
    check_between(noise, name="noise")
    check_eps(eps)
    check_between(beta, name="beta", high=1.0, closed=(False, False))
    needed = eps + noise * jnp.sqrt(-2.0 * jnp.log(jnp.asarray(beta, float)) / dim)
    left = jnp.where(needed < 1.0, 1.0 - needed, 1.0)
    root = (1.0 + 4.0 * noise * needed) / (2.0 * left)
    return jnp.where(needed < 1.0, jnp.maximum(jnp.square(root), 1.0), jnp.inf)


def _check_vector(value: Array, name: str) -> None:
    if jnp.ndim(value) != 1 or jnp.size(value) == 0:
        raise ValueError(f"{name} must have shape [d] with d >= 1, got {jnp.shape(value)}")
