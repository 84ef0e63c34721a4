"""The Bernoulli model of Schmidt et al. (2018), in which a threshold saves training examples.

"Adversarially Robust Generalization Requires More Data", https://arxiv.org/abs/1804.11285, section
2.2 and appendix B (theorem numbers are those of its second version). A label y is a fair coin in
{-1, +1}, and each coordinate of its example is `y * signs_i` with probability 1/2 + bias and
`-y * signs_i` otherwise. A linear classifier predicts `sign(<weights, x>)`, and +1 if that is 0; an
adversary moves x by at most eps in L-infinity, out of {-1, +1}^d. Linear classifiers then need many
examples; the same classifier after a threshold, `sign(<weights, sign(x)>)`, needs one.

The paper's learner sums `y * x`, so its weights are integers and the margin of a fresh example is a
sum of d independent integers: its distribution, and with it every error, is a convolution. Every
function is for ONE draw and composes with `jit` and `vmap`.

Example with one training example and 400 coordinates, each correct with probability 70 %.

>>> key_signs, key_train = jax.random.split(jax.random.key(0))
>>> signs = draw_signs(key_signs, 400)
>>> weights = draw_estimator(key_train, signs, 0.2, 1)
>>> def error(**options):
...     return round(float(robust_error(weights, signs, 0.2, count=1, **options)), 4)
>>> error(eps=0.0), error(eps=0.3), error(eps=0.3, threshold=True)
(0.0016, 0.9999, 0.0016)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Num

from advfeat.checks import check_between, check_eps, check_positive
from advfeat.numerics import over, whole
from advfeat.threats.norms import l2_length
from advfeat.types import Array, Key, Number

Vector = Float[Array, " d"]
Scalar = Float[Array, ""]


def draw_signs(key: Key, dim: int) -> Vector:
    """Draws the model's sign vector: of -1.0 and 1.0, uniform.

    Raises:
      ValueError: for a dimension below 1.

    >>> draw_signs(jax.random.key(0), 3).shape
    (3,)
    """
    check_positive(dim, name="dim")
    return jax.random.rademacher(key, (dim,), float)


def sample(
    key: Key, signs: Vector, bias: Number, count: int
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Draws examples of the model.

    Args:
      key: a typed key.
      signs: each -1 or 1.
      bias: in (0, 1/2].
      count: n, static.

    Returns:
      Examples and labels, all of them -1.0 or 1.0.

    Raises:
      ValueError: for signs that are not a vector, a bias outside (0, 1/2] or a count below 1.

    >>> x, y = sample(jax.random.key(0), jnp.ones(3), 0.5, 2)
    >>> bool((x == y[:, None]).all())
    True
    """
    _check(signs, bias)
    check_positive(count, name="count")
    key_label, key_right = jax.random.split(key)
    label = jax.random.rademacher(key_label, (count,), float)
    right = jax.random.bernoulli(key_right, 0.5 + bias, (count, signs.size))
    return label[:, None] * jnp.where(right, signs[None], -signs[None]), label


def sum_estimator(x: Num[Array, "n d"], y: Num[Array, " n"]) -> Int[Array, " d"]:
    """Returns n times the paper's learner, the sum of `y * x`: in [-n, n].

    Args:
      x: -1 or 1.
      y: -1 or 1.

    Raises:
      ValueError: for inconsistent shapes.

    >>> sum_estimator(jnp.array([[1, 1], [1, -1]]), jnp.array([1, -1])).tolist()
    [0, 2]
    """
    if jnp.ndim(x) != 2 or jnp.shape(y) != jnp.shape(x)[:1] or len(x) == 0:
        found = f"{jnp.shape(x)} and {jnp.shape(y)}"
        raise ValueError(f"x, y must have shapes [n, d] and [n], got {found}")
    return jnp.sum(y[:, None] * x, axis=0).astype(jnp.int32)


def draw_estimator(key: Key, signs: Vector, bias: Number, count: Number) -> Int[Array, " d"]:
    """Draws the result of `sum_estimator` on n fresh examples from its distribution.

    Each coordinate is `signs_i * (2 B - n)` with B binomial; n may be traced.

    Args:
      key: a typed key.
      signs: each -1 or 1.
      bias: in (0, 1/2].
      count: n >= 1.

    Raises:
      ValueError: as for `sample`.

    >>> draw_estimator(jax.random.key(0), jnp.array([1.0, -1.0]), 0.5, 3).tolist()
    [3, -3]
    """
    _check(signs, bias)
    check_between(count, name="count", low=1, closed=(True, True))
    right = jax.random.binomial(key, jnp.asarray(count, float), 0.5 + bias, signs.shape)
    return (signs * (2.0 * right - count)).astype(jnp.int32)


