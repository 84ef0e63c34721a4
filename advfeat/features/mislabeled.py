"""Constructed data sets: images perturbed towards a class and labelled as that class.

Ilyas et al. (2019), "Adversarial Examples Are Not Bugs, They Are Features",
https://arxiv.org/abs/1905.02175, section 3.2. To a person every such label is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.attacks.ascent import by_recency, by_success
from advfeat.attacks.batch import attack_dataset
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.attacks.step_rules import filtered, steepest
from advfeat.checks import check_ids, check_images, check_labels
from advfeat.edges import one_key
from advfeat.evaluation.prediction import predict
from advfeat.images.augmentation import Transform
from advfeat.objectives.classification import targeted, transformed
from advfeat.threats.balls import ThreatModel
from advfeat.threats.norms import LINF, scale_to_norm
from advfeat.types import Array, AttackFn, Key, ModelFn, Objective


class ConstructedSet(NamedTuple):
    """Images with their new labels, on the host.

    Attributes:
      image: `[N, H, W, C]` float32 in [0, 1], perturbed.
      label: `[N]` int32, the class perturbed towards: what a network is to learn.
      original_label: `[N]` int32, the class a person sees.
      id: `[N]` int32, the example's id in its source.
      fooled: `[N]` bool, whether the source network predicts the new label.
      distance: `[N]` float32, the perturbation's size.
    """

    image: np.ndarray
    label: np.ndarray
    original_label: np.ndarray
    id: np.ndarray
    fooled: np.ndarray
    distance: np.ndarray

    def take(self, rows: np.ndarray) -> ConstructedSet:
        """The examples at `rows` (indices or a mask)."""
        return ConstructedSet(*(field[rows] for field in self))


def random_targets(key: Key, labels: np.ndarray, *, num_classes: int) -> np.ndarray:
    """D_rand's targets: uniform over all classes, the original one included (Table 6 there).

    Returns:
      `[N]` int32.

    Raises:
      ValueError: for labels out of range or fewer than 2 classes.
    """
    _check_classes(labels, num_classes)
    drawn = jax.random.randint(key, np.shape(labels), 0, num_classes)
    return np.asarray(drawn, np.int32)


def deterministic_targets(labels: np.ndarray, *, num_classes: int) -> np.ndarray:
    """D_det's targets: the class after the original one, t = (y + 1) mod C.

    Returns:
      `[N]` int32.

    Raises:
      ValueError: for labels out of range or fewer than 2 classes.

    >>> deterministic_targets(np.array([0, 1, 2]), num_classes=3)
    array([1, 2, 0], dtype=int32)
    """
    _check_classes(labels, num_classes)
    return ((np.asarray(labels, np.int32) + 1) % num_classes).astype(np.int32)


def _check_classes(labels: np.ndarray, num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    check_labels(labels, num_classes=num_classes)


def towards(
    threat: ThreatModel,
    *,
    steps: int = 100,
    step_size: float | Array | None = None,
    transform: Transform | None = None,
    gradient_filter: Callable[[Array], Array] | None = None,
) -> GradientAttack:
    """The attack that builds D_rand and D_det: targeted PGD from the image itself.

    Args:
      threat: the paper's is `l2(0.5)` on CIFAR-10.
      steps: the paper's is 100.
      step_size: the paper's is 0.1; by default a fifth of eps, which is the same at its eps.
      transform: look at the image through this random transform, anew at every step; then the
        last iterate is kept, since scores are noisy. The paper has none.
      gradient_filter: pass gradients through this, `filters.chroma420` for instance. The paper has
        none.
    """
    objective: Objective = targeted()
    return pgd(
        threat,
        steps=steps,
        step_size=threat.eps / 5 if step_size is None else step_size,
        random_start=False,
        objective=objective if transform is None else transformed(objective, transform),
        rule=steepest if gradient_filter is None else filtered(steepest, gradient_filter),
        prefer=by_success if transform is None else by_recency,
    )


def construct(
    key: Key,
    attack: AttackFn,
    model_fn: ModelFn,
    images: np.ndarray,
    labels: np.ndarray,
    targets: np.ndarray,
    *,
    ids: np.ndarray | None = None,
    batch_size: int = 250,
    advance: Callable[[int], Any] | None = None,
) -> ConstructedSet:
    """Perturbs every image towards its target and labels it as the target.

    Args:
      key: a typed key.
      attack: targeted, on ONE example; `towards(l2(0.5))` is the paper's.
      model_fn: the source network, for ONE example.
      images: `[N, H, W, C]` floating point in [0, 1].
      labels: `[N]` the original labels.
      targets: `[N]` the new labels.
      ids: `[N]`, by default 0 … N-1.
      batch_size: examples at a time.
      advance: called with the number of examples after each batch.

    Returns:
      The constructed set.

    Raises:
      ValueError: for bad images, labels or targets.
    """
    check_images(images)
    num_classes = jax.eval_shape(model_fn, jnp.asarray(images[0], jnp.float32)).shape[-1]
    check_labels(labels, num_classes=num_classes, count=len(images))
    check_labels(targets, num_classes=num_classes, count=len(images), name="targets")
    ids = np.arange(len(images)) if ids is None else np.asarray(ids)
    check_ids(ids, count=len(images), below=2**31)
    ids = ids.astype(np.int32)
    result = attack_dataset(
        attack, key, model_fn, images, targets, ids=ids, batch_size=batch_size, advance=advance
    )
    made = np.asarray(result.best.x, np.float32)
    said = np.argmax(predict(model_fn, made, batch_size=batch_size), axis=1)
    return ConstructedSet(
        image=made,
        label=np.asarray(targets, np.int32),
        original_label=np.asarray(labels, np.int32),
        id=ids,
        fooled=said == np.asarray(targets),
        distance=np.asarray(result.best.distance),
    )


def _noise(threat: ThreatModel, key: Key, shape: tuple[int, ...]) -> Array:
    """Gaussian; random signs for L-infinity, where a Gaussian is small but for its one largest."""
    if threat.norm is LINF:
        return jax.random.rademacher(key, shape, jnp.float32)
    return jax.random.normal(key, shape)


@jax.jit
def _noise_like(threat: ThreatModel, key: Key, ids: Array, x: Array, distance: Array) -> Array:
    def one(example_id: Array, x: Array, far: Array) -> Array:
        noise = _noise(threat, jax.random.fold_in(key, example_id), x.shape)
        return scale_to_norm(threat.norm, far, x, noise)

    return jax.vmap(one)(ids, x, distance)


def noise_control(
    key: Key, threat: ThreatModel, made: ConstructedSet, images: np.ndarray
) -> ConstructedSet:
    """The same labels on images with Gaussian noise exactly as large as each perturbation.

    Args:
      key: a typed key.
      threat: its norm says how size is measured.
      made: the constructed set.
      images: `[N, H, W, C]` the original images.
    """
    noisy = _noise_like(
        threat, one_key(key), jnp.asarray(made.id), jnp.asarray(images), jnp.asarray(made.distance)
    )
    return made._replace(image=np.asarray(noisy), fooled=np.zeros(len(images), bool))


def unperturbed_control(made: ConstructedSet, images: np.ndarray) -> ConstructedSet:
    """The same labels on the original images: what mislabelling alone teaches."""
    nothing = np.zeros(len(images), np.float32)
    return made._replace(
        image=np.asarray(images, np.float32), fooled=nothing.astype(bool), distance=nothing
    )


@jax.jit
def _with_pattern(
    threat: ThreatModel, images: Array, patterns: Array, labels: Array
) -> tuple[Array, Array]:
    """Each image with its label's pattern, exactly eps away where the box has room."""

    def one(x: Array, label: Array) -> tuple[Array, Array]:
        point = scale_to_norm(threat.norm, threat.eps, x, patterns[label])
        return point, threat.distance(x, point)

    return jax.vmap(one)(images, labels)


