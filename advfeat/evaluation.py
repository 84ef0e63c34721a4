"""Accuracy, clean and under attack, over a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.ascent import Run
from advfeat.attacks.batch import attack_dataset, check_batch
from advfeat.batching import padded_rows
from advfeat.checks import check_eps, check_images, check_labels, check_positive
from advfeat.stepwise import Stepwise
from advfeat.types import Array, AttackFn, Key, ModelFn, as_model_fn, with_key


@jax.jit
def _logits_batch(model_fn: ModelFn, key: Key | None, ids: Array, x: Array) -> Array:
    if key is None:
        return jax.vmap(model_fn)(x)
    return jax.vmap(lambda i, one: with_key(model_fn, jax.random.fold_in(key, i))(one))(ids, x)


def predict(
    model_fn: ModelFn, images: np.ndarray, *, batch_size: int = 500, key: Key | None = None
) -> np.ndarray:
    """Logits of a data set, in batches of one shape.

    Args:
      model_fn: the network, for ONE example.
      images: `[N, H, W, C]` floating point in [0, 1], on the host.
      batch_size: examples at a time.
      key: of a `Randomised` network's draws, folded with the image's place; by default the network
        uses the key it holds.

    Returns:
      `[N, K]` logits on the host.

    Raises:
      ValueError: for bad images.
    """
    check_images(images)
    check_positive(batch_size, name="batch_size")
    model_fn, images = as_model_fn(model_fn), np.asarray(images)
    parts = []
    for rows, real in padded_rows(len(images), batch_size):
        x = jnp.asarray(images[rows], jnp.float32)
        logits = _logits_batch(model_fn, key, jnp.asarray(rows), x)
        parts.append(np.asarray(logits)[:real])
    return np.concatenate(parts)


def numpy_predict(
    model_fn: ModelFn, *, batch_size: int = 100
) -> Callable[[np.ndarray], np.ndarray]:
    """A network as other libraries want it: NumPy images in, NumPy probabilities out.

    With it `lime.lime_image.LimeImageExplainer().explain_instance(image, predict, ...)` explains
    a network of colour images. Values that left [0, 1] by rounding are clipped.

    Args:
      model_fn: the network, for ONE example.
      batch_size: examples at a time; one shape, so that it compiles once.

    Returns:
      `[N, H, W, C]` floating point in [0, 1] -> `[N, K]` that sum to 1.

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


def accuracy(
    model_fn: ModelFn, images: np.ndarray, labels: np.ndarray, *, batch_size: int = 500
) -> np.ndarray:
    """Which examples of a data set are classified as labelled: `[N]` bool, on the host.

    Raises:
      ValueError: for bad images or labels.
    """
    logits = predict(model_fn, images, batch_size=batch_size)
    check_labels(labels, num_classes=logits.shape[1], count=len(images))
    return np.argmax(logits, axis=1) == np.asarray(labels)


class EpsilonSweep(NamedTuple):
    """What `evaluate_epsilons` found.

    Attributes:
      epsilons: `[E]`, in the order given.
      robust: `[E, N]` bool: correct on the clean image and under the attack, at this eps and at
        every smaller one of the list (what fools at a smaller eps is allowed at a larger one).
    """

    epsilons: np.ndarray
    robust: np.ndarray


def evaluate_epsilons(
    key: Key,
    attack_for: Callable[[Array], AttackFn],
    model_fn: ModelFn,
    images: np.ndarray,
    labels: np.ndarray,
    epsilons: Sequence[float],
    *,
    batch_size: int = 250,
    advance: Callable[[int], Any] | None = None,
) -> EpsilonSweep:
    """Accuracy under attack over a list of eps, compiled once for all of them.

    Args:
      key: a typed key.
      attack_for: eps `[]` -> attack, e.g. `lambda eps: pgd(l2(eps), steps=20)`.
      model_fn: the network, for ONE example.
      images: `[N, H, W, C]` floating point in [0, 1].
      labels: `[N]` integers.
      epsilons: any numbers >= 0; 0 is the clean accuracy.
      batch_size: examples at a time.
      advance: called with the number of examples after each batch.

    Returns:
      Which examples stand at each eps.

    Raises:
      ValueError: for bad images, labels or epsilons.

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
    correct = accuracy(model_fn, images, labels, batch_size=batch_size)
    robust = np.zeros((len(epsilons), len(images)), bool)
    standing = correct
    for index in np.argsort(epsilons, kind="stable"):
        if epsilons[index] > 0:
            attack = attack_for(jnp.float32(epsilons[index]))
            result = attack_dataset(
                attack, key, model_fn, images, labels, batch_size=batch_size, advance=advance
            )
            standing = standing & ~result.best.success
        robust[index] = standing
    return EpsilonSweep(np.asarray(epsilons, np.float64), robust)


@partial(jax.jit, static_argnames="steps")
def _trace(
    attack: Stepwise, root: Key, ids: Array, model_fn: ModelFn, x: Array, y: Array, steps: int
) -> Array:
    def one(i: Array, x: Array, y: Array) -> Array:
        run = attack.begin(jax.random.fold_in(root, i), model_fn, x, y, jnp.zeros_like(i))

        def step(run: Run, _: None) -> tuple[Run, Array]:
            run = attack.step(model_fn, run)
            return run, run.best.score

        run, scores = jax.lax.scan(step, run, None, length=steps)
        return jnp.append(scores, attack.end(model_fn, run).best.score)

    return jax.vmap(one)(ids, x, y)


def loss_by_step(
    key: Key,
    attack: Stepwise,
    model_fn: ModelFn,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 250,
) -> np.ndarray:
    """The preferred iterate's score after each step: does an attack converge?

    Args:
      key: a typed key.
      attack: an attack that proceeds step by step; only its first round is looked at. Attacks
        prefer a success to a higher score: for the highest score so far, which never falls, take
        `pgd(..., prefer=ascent.by_score)`.
      model_fn: the network, for ONE example.
      images: `[N, H, W, C]` floating point in [0, 1].
      labels: `[N]` integers.
      batch_size: examples at a time.

    Returns:
      `[N, steps + 1]`.

    Raises:
      ValueError: for bad images or labels.
    """
    images, labels, ids = check_batch(model_fn, images, labels, None)
    model_fn, parts = as_model_fn(model_fn), []
    for rows, real in padded_rows(len(images), batch_size):
        x, y = jnp.asarray(images[rows], jnp.float32), jnp.asarray(labels[rows])
        scores = _trace(attack, key, jnp.asarray(ids[rows]), model_fn, x, y, attack.steps)
        parts.append(np.asarray(scores)[:real])
    return np.concatenate(parts)
