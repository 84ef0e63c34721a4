"""Relabelled data sets: images perturbed towards a class and labelled as that class.

Ilyas et al. (2019), "Adversarial Examples Are Not Bugs, They Are Features",
https://arxiv.org/abs/1905.02175, section 3.2. To a human every such label is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from advfeat.attacks.batch import attack_dataset
from advfeat.attacks.keeping import by_success
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.attacks.step_rules import filtered, steepest
from advfeat.checks import check_ids, check_images, check_labels
from advfeat.edges import one_key
from advfeat.evaluation.prediction import predict
from advfeat.images.augmentation import Transform
from advfeat.objectives.classification import targeted, transformed
from advfeat.threats.balls import ThreatModel
from advfeat.threats.norms import LINF, scale_to_norm
from advfeat.types import Array, AttackFn, Key, ModelFn, Number, Objective


class ConstructedSet(NamedTuple):
    """Images with their new labels, on the host.

    Attributes:
      image: float32 in [0, 1], perturbed.
      label: int32, the target class of the perturbation, used as training label.
      original_label: int32, the class that a human sees.
      id: int32, id of the example in its source.
      fooled: whether the source network predicts the new label.
      distance: float32, size of the perturbation.
    """

    image: Float[np.ndarray, "N H W C"]
    label: Int[np.ndarray, " N"]
    original_label: Int[np.ndarray, " N"]
    id: Int[np.ndarray, " N"]
    fooled: Bool[np.ndarray, " N"]
    distance: Float[np.ndarray, " N"]

    def take(self, rows: Integer[np.ndarray, " n"] | Bool[np.ndarray, " N"]) -> ConstructedSet:
        """Selects the examples at `rows` (indices or a mask)."""
        return ConstructedSet(*(field[rows] for field in self))


def random_targets(
    key: Key, labels: Integer[np.ndarray, " N"], *, num_classes: int
) -> Int[np.ndarray, " N"]:
    """Draws the targets of D_rand: uniform over all classes, original included (Table 6).

    Raises:
      ValueError: for labels out of range or fewer than 2 classes.
    """
    _check_classes(labels, num_classes)
    drawn = jax.random.randint(key, np.shape(labels), 0, num_classes)
    return np.asarray(drawn, np.int32)


def deterministic_targets(
    labels: Integer[np.ndarray, " N"], *, num_classes: int
) -> Int[np.ndarray, " N"]:
    """Returns the targets of D_det: the class after the original, t = (y + 1) mod C.

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


def targeted_pgd(
    threat: ThreatModel,
    *,
    steps: int = 100,
    step_size: Number | None = None,
    transform: Transform | None = None,
    gradient_filter: Callable[[Float[Array, "H W C"]], Float[Array, "H W C"]] | None = None,
) -> GradientAttack:
    """Returns the attack that builds D_rand and D_det: targeted PGD from the image itself.

    Args:
      threat: the threat model; `l2(0.5)` for CIFAR-10 in the paper.
      steps: number of steps; 100 in the paper.
      step_size: by default a fifth of eps, which equals the paper's 0.1 at its eps.
      transform: random transform of the image, redrawn at every step (none in the paper). The last
        iterate is then kept, unscored: of noisy scores the highest is mostly luck.
      gradient_filter: filter applied to gradients, e.g. `filters.chroma420` (none in the paper).
    """
    objective: Objective = targeted()
    return pgd(
        threat,
        steps=steps,
        step_size=threat.eps / 5 if step_size is None else step_size,
        random_start=False,
        objective=objective if transform is None else transformed(objective, transform),
        rule=steepest if gradient_filter is None else filtered(steepest, gradient_filter),
        keep=by_success if transform is None else None,
    )


