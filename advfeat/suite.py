"""Robustness that can be believed: attacks one after the other, each on what still stands.

AutoAttack (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690) and its relatives, for any
network that is a JAX function. Every image called fooled has been looked at once more outside the
attack: it lies in the threat model, and the network gets it wrong.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.attacks.batch import attack_dataset, check_batch, output_of
from advfeat.attacks.survivors import attack_survivors, slots_for
from advfeat.checks import (
    check_images,
    check_key,
    check_labels,
    check_logits,
    check_positive,
)
from advfeat.contested import Contest
from advfeat.diagnostics import examine
from advfeat.evaluation import predict
from advfeat.keys import stream
from advfeat.stepwise import Stepwise
from advfeat.suites import Suite, resolve
from advfeat.threat import ThreatModel
from advfeat.types import Array, AttackFn, AttackResult, Key, ModelFn, as_model_fn
from advfeat.verdicts import AttackOutcome, Part, SuiteResult, Warned


class _Problem(NamedTuple):
    """What is attacked."""

    key: Key
    model_fn: ModelFn
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    threat: ThreatModel
    batch_size: int


def evaluate(
    key: Key,
    model_fn: ModelFn,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    threat: ThreatModel,
    suite: str | Iterable[str] | Mapping[str, AttackFn] | Suite = "standard",
    sequential: bool = True,
    batch_size: int = 250,
    ids: np.ndarray | None = None,
    checks: bool = True,
    done: Mapping[str, Part] | None = None,
    on_part: Callable[[str, Part], Any] | None = None,
    on_attack: Callable[[str, int], Any] | None = None,
    on_check: Callable[[str], Any] | None = None,
) -> SuiteResult:
    """Robust accuracy under a suite of attacks, and what speaks against believing it.

    Args:
      key: a typed key. An image's draws follow from it, the attack's name and the image's id.
      model_fn: the network, for ONE example: `[H, W, C]` in [0, 1] -> logits `[K]`.
      images: `[N, H, W, C]` floating point in [0, 1].
      labels: `[N]` integers.
      threat: what an attack may do, e.g. `linf(8 / 255)`.
      suite: `standard` (AutoAttack: APGD-CE, targeted APGD-DLR, targeted FAB, Square), `plus`,
        `rand`, `quick` (the standard attacks in short, in full where it is close), names from
        `ATTACKS` in the order they are to run, or a mapping from names of your
        own to attacks.
      sequential: each attack sees what the attacks before it left; otherwise each sees every image
        that is right without an attack.
      batch_size: images attacked at a time: what bounds the memory.
      ids: `[N]`, by default 0 … N-1.
      checks: whether to look for reasons not to believe the result by further attacks on a few
        images. What costs nothing (eps, the outputs' form, claims that were refused) is looked at
        in any case.
      done: what a killed evaluation had decided, by attack.
      on_part: called with an attack's name and what it has just decided.
      on_attack: called with an attack's name and its number of images before it begins.
      on_check: called with a check's name before it begins.

    Returns:
      The verdicts. `print` shows them as a table.

    Raises:
      ValueError: before any attack, for bad images or labels, a network that does not take ONE
        image, logits that are NaN or too few, an unknown attack, or one that is not defined for the
        threat model's norm or for so few classes.

    Example:

    >>> import advfeat
    >>> x = np.random.default_rng(0).uniform(size=(20, 2, 2, 1)).astype(np.float32)
    >>> network = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), jnp.eye(3, 4))
    >>> y = predict(network, x).argmax(1)
    >>> found = evaluate(jax.random.key(0), network, x, y, threat=advfeat.linf(0.1),
    ...                  suite=["pgd"], checks=False)
    >>> bool(found.robust_accuracy["mean"] < found.clean_accuracy["mean"])
    True
    """
    check_key(key)
    check_positive(batch_size, name="batch_size")
    if not isinstance(threat, ThreatModel):
        raise ValueError(f"threat must be a threat model, as in linf(8 / 255), got {threat!r}")
    check_images(images)
    num_classes = _classes(model_fn, np.shape(images)[1:])
    check_labels(labels, num_classes=num_classes, count=len(images))
    images, labels, ids = check_batch(model_fn, images, labels, ids)
    model_fn = as_model_fn(model_fn)
    chosen = resolve(suite, threat, num_classes=num_classes)
    if isinstance(suite, Mapping):
        _check_attacks(chosen.attacks, key, model_fn, images[0], labels[0])
    logits = predict(model_fn, images, batch_size=batch_size)
    check_logits(logits)
    problem = _Problem(key, model_fn, images, labels, ids, threat, batch_size)
    clean = logits.argmax(axis=1) == labels
    adversarial = np.array(images, np.float32)
    fooled_by = np.where(clean, -1, -2)
    standing, outcomes = clean.copy(), []
    contest = Contest(chosen.gates, logits, labels) if chosen.gates else None
    for index, (name, attack) in enumerate(chosen.attacks.items()):
        tried = standing if sequential else clean
        if contest is not None:
            tried = contest.among(name, tried)
        if on_attack is not None:
            on_attack(name, int(tried.sum()))
        begun = time.perf_counter()
        part = _run(problem, name, attack, np.flatnonzero(tried), (done or {}).get(name), on_part)
        if contest is not None:
            tried, part = _contested(problem, contest, name, attack, standing, part, on_part)
        fooled = np.zeros(len(images), bool)
        fooled[part.rows] = part.fooled
        first = fooled & standing
        where = part.fooled & first[part.rows]
        adversarial[part.rows[where]] = part.x[where]
        fooled_by[first] = index
        standing = standing & ~fooled
        outcomes.append(
            AttackOutcome(
                name=name,
                tried=tried.copy(),
                fooled=fooled,
                robust=standing.copy() if sequential else clean & ~fooled,
                forward_passes=int(part.queries.sum()),
                gradients=int(part.gradients.sum()),
                seconds=time.perf_counter() - begun,
                outside=int(part.outside.sum()),
                unconfirmed=int(part.unconfirmed.sum()),
            )
        )
    result = SuiteResult(
        suite=chosen.name,
        threat=threat,
        clean=clean,
        robust=standing,
        adversarial=adversarial,
        distance=_distances(threat, images, adversarial),
        fooled_by=fooled_by,
        attacks=tuple(outcomes),
        warnings=tuple(Warned(*note) for note in chosen.notes),
    )
    found = examine(
        key,
        model_fn,
        images,
        labels,
        logits,
        result,
        batch_size=batch_size,
        free=not checks,
        on_check=on_check,
    )
    return dataclasses.replace(result, warnings=result.warnings + tuple(found))


def _contested(
    problem: _Problem,
    contest: Contest,
    name: str,
    attack: AttackFn,
    standing: np.ndarray,
    part: Part,
    on_part: Callable[[str, Part], Any] | None,
) -> tuple[np.ndarray, Part]:
    """Goes on with the images that the attack's own successes make contested, until none are."""
    while True:
        tried, fooled = np.zeros(len(standing), bool), np.zeros(len(standing), bool)
        tried[part.rows], fooled[part.rows] = True, part.fooled
        nearest = np.array(problem.images, np.float32)
        nearest[part.rows] = part.x
        allowed = _contained(problem.threat, problem.images, nearest)
        nearest = np.where(allowed[:, None, None, None], nearest, problem.images)
        logits = predict(problem.model_fn, nearest, batch_size=problem.batch_size)
        contest.note(name, fooled, logits, allowed)
        more = contest.among(name, standing) & ~tried
        if not more.any():
            return tried, part
        part = _run(problem, name, attack, np.flatnonzero(tried | more), part, on_part)


