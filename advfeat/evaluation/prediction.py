"""Predictions, and clean and adversarial accuracy over a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from advfeat import devices
from advfeat.attacks.batch import attack_dataset, check_batch
from advfeat.attacks.iterative import AttackState, IterativeAttack
from advfeat.checks import check_eps, check_images, check_labels, check_positive
from advfeat.edges import one_key, output_of
from advfeat.keys import stream
from advfeat.threats.balls import ThreatModel, threat_model
from advfeat.threats.norms import Norm
from advfeat.types import Array, AttackFn, Key, ModelFn, Randomised, as_model_fn, with_key

LOOKS = 20
"""Number of draws of a random network that decide the verdict on an image."""


@devices.shared("ids", "x")
def _logits_batch(model_fn: ModelFn, key: Key | None, ids: Array, x: Array) -> Array:
    if key is None:
        return jax.vmap(model_fn)(x)
    return jax.vmap(lambda i, one: with_key(model_fn, jax.random.fold_in(key, i))(one))(ids, x)


def predict(
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    *,
    batch_size: int = 500,
    key: Key | None = None,
    ids: Integer[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, " N *K"]:
    """Computes the logits of a data set in batches of one shape.

    Args:
      model_fn: the network, for ONE example.
      images: in [0, 1], on the host.
      batch_size: examples per batch.
      key: key of a `Randomised` network, folded with the image id, so that every image gets its own
        draw. By default all images share the single draw of the network's own key, which says
        little about the network as a whole; see `shares`.
      ids: by default 0 … N-1.

    Returns:
      The logits (or whatever the network returns), on the host.

    Raises:
      ValueError: for invalid images, or a network that does not take ONE of them.
    """
    check_images(images)
    check_positive(batch_size, name="batch_size")
    key = None if key is None else one_key(key)
    images = np.asarray(images)
    ids = np.arange(len(images)) if ids is None else np.asarray(ids)
    output_of(as_model_fn(model_fn), images.shape[1:])
    return logits_of(model_fn, images, ids, batch_size=batch_size, key=key)


def logits_of(
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    ids: Integer[np.ndarray, " N"],
    *,
    batch_size: int,
    key: Key | None = None,
) -> Float[np.ndarray, " N *K"]:
    """Computes logits as `predict` does, whose caller has checked the arguments."""
    model_fn = as_model_fn(model_fn)
    size = devices.rows_at_once(model_fn, images.shape[1:], batch_size)
    model_fn, key = devices.everywhere((model_fn, key))

    def call(rows: np.ndarray) -> Array:
        x = images[rows].astype(np.float32, copy=False)
        return _logits_batch(model_fn, key, ids[rows], x)

    return np.asarray(devices.in_parts(call, len(images), size))


def numpy_predict(
    model_fn: ModelFn, *, batch_size: int = 100
) -> Callable[[Float[np.ndarray, "N H W C"]], Float[np.ndarray, "N K"]]:
    """Wraps a network for other libraries: NumPy images in, NumPy probabilities out.

    For example, `lime.lime_image.LimeImageExplainer().explain_instance(image, predict, ...)` then
    explains a network for colour images. Values that rounding pushed out of [0, 1] are clipped.

    Args:
      model_fn: the network, for ONE example.
      batch_size: examples per batch; fixed, so that it compiles once.

    Returns:
      A function from images in [0, 1] to probabilities.

    >>> predict_fn = numpy_predict(lambda x: x.ravel())
    >>> predict_fn(np.zeros((3, 1, 2, 1))).tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    """
    check_positive(batch_size, name="batch_size")
    model_fn = as_model_fn(model_fn)

    def predict_fn(images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        if np.issubdtype(images.dtype, np.floating):
            near = np.clip(images, 0, 1)
            images = np.where(np.abs(images - near) < 1e-3, near, images)
        logits = predict(model_fn, images, batch_size=batch_size)
        return np.asarray(jax.nn.softmax(logits.astype(np.float32), axis=-1))

    return predict_fn


def shares(
    key: Key,
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    looks: int = LOOKS,
    ids: Integer[np.ndarray, " N"] | None = None,
    batch_size: int = 500,
) -> Float[np.ndarray, " N"]:
    """Computes the share of a network's draws that classify each image correctly.

    Every verdict on an image is based on it. A deterministic network has one draw: 0 or 1. A
    `Randomised` network is evaluated several times per image with independent draws, so that the
    mean over images is an expectation over images and draws, and the spread covers both.

    Args:
      key: key of the draws, folded with the index of the draw and the image id.
      model_fn: the network, for ONE example.
      images: in [0, 1].
      labels: class indices.
      looks: draws per image of a random network.
      ids: by default 0 … N-1.
      batch_size: examples per batch.

    Returns:
      The share of each image, float64 in [0, 1].

    Raises:
      ValueError: for invalid images or labels.

    >>> from advfeat.types import randomised
    >>> coin = lambda key, x: jnp.where(jax.random.bernoulli(key, 0.7), x.ravel(), -x.ravel())
    >>> x, y = np.tile(np.float32([[[[0.9], [0.1]]]]), (500, 1, 1, 1)), np.zeros(500, int)
    >>> found = shares(jax.random.key(0), randomised(coin), x, y)
    >>> bool(abs(found.mean() - 0.7) < 0.02)
    True
    """
    check_positive(looks, name="looks")
    options: dict[str, Any] = {"batch_size": batch_size, "ids": ids}
    if not isinstance(model_fn, Randomised):
        return _right(predict(model_fn, images, **options), labels).astype(np.float64)
    total = np.zeros(len(images))
    for look in range(looks):
        logits = predict(model_fn, images, key=jax.random.fold_in(key, look), **options)
        total += _right(logits, labels)
    return total / looks


def _right(
    logits: Float[np.ndarray, "N K"], labels: Integer[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    check_labels(labels, num_classes=logits.shape[1], count=len(logits))
    return np.asarray(np.argmax(logits, axis=1) == np.asarray(labels))


def correct(
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    batch_size: int = 500,
) -> Bool[np.ndarray, " N"] | Float[np.ndarray, " N"]:
    """Returns which examples of a data set are classified correctly, on the host.

    Returns:
      Booleans; for a `Randomised` network the shares of `LOOKS` draws under its own key, float64.

    Raises:
      ValueError: for invalid images or labels.
    """
    if isinstance(model_fn, Randomised):
        return shares(model_fn.key, model_fn, images, labels, batch_size=batch_size)
    return _right(predict(model_fn, images, batch_size=batch_size), labels)


def accuracy(
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    batch_size: int = 500,
) -> float:
    """Computes the accuracy on a data set: the mean of `correct`.

    Raises:
      ValueError: for invalid images or labels.

    >>> accuracy(lambda x: x.ravel(), np.eye(3).reshape(3, 3, 1, 1), np.array([0, 1, 1]))
    0.6666666666666666
    """
    return float(correct(model_fn, images, labels, batch_size=batch_size).mean())


class EpsilonSweep(NamedTuple):
    """Result of `evaluate_epsilons`.

    Attributes:
      epsilons: in the order given.
      robust: correct on the clean image and at the attack's point, at this eps and
        every smaller one of the list (an adversarial example at a smaller eps is valid at a larger
        one). For a `Randomised` network, the share of correct draws at the worst of these points.
    """

    epsilons: Float[np.ndarray, " E"]
    robust: Bool[np.ndarray, "E N"] | Float[np.ndarray, "E N"]


def evaluate_epsilons(
    key: Key,
    attack_for: Callable[[Float[Array, ""]], AttackFn],
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    epsilons: Sequence[float] | Float[np.ndarray, " E"],
    *,
    norm: str | Norm | None = None,
    batch_size: int = 250,
    advance: Callable[[int], Any] | None = None,
) -> EpsilonSweep:
    """Computes the accuracy under attack for a list of eps, compiled once for all of them.

    Each verdict comes from evaluating the network at the attack's best point, never from the
    success flag that the attack reports.

    Args:
      key: a typed key.
      attack_for: eps -> attack, e.g. `lambda eps: pgd(l2(eps), steps=20)`.
      model_fn: the network, for ONE example.
      images: in [0, 1].
      labels: class indices.
      epsilons: any numbers >= 0; 0 gives the clean accuracy.
      norm: norm of eps; if given, points beyond eps do not count. By default points must lie in
        the attack's own threat model, or just in [0, 1] if it has none.
      batch_size: examples per batch.
      advance: called after each batch with its number of examples.

    Returns:
      The examples that remain robust at each eps.

    Raises:
      ValueError: for invalid images, labels or epsilons.

    >>> import jax, advfeat
    >>> x, y = np.array([[[[0.8], [0.3]]]], np.float32), np.array([0])
    >>> attack_for = lambda eps: advfeat.pgd(advfeat.linf(eps), steps=3)
    >>> sweep = evaluate_epsilons(jax.random.key(0), attack_for, jnp.ravel, x, y, [0, 0.2, 0.3])
    >>> sweep.robust[:, 0]
    array([ True,  True, False])
    """
    if len(epsilons) == 0:
        raise ValueError("epsilons must hold at least one value")
    check_eps(epsilons, name="epsilons")
    looked, random = partial(shares, batch_size=batch_size), isinstance(model_fn, Randomised)
    points = np.array(images, np.float32)
    # For a random network, separate draws select the points and report their shares.
    chosen = looked(stream(key, "choose"), model_fn, images, labels)
    found = np.zeros((len(epsilons), len(images)))
    for index in np.argsort(epsilons, kind="stable"):
        if epsilons[index] > 0:
            eps = jnp.float32(epsilons[index])
            attack = attack_for(eps)
            result = attack_dataset(
                key, attack, model_fn, images, labels, batch_size=batch_size, advance=advance
            )
            threat = threat_of(attack) if norm is None else threat_model(norm, eps)
            reached = np.asarray(result.best.x, np.float32)
            allowed = allowed_points(threat, images, reached)
            x = np.where(allowed[:, None, None, None], reached, images).astype(np.float32)
            share = looked(stream(key, f"choose/{index}"), model_fn, x, labels)
            lower = allowed & (share < chosen)
            points[lower], chosen = x[lower], np.where(lower, share, chosen)
        found[index] = looked(stream(key, "report"), model_fn, points, labels) if random else chosen
    return EpsilonSweep(np.asarray(epsilons, np.float64), found if random else found > 0.5)


def threat_of(attack: AttackFn) -> ThreatModel | None:
    """Returns the threat model of an attack, or None."""
    found = getattr(attack, "threat", None)
    return found if isinstance(found, ThreatModel) else None


@jax.jit
def _within(threat: ThreatModel, x0: Array, x: Array) -> Array:
    return jax.vmap(threat.contains)(x0, x)


def allowed_points(
    threat: ThreatModel | None, x0: Float[np.ndarray, "N H W C"], x: Float[np.ndarray, "N H W C"]
) -> Bool[np.ndarray, " N"]:
    """Tests whether points are images and, given a threat model, lie in it."""
    x = np.asarray(x, np.float32)
    if threat is None:
        return np.asarray(((x >= 0) & (x <= 1)).all(axis=(1, 2, 3)))  # False for NaN
    return np.asarray(_within(threat, np.asarray(x0, np.float32), x))


@devices.shared("ids", "x", "y", static=("steps",))
def _trace(
    key: Key, attack: IterativeAttack, ids: Array, model_fn: ModelFn, x: Array, y: Array, steps: int
) -> Array:
    def one(i: Array, x: Array, y: Array) -> Array:
        state = attack.init(jax.random.fold_in(key, i), model_fn, x, y, jnp.zeros_like(i))

        def step(state: AttackState, _: None) -> tuple[AttackState, Array]:
            state = attack.step(model_fn, state)
            return state, state.best.score

        state, scores = jax.lax.scan(step, state, None, length=steps)
        return jnp.append(scores, attack.finish(model_fn, state).best.score)

    return jax.vmap(one)(ids, x, y)


def best_score_curve(
    key: Key,
    attack: IterativeAttack,
    model_fn: ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    batch_size: int = 250,
) -> Float[np.ndarray, "N {attack.steps}+1"]:
    """Traces the score of the preferred iterate over steps, to check convergence of an attack.

    Args:
      key: a typed key.
      attack: a step-by-step attack, of which only the first round runs. Attacks prefer success over
        a higher score; for the running maximum of the score, which never falls, use
        `pgd(..., keep=keeping.by_score)`.
      model_fn: the network, for ONE example.
      images: in [0, 1].
      labels: class indices.
      batch_size: examples per batch.

    Returns:
      A score for every step, and last that of the result.

    Raises:
      ValueError: for invalid images or labels.
    """
    images, labels, ids, _ = check_batch(model_fn, images, labels, None, method=attack)
    size = devices.rows_at_once(model_fn, images.shape[1:], batch_size)
    key, attack, model_fn = devices.everywhere((one_key(key), attack, as_model_fn(model_fn)))

    def call(rows: np.ndarray) -> Array:
        x = images[rows].astype(np.float32, copy=False)
        return _trace(key, attack, ids[rows], model_fn, x, labels[rows], attack.steps)

    return np.asarray(devices.in_parts(call, len(images), size))
