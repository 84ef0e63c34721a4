"""Analysis of representations: distances, their ordering, and sensitivity to attacks.

Engstrom et al. (2019), https://arxiv.org/abs/1906.00945; the layer measure is that of the authors
of "Adversarial examples are not bugs" in https://distill.pub/2019/advex-bugs-discussion/response-4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from advfeat.attacks.batch import attack_dataset
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.evaluation.prediction import predict
from advfeat.keys import numpy_seed
from advfeat.objectives.features import feature_distance
from advfeat.rows import draw_rows
from advfeat.threats.balls import ThreatModel
from advfeat.threats.norms import l2_length
from advfeat.types import Array, Key, ModelFn


def relative_distance(
    layer_fn: ModelFn, x: Float[Array, "*x"], other: Float[Array, "*x"]
) -> Float[Array, ""]:
    """Computes `|f(other) - f(x)| / |f(x)|`; 0 for equal representations, even if both are 0.

    Args:
      layer_fn: ONE image -> activations of a layer, of any shape.
      x: ONE image.
      other: another.

    >>> float(relative_distance(lambda x: 2 * x, jnp.array([3.0, 4.0]), jnp.array([3.0, 9.0])))
    1.0
    """
    here = layer_fn(x)
    return l2_length(layer_fn(other) - here) / jnp.maximum(l2_length(here), 1e-12)


def rank_agreement(
    layer_fn: ModelFn, x: Float[Array, "*image"], graded: Float[Array, " S *image"]
) -> Float[Array, ""]:
    """Computes how often a stronger distortion lies farther away, over all pairs of strengths.

    A two-alternative forced choice with the strength in place of a human judgement: 0.5 is chance,
    1 means a perfect ordering. Ties count half.

    Args:
      layer_fn: ONE image -> activations.
      x: ONE image.
      graded: distorted versions of the image, weakest first, S at least 2.

    Raises:
      ValueError: for fewer than two strengths.
    """
    if graded.shape[0] < 2:
        raise ValueError(f"graded must hold at least two strengths, got {graded.shape[0]}")
    far = jax.vmap(lambda other: relative_distance(layer_fn, x, other))(graded)
    weaker, stronger = np.triu_indices(graded.shape[0], 1)
    right = (far[weaker] < far[stronger]) + 0.5 * (far[weaker] == far[stronger])
    return jnp.where(jnp.isnan(far).any(), jnp.nan, jnp.mean(right))


def unit_values(
    layer_fn: ModelFn, images: Float[np.ndarray, "N H W C"]
) -> Float[np.ndarray, "N D"]:
    """Computes unit activations or channel means of every image.

    Args:
      layer_fn: ONE image -> activations `[D]` or `[h, w, D]`.
      images: in [0, 1].

    Raises:
      ValueError: for bad images.
    """
    found = predict(layer_fn, images)
    return found.reshape(len(found), -1, found.shape[-1]).mean(axis=1)


def depart(threat: ThreatModel, *, steps: int = 20) -> GradientAttack:
    """Returns an attack that moves a representation away from the clean one, which is the aim."""
    return pgd(threat, steps=steps, objective=feature_distance())


class Sensitivity(NamedTuple):
    """Distance that an attack moves a layer, and distance between two images in that layer.

    Attributes:
      moved: `max |f(x') - f(x)|`.
      apart: `|f(x) - f(x2)|` for another image of the set, drawn at random.
    """

    moved: Float[np.ndarray, " N"]
    apart: Float[np.ndarray, " N"]

    @property
    def ratio(self) -> float:
        """R(f), `E moved / E apart`; at 1 an attack moves as far as another image lies."""
        return float(self.moved.mean() / max(self.apart.mean(), 1e-12))


def layer_sensitivity(
    key: Key,
    layer_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    threat: ThreatModel,
    *,
    steps: int = 20,
    batch_size: int = 100,
) -> Sensitivity:
    """Measures the adversarial sensitivity R(f) of a layer, relative to its own scale.

    Args:
      key: a typed key.
      layer_fn: ONE image -> activations of a layer, of any shape.
      images: in [0, 1], N at least 2.
      threat: the threat model.
      steps: steps of the attack.
      batch_size: images per batch.

    Raises:
      ValueError: for invalid images, or fewer than two.
    """
    clean = predict(layer_fn, images)
    if len(images) < 2:
        raise ValueError(f"images must be at least two, got {len(images)}")
    found = attack_dataset(
        key, depart(threat, steps=steps), layer_fn, images, clean, batch_size=batch_size
    )
    # A random cyclic order pairs each image with another, independently of the order of the set.
    circle = draw_rows(len(images), len(images), seed=numpy_seed(key))
    apart = (clean[np.roll(circle, 1)] - clean[circle]).reshape(len(images), -1)
    apart = apart[np.argsort(circle)]
    return Sensitivity(np.asarray(found.best.score), np.linalg.norm(apart, axis=1))


def interpolate(
    start: Float[Array, "*x"], end: Float[Array, "*x"], count: int
) -> Float[Array, " {count} *x"]:
    """Interpolates linearly between two images or representations, ends included.

    Raises:
      ValueError: for a count below 2, or shapes that differ.

    >>> interpolate(jnp.zeros(1), jnp.ones(1), 3).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    if start.shape != end.shape:
        raise ValueError(f"start and end must be of one shape, got {start.shape} and {end.shape}")
    share = jnp.linspace(0.0, 1.0, count).reshape(-1, *[1] * start.ndim)
    return (1 - share) * start[None] + share * end[None]