def margin_law(
    weights: Num[Array, " d"], signs: Vector, bias: Number, *, count: int
) -> Float[Array, " 2*{count}*d+1"]:
    """Returns the distribution of a fresh example's margin `y <weights, x>`.

    It takes one convolution per coordinate. Only nonnegative numbers are added, so that small
    probabilities keep their precision.

    Args:
      weights: integers in [-count, count]; larger ones are clipped.
      signs: each -1 or 1.
      bias: in (0, 1/2].
      count: static; bounds the margin by `count * d`.

    Returns:
      The probability of each margin from `-count * d` upwards.

    Raises:
      ValueError: for different shapes, a bias outside (0, 1/2] or a count below 1.

    >>> margin_law(jnp.array([1, 1]), jnp.array([1.0, 1.0]), 0.25, count=1).tolist()
    [0.0625, 0.0, 0.375, 0.0, 0.5625]
    """
    _check(signs, bias)
    check_positive(count, name="count")
    if jnp.shape(weights) != jnp.shape(signs):
        raise ValueError(f"weights must have shape {jnp.shape(signs)}, got {jnp.shape(weights)}")
    steps = jnp.clip(jnp.round(weights * signs), -count, count).astype(jnp.int32)
    right = jnp.asarray(0.5 + bias, float)

    def turn(law: Array, step: Array) -> tuple[Array, None]:
        # Never wraps around: the steps so far cannot reach the ends.
        return right * jnp.roll(law, step) + (1.0 - right) * jnp.roll(law, -step), None

    bound = count * signs.size
    start = jnp.zeros(2 * bound + 1, right.dtype).at[bound].set(1.0)
    return jax.lax.scan(turn, start, steps)[0]


def robust_error(
    weights: Num[Array, " d"],
    signs: Vector,
    bias: Number,
    eps: Number,
    *,
    count: int,
    threshold: bool = False,
) -> Scalar:
    """Returns the exact L-infinity robust error of a linear classifier with integer weights.

    An adversary reduces the margin by `eps |w|_1` (the dual norm), so the error is
    `P[margin < eps |w|_1]` plus half of `P[margin = eps |w|_1]`, since a margin of exactly this
    size is lost for one of the two labels. As eps is only known to floating-point precision, an
    `eps |w|_1` within rounding of an integer is taken as that integer. After a threshold, an eps
    below 1 changes no coordinate's sign, so the error is the standard one; from 1 on, the adversary
    controls every coordinate.

    Args:
      weights: integers in [-count, count], as from `sum_estimator`. The classifier does not
        depend on their scale.
      signs: each -1 or 1.
      bias: in (0, 1/2].
      eps: >= 0; 0 gives the standard error.
      count: number of training examples, which bounds the weights; static.
      threshold: whether the classifier sees `sign(x)` (section 2.2's T).

    Raises:
      ValueError: as for `margin_law`, and for a negative eps.

    >>> weights, signs = jnp.array([1, 1, 1]), jnp.ones(3)
    >>> [float(robust_error(weights, signs, 0.25, eps, count=1)) for eps in (0.0, 0.5)]
    [0.15625, 0.578125]
    """
    check_eps(eps)
    law = margin_law(weights, signs, bias, count=count)
    bound = count * signs.size
    margins = jnp.arange(-bound, bound + 1)
    # Ties occur between integers: 0.6 * 25 is 15, but float32 alone would miss it.
    lost = whole(jnp.where(threshold, 0.0, jnp.asarray(eps, float)) * jnp.sum(jnp.abs(weights)))
    error = jnp.sum(jnp.where(margins < lost, law, 0.0))
    error = jnp.minimum(error + 0.5 * jnp.sum(jnp.where(margins == lost, law, 0.0)), 1.0)
    decided = jnp.logical_and(threshold, jnp.asarray(eps) >= 1.0) & jnp.any(weights != 0)
    return jnp.where(decided, 1.0, error)