def construct(
    key: Key,
    attack: AttackFn,
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    targets: Integer[np.ndarray, " N"],
    *,
    ids: Integer[np.ndarray, " N"] | None = None,
    batch_size: int = 250,
    advance: Callable[[int], Any] | None = None,
) -> ConstructedSet:
    """Perturbs every image towards its target and labels it as the target.

    Args:
      key: a typed key.
      attack: a targeted attack on ONE example; `targeted_pgd(l2(0.5))` in the paper.
      model_fn: the source network, for ONE example.
      images: in [0, 1].
      labels: original labels.
      targets: new labels.
      ids: by default 0 … N-1.
      batch_size: examples per batch.
      advance: called after each batch with its number of examples.

    Returns:
      The constructed set.

    Raises:
      ValueError: for invalid images, labels or targets.
    """
    check_images(images)
    num_classes = jax.eval_shape(model_fn, jnp.asarray(images[0], jnp.float32)).shape[-1]
    check_labels(labels, num_classes=num_classes, count=len(images))
    check_labels(targets, num_classes=num_classes, count=len(images), name="targets")
    ids = np.arange(len(images)) if ids is None else np.asarray(ids)
    check_ids(ids, count=len(images), below=2**31)
    ids = ids.astype(np.int32)
    result = attack_dataset(
        key, attack, model_fn, images, targets, ids=ids, batch_size=batch_size, advance=advance
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


def _noise(key: Key, threat: ThreatModel, shape: tuple[int, ...]) -> Array:
    """Draws Gaussian noise; random signs for L-infinity, where a Gaussian is mostly small."""
    if threat.norm is LINF:
        return jax.random.rademacher(key, shape, jnp.float32)
    return jax.random.normal(key, shape)


@jax.jit
def _noise_like(key: Key, threat: ThreatModel, ids: Array, x: Array, distance: Array) -> Array:
    def one(example_id: Array, x: Array, far: Array) -> Array:
        noise = _noise(jax.random.fold_in(key, example_id), threat, x.shape)
        return scale_to_norm(threat.norm, far, x, noise)

    return jax.vmap(one)(ids, x, distance)


def noise_control(
    key: Key, threat: ThreatModel, made: ConstructedSet, images: Float[np.ndarray, "N H W C"]
) -> ConstructedSet:
    """Returns a control with the same labels and Gaussian noise of the size of each perturbation.

    Args:
      key: a typed key.
      threat: its norm measures the size.
      made: the constructed set.
      images: original images.
    """
    noisy = _noise_like(
        one_key(key), threat, jnp.asarray(made.id), jnp.asarray(images), jnp.asarray(made.distance)
    )
    return made._replace(image=np.asarray(noisy), fooled=np.zeros(len(images), bool))


def unperturbed_control(
    made: ConstructedSet, images: Float[np.ndarray, "N H W C"]
) -> ConstructedSet:
    """Returns a control with the same labels on the original images: mislabelling alone."""
    nothing = np.zeros(len(images), np.float32)
    return made._replace(
        image=np.asarray(images, np.float32), fooled=nothing.astype(bool), distance=nothing
    )


@jax.jit
def _with_pattern(
    threat: ThreatModel, images: Array, patterns: Array, labels: Array
) -> tuple[Array, Array]:
    """Adds the pattern of its label to each image, at distance eps where the box has room."""

    def one(x: Array, label: Array) -> tuple[Array, Array]:
        point = scale_to_norm(threat.norm, threat.eps, x, patterns[label])
        return point, threat.distance(x, point)

    return jax.vmap(one)(images, labels)


def feature_free_control(
    key: Key,
    threat: ThreatModel,
    made: ConstructedSet,
    images: Float[np.ndarray, "N H W C"],
    resemblance: Float[np.ndarray, " N"],
    *,
    num_classes: int,
) -> ConstructedSet:
    """Returns a control without learned features: a fixed random pattern per class.

    Measures how much of the effect selection alone explains. Jordan's control (see the Distill
    discussion of the paper) leaves images unperturbed if the new label already suits them. To the
    others it adds a pattern unrelated to the data that only encodes the new label, so that a
    network can fit them without unlearning the suitable ones. For D_rand the suitable images are
    those with t = y. If there are too few (D_det has none), they are the 1 in C images whose
    unperturbed version resembles the new label most, according to the source network.

    Args:
      key: a typed key, for the patterns.
      threat: norm and eps of the patterns.
      made: the constructed set whose labels are kept.
      images: original images.
      resemblance: margin of the new label on the original image under the source network.
      num_classes: C.
    """
    suits = made.label == made.original_label
    if suits.mean() < 0.5 / num_classes:
        count = max(1, round(len(images) / num_classes))
        suits = np.zeros(len(images), bool)
        suits[np.argsort(-resemblance, kind="stable")[:count]] = True
    patterns = _noise(key, threat, (num_classes, *images.shape[1:]))
    added, far = _with_pattern(threat, jnp.asarray(images), patterns, jnp.asarray(made.label))
    chosen = suits.reshape(-1, 1, 1, 1)
    return made._replace(
        image=np.where(chosen, images, np.asarray(added)).astype(np.float32),
        fooled=np.zeros(len(images), bool),
        distance=np.where(suits, 0.0, np.asarray(far)).astype(np.float32),
    )