def extremes(
    values: Shaped[np.ndarray, " N"], count: int
) -> tuple[Int[np.ndarray, " {count}"], Int[np.ndarray, " {count}"]]:
    """Returns the indices of the largest and smallest values, most extreme first.

    Args:
      values: one a place.
      count: number of each.

    Raises:
      ValueError: for a count below 1 or above N.

    >>> [found.tolist() for found in extremes(np.array([0.3, 0.1, 0.9]), 2)]
    [[2, 0], [1, 0]]
    """
    if not 1 <= count <= len(values):
        raise ValueError(f"count must lie in [1, {len(values)}], got {count}")
    order = np.argsort(values, kind="stable")
    return order[::-1][:count], order[:count]


def class_directions(
    values: Float[np.ndarray, " N *point"],
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[int] | Integer[np.ndarray, " K"],
) -> Float[np.ndarray, " K *point"]:
    """Computes the unit direction from the mean representation of all images to that of a class.

    Args:
      values: `[N, ...]`, representations of images.
      labels: `[N]`, their classes, as labelled or as predicted.
      classes: `[K]`, the classes, each with at least one image.

    Returns:
      `[K, ...]`, of length 1; 0 where a class has the mean of all.

    >>> class_directions(np.array([[0.0, 0.0], [0.0, 4.0]]), np.array([0, 1]), [1]).tolist()
    [[0.0, 1.0]]
    """
    towards = np.stack([values[labels == label].mean(axis=0) for label in classes])
    towards -= values.mean(axis=0)
    lengths = np.sqrt(np.sum(towards**2, axis=tuple(range(1, towards.ndim)), keepdims=True))
    towards /= np.maximum(lengths, 1e-12)
    return towards


def linear_probe(
    values: Float[np.ndarray, "N D"],
    labels: Integer[np.ndarray, " N"],
    *,
    regularisation: float = 10.0,
) -> Callable[[Float[np.ndarray, "M D"]], Integer[np.ndarray, " M"]]:
    """Fits a linear classifier to frozen representations: logistic regression after standardising.

    Args:
      values: `[N, D]`, representations of training images.
      labels: `[N]`.
      regularisation: weight of the L2 penalty, over that of one example's loss.

    Returns:
      Representations `[M, D]` -> predicted labels `[M]`.

    >>> predict = linear_probe(np.array([[-1.0], [1.0]]), np.array([3, 5]))
    >>> predict(np.array([[2.0], [-2.0]])).tolist()
    [5, 3]
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=2000, C=1 / regularisation)
    )
    classifier.fit(values, labels)
    return lambda others: np.asarray(classifier.predict(others))