def simulated_error(
    key: Key,
    weights: Num[Array, " d"],
    signs: Vector,
    bias: Number,
    eps: Number,
    *,
    draws: int,
) -> Scalar:
    """Estimates the L-infinity robust error of ANY linear classifier from fresh examples.

    There is no closed form for weights that are not integers. The standard deviation of the result
    is at most `0.5 / sqrt(draws)`. A margin within rounding of `eps |w|_1` is a tie, which counts
    half.

    Args:
      key: a typed key.
      weights: real numbers.
      signs: each -1 or 1.
      bias: in (0, 1/2].
      eps: >= 0.
      draws: number of fresh examples, static.

    Raises:
      ValueError: as for `robust_error`, and for draws below 1.

    >>> weights, signs = jnp.array([0.1, 0.1, 0.1]), jnp.ones(3)
    >>> found = simulated_error(jax.random.key(0), weights, signs, 0.25, 0.5, draws=10_000)
    >>> bool(abs(found - 0.578125) < 0.02)
    True
    """
    check_eps(eps)
    check_positive(draws, name="draws")
    x, y = sample(key, signs, bias, draws)
    if jnp.shape(weights) != jnp.shape(signs):
        raise ValueError(f"weights must have shape {jnp.shape(signs)}, got {jnp.shape(weights)}")
    length = jnp.sum(jnp.abs(weights))
    left = y * (x @ weights) - eps * length
    # A sum of d rounded products that should be 0 seldom is.
    tie = jnp.abs(left) <= 4.0 * jnp.finfo(left.dtype).eps * length
    return jnp.mean(jnp.where(tie, 0.5, (left < 0).astype(left.dtype)))


def error_bound(weights: Num[Array, " d"], signs: Vector, bias: Number, eps: Number) -> Scalar:
    """Returns Hoeffding's bound on any linear classifier's robust error: Lemma 26 with eps.

    `exp(-max(2 bias <w, signs> - eps |w|_1, 0)^2 / (2 |w|_2^2))`: the margin is a sum of
    independent terms in `[-|w_i|, |w_i|]` whose mean is `2 bias <w, signs>`.

    Raises:
      ValueError: for different shapes, a bias outside (0, 1/2] or a negative eps.

    >>> round(float(error_bound(jnp.ones(100), jnp.ones(100), 0.2, 0.1)), 3)
    0.011
    """
    _check(signs, bias)
    check_eps(eps)
    if jnp.shape(weights) != jnp.shape(signs):
        raise ValueError(f"weights must have shape {jnp.shape(signs)}, got {jnp.shape(weights)}")
    weights = jnp.asarray(weights, float)
    unit = over(weights, l2_length(weights))
    left = 2.0 * bias * jnp.dot(unit, signs) - eps * jnp.sum(jnp.abs(unit))
    return jnp.exp(-jnp.square(jnp.maximum(left, 0.0)) / 2.0)


def one_example_bound(dim: int, bias: Number) -> tuple[Scalar, Scalar]:
    """Bounds the standard error after one training example, and how often the bound may fail.

    Theorem 27: error `exp(-2 bias^4 d)`, except with probability `exp(-bias^2 d / 2)`. After a
    threshold it bounds the robust error for every eps < 1 (Theorem 10).

    Raises:
      ValueError: for a dimension below 1 or a bias outside (0, 1/2].

    >>> [round(float(part), 4) for part in one_example_bound(1000, 0.25)]
    [0.0004, 0.0]
    """
    check_positive(dim, name="dim")
    check_between(bias, name="bias", high=0.5)
    square = jnp.square(jnp.asarray(bias, float))
    return jnp.exp(-2.0 * dim * jnp.square(square)), jnp.exp(-0.5 * dim * square)


def one_example_bias(dim: int, beta: Number) -> Scalar:
    """Returns the bias from which one example gives a standard error <= beta w.h.p.: Corollary 28.

    `(ln(1 / beta) / (2 d))^(1/4)`; if it exceeds 1/2, the theorem covers no bias.

    Raises:
      ValueError: for a dimension below 1 or a beta outside (0, 1).

    >>> round(float(one_example_bias(1000, 0.01)), 3)
    0.219
    """
    check_positive(dim, name="dim")
    check_between(beta, name="beta", high=1.0, closed=(False, False))
    return (-jnp.log(jnp.asarray(beta, float)) / (2.0 * dim)) ** 0.25


def _check(signs: Array, bias: Number) -> None:
    if jnp.ndim(signs) != 1 or jnp.size(signs) == 0:
        raise ValueError(f"signs must have shape [d] with d >= 1, got {jnp.shape(signs)}")
    check_between(bias, name="bias", high=0.5)