def _classes(model_fn: ModelFn, shape: tuple[int, ...]) -> int:
    """The number of classes, from the shape of the network's output."""
    output = output_of(model_fn, shape)
    if output.ndim != 1 or output.shape[0] < 2:
        raise ValueError(
            f"model_fn must return logits [K] with K >= 2 classes for ONE image {list(shape)}, "
            f"got shape {output.shape}"
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(f"model_fn must return floating-point logits, got dtype {output.dtype}")
    return output.shape[0]


def _check_attacks(
    attacks: Mapping[str, AttackFn], key: Key, model_fn: ModelFn, x: np.ndarray, y: np.ndarray
) -> None:
    """Traces each attack once: what it cannot do shows before any other has been run."""
    for name, attack in attacks.items():
        point = jnp.asarray(x, jnp.float32)
        try:
            found = jax.eval_shape(partial(as_model_fn(attack), key, model_fn), point, y)
        except (TypeError, ValueError) as error:
            raise ValueError(f"suite[{name!r}] cannot attack this network: {error}") from error
        if not isinstance(found, AttackResult):
            raise ValueError(f"suite[{name!r}] must return an AttackResult, got {found!r}")


def _run(
    problem: _Problem,
    name: str,
    attack: AttackFn,
    rows: np.ndarray,
    done: Part | None,
    on_part: Callable[[str, Part], Any] | None,
) -> Part:
    """One attack on the rows that it has not decided yet, joined with what it has."""
    parts = [] if done is None else [done]
    if done is not None:
        rows = np.setdiff1d(rows, done.rows)

    def decided(places: np.ndarray, result: AttackResult) -> None:
        part = _verified(problem, rows[places], result)
        parts.append(part)
        if on_part is not None:
            on_part(name, part)

    if len(rows):
        data = (problem.images[rows], problem.labels[rows])
        root = stream(problem.key, name)
        options: dict[str, Any] = {"ids": problem.ids[rows], "batch_size": problem.batch_size}
        if isinstance(attack, Stepwise):
            attack_survivors(attack, root, problem.model_fn, *data, finished=decided, **options)
        else:
            result = attack_dataset(attack, root, problem.model_fn, *data, **options)
            decided(np.arange(len(rows)), result)
    if not parts:
        none, never = np.zeros(0, int), np.zeros(0, bool)
        return Part(none, never, problem.images[:0], none, none, never, never)
    return Part(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _verified(problem: _Problem, rows: np.ndarray, result: AttackResult) -> Part:
    """An attack's claim to have fooled is believed only after another look."""
    x = np.asarray(result.best.x, np.float32)
    claimed = np.asarray(result.best.success)
    allowed, wrong = np.zeros_like(claimed), np.zeros_like(claimed)
    if claimed.any():
        # Padded to few sizes, or each number of images would compile anew.
        size = -len(rows) % slots_for(len(rows), problem.batch_size)
        padded = np.pad(x, ((0, size), (0, 0), (0, 0), (0, 0)), mode="edge")
        before = problem.images[np.pad(rows, (0, size), mode="edge")]
        inside = _contained(problem.threat, before, padded)
        # What is not allowed may be no image at all.
        looked_at = np.where(inside[:, None, None, None], padded, before)
        logits = predict(problem.model_fn, looked_at, batch_size=problem.batch_size)
        wrong = logits[: len(rows)].argmax(axis=1) != problem.labels[rows]
        allowed = inside[: len(rows)]
    return Part(
        rows=rows,
        fooled=claimed & wrong & allowed,
        x=x,
        queries=np.asarray(result.queries),
        gradients=np.asarray(result.gradients),
        outside=claimed & ~allowed,
        unconfirmed=claimed & allowed & ~wrong,
    )


@jax.jit
def _inside(threat: ThreatModel, x0: Array, x: Array) -> tuple[Array, Array]:
    return jax.vmap(threat.contains)(x0, x), jax.vmap(threat.distance)(x0, x)


def _contained(threat: ThreatModel, x0: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(_inside(threat, jnp.asarray(x0, jnp.float32), jnp.asarray(x))[0])


def _distances(threat: ThreatModel, x0: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(_inside(threat, jnp.asarray(x0, jnp.float32), jnp.asarray(x))[1])