def feature_free_control(
    key: Key,
    threat: ThreatModel,
    made: ConstructedSet,
    images: np.ndarray,
    resemblance: np.ndarray,
    *,
    num_classes: int,
) -> ConstructedSet:
    """No network's features at all: one fixed random pattern per class, and a subset left alone.

    How much of the effect can mere selection explain? Jordan's control (see the Distill discussion
    of the paper) leaves unperturbed the images whose new label suits them as they are, and adds to
    the others a pattern that has nothing to do with the data: it only tells the new label, so that
    a network need not unlearn the suitable ones. For D_rand those are the images with t = y. Where
    there are too few (D_det has none), it is the one in C whose unperturbed image the source
    network finds most like the new label.

    Args:
      key: a typed key, for the patterns.
      threat: norm and eps of the patterns.
      made: the constructed set whose labels to keep.
      images: `[N, H, W, C]` the original images.
      resemblance: `[N]`, the source network's margin of the new label on the original image.
      num_classes: C.
    """
    suits = made.label == made.original_label
    if suits.mean() < 0.5 / num_classes:
        count = max(1, round(len(images) / num_classes))
        suits = np.zeros(len(images), bool)
        suits[np.argsort(-resemblance, kind="stable")[:count]] = True
    patterns = _noise(threat, key, (num_classes, *images.shape[1:]))
    added, far = _with_pattern(threat, jnp.asarray(images), patterns, jnp.asarray(made.label))
    chosen = suits.reshape(-1, 1, 1, 1)
    return made._replace(
        image=np.where(chosen, images, np.asarray(added)).astype(np.float32),
        fooled=np.zeros(len(images), bool),
        distance=np.where(suits, 0.0, np.asarray(far)).astype(np.float32),
    )


def target_margin(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`[N]`: how far the target's logit lies above the best other one (negative: below)."""
    rows = np.arange(len(logits))
    others = np.array(logits, np.float64)
    others[rows, targets] = -np.inf
    return logits[rows, targets] - others.max(axis=1)
