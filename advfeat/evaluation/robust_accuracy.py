"""Robust accuracy under suites of attacks, each run on the survivors of the previous ones.

Runs AutoAttack (Croce and Hein, 2020, https://arxiv.org/abs/2003.01690) and its variants on any
network that is a JAX function. Every adversarial example is verified outside the attack: it lies in
the threat model, and the network misclassifies it. The success that an attack reports never enters
the verdict. For a random network (`Randomised`) every verdict is an expectation over its draws.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from advfeat import devices
from advfeat.attacks.batch import in_parts
from advfeat.attacks.iterative import IterativeAttack
from advfeat.attacks.survivors import slots_for, survive, usual_chunk
from advfeat.checks import check_logits
from advfeat.evaluation.diagnostics import Context, examine
from advfeat.evaluation.prediction import LOOKS, allowed_points
from advfeat.evaluation.problem import Problem, asked
from advfeat.evaluation.result import AttackChunk, AttackOutcome, SuiteResult
from advfeat.evaluation.suites import Suite
from advfeat.evaluation.triage import MarginGate
from advfeat.keys import stream
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, AttackFn, AttackResult, Key, ModelFn


class _Watch(NamedTuple):
    """What the caller has from before, and wants to be told."""

    done: Mapping[str, AttackChunk]
    on_part: Callable[[str, AttackChunk], Any] | None
    on_attack: Callable[[str, int], Any] | None

    def attack(self, name: str, tried: np.ndarray) -> None:
        """Announces an attack and its number of images."""
        if self.on_attack is not None:
            self.on_attack(name, int(tried.sum()))


class _Standing:
    """Tracks the worst point found for each image and the share of correct draws there.

    For a random network, points are selected on one set of draws and reported on another:
    otherwise the minimum of many noisy shares would be biased downwards.
    """

    def __init__(self, problem: Problem, logits: np.ndarray):
        self._problem, self._rows = problem, np.arange(len(problem.labels))
        self.adversarial = np.array(problem.images, np.float32)
        self.chosen = (logits.argmax(axis=1) == problem.labels).astype(np.float64)
        if problem.random:
            self.chosen = problem.shares(self.adversarial, self._rows, "looks/clean")
        self.clean = self._reported(self.adversarial, self.chosen)
        self.share = self.clean

    def _reported(self, images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Returns the shares to report `[N]`; for a random network from held-out draws."""
        if not self._problem.random:
            return chosen.copy()
        return self._problem.shares(images, self._rows, "looks/report")

    def note(self, part: AttackChunk) -> None:
        """Adopts an attack's points where they are worse."""
        lower = part.allowed & (part.share < self.chosen[part.rows])
        rows = part.rows[lower]
        self.adversarial[rows], self.chosen[rows] = part.x[lower], part.share[lower]
        self.share = self._reported(self.adversarial, self.chosen)

    def alone(self, part: AttackChunk) -> np.ndarray:
        """Computes the shares `[N]` of one attack's points, independently of the other attacks."""
        points, shares = np.array(self._problem.images, np.float32), self.clean.copy()
        usable = part.allowed & (part.share < 1.0)
        rows = part.rows[usable]
        points[rows], shares[rows] = part.x[usable], part.share[usable]
        return self._reported(points, shares)


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
    done: Mapping[str, AttackChunk] | None = None,
    on_part: Callable[[str, AttackChunk], Any] | None = None,
    on_attack: Callable[[str, int], Any] | None = None,
    on_check: Callable[[str], Any] | None = None,
) -> SuiteResult:
    """Computes robust accuracy under a suite of attacks, with warnings about its reliability.

    Args:
      key: a typed key. The draws of an image depend on it, the attack's name and the image's id.
      model_fn: the network, for ONE example: `[H, W, C]` in [0, 1] -> logits `[K]`.
      images: `[N, H, W, C]` floating point in [0, 1].
      labels: `[N]` integers.
      threat: the threat model, e.g. `linf(8 / 255)`.
      suite: `standard` (AutoAttack: APGD-CE, targeted APGD-DLR, targeted FAB, Square), `plus`,
        `rand`, `quick` (shortened standard attacks, full ones only on contested images), names from
        `ATTACKS` in the order they run, or a mapping from your own names to attacks.
      sequential: whether each attack sees only the survivors of those before it; otherwise each
        sees every image that is correctly classified when clean.
      batch_size: images attacked at a time; bounds memory.
      ids: `[N]`, by default 0 … N-1.
      checks: whether to test the result by further attacks on a few images. Checks that cost next
        to nothing (eps, form of the outputs, rejected claims, non-finite gradients) always run. A
        check that raises becomes a warning.
      done: parts already decided by an interrupted evaluation, by attack.
      on_part: called with an attack's name and the part it has just decided.
      on_attack: called with an attack's name and its number of images before it starts, and again
        whenever its own successes make more images contested.
      on_check: called with a check's name before it starts.

    Returns:
      The verdicts. `print` shows them as a table.

    Raises:
      ValueError: before any attack, for invalid images or labels, a network that does not take ONE
        image, logits that are NaN or fewer than two, an unknown attack, an attack undefined for the
        norm or number of classes, or one that needs a gradient that the network does not have.

    Example:

    >>> import advfeat
    >>> x = np.random.default_rng(0).uniform(size=(20, 2, 2, 1)).astype(np.float32)
    >>> import jax.numpy as jnp
    >>> network = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), jnp.eye(3, 4))
    >>> y = advfeat.predict(network, x).argmax(1)
    >>> found = evaluate(jax.random.key(0), network, x, y, threat=advfeat.linf(0.1),
    ...                  suite=["pgd"], checks=False)
    >>> bool(found.robust_accuracy.mean < found.clean_accuracy.mean)
    True
    """
    problem, chosen = asked(key, model_fn, images, labels, threat, suite, batch_size, ids)
    logits = problem.logits(problem.images, "looks/logits")
    check_logits(logits)
    standing, outcomes = _Standing(problem, logits), []
    watch = _Watch(done or {}, on_part, on_attack)
    fooled_by = np.where(standing.clean >= 0.5, -1, -2)
    contest = MarginGate(chosen.gates, logits, problem.labels) if chosen.gates else None
    for index, (name, attack) in enumerate(chosen.attacks.items()):
        tried = (standing.chosen if sequential else standing.clean) > 0
        begun = time.perf_counter()
        tried, part = _attacked(problem, name, attack, tried, standing, contest, watch)
        standing.note(part)
        fooled_by[(fooled_by == -1) & (standing.share < 0.5)] = index
        share = standing.share if sequential else standing.alone(part)
        outcomes.append(_outcome(name, tried, part, share, time.perf_counter() - begun))
    result = SuiteResult(
        suite=chosen.name,
        threat=threat,
        clean_share=standing.clean,
        robust_share=standing.share,
        looks=LOOKS if problem.random else 1,
        adversarial=standing.adversarial,
        distance=_distances(threat, problem.images, standing.adversarial),
        fooled_by=fooled_by,
        attacks=tuple(outcomes),
        warnings=tuple(chosen.notes),
        checked=checks,
        averages=chosen.averages,
    )
    data = (problem.key, problem.model_fn, problem.images, problem.labels, logits, problem.ids)
    found = examine(Context(*data, result, batch_size), free=not checks, on_check=on_check)
    return dataclasses.replace(result, warnings=result.warnings + tuple(found))


def _attacked(
    problem: Problem,
    name: str,
    attack: AttackFn,
    tried: np.ndarray,
    standing: _Standing,
    contest: MarginGate | None,
    watch: _Watch,
) -> tuple[np.ndarray, AttackChunk]:
    """Runs one attack on the images at `tried` or, given a contest, on the contested ones."""
    if contest is not None:
        tried = contest.among(name, tried)
    watch.attack(name, tried)
    part = _run(problem, name, attack, np.flatnonzero(tried), watch.done.get(name), watch.on_part)
    if contest is None:
        return tried, part
    return _contested(problem, contest, name, attack, standing.chosen > 0, part, watch)


def _outcome(
    name: str, tried: np.ndarray, part: AttackChunk, share: np.ndarray, seconds: float
) -> AttackOutcome:
    """Summarises what one attack did; `share` is that of correct draws at the points found."""
    fooled, queries = np.zeros(len(tried), bool), np.zeros(len(tried), int)
    fooled[part.rows], queries[part.rows] = part.fooled, part.queries
    return AttackOutcome(
        name=name,
        tried=tried.copy(),
        fooled=fooled,
        share=share,
        forward_passes=int(part.queries.sum()),
        gradients=int(part.gradients.sum()),
        seconds=seconds,
        queries=queries,
        claims=int(part.claimed.sum()),
        outside=int(part.outside.sum()),
        unconfirmed=int(part.unconfirmed.sum()),
    )


def _contested(
    problem: Problem,
    contest: MarginGate,
    name: str,
    attack: AttackFn,
    standing: np.ndarray,
    part: AttackChunk,
    watch: _Watch,
) -> tuple[np.ndarray, AttackChunk]:
    """Repeats the attack on images that its own successes make contested, until none remain."""
    while True:
        tried, fooled = np.zeros(len(standing), bool), np.zeros(len(standing), bool)
        tried[part.rows], fooled[part.rows] = True, part.fooled
        nearest = np.array(problem.images, np.float32)
        nearest[part.rows] = part.x
        allowed = allowed_points(problem.threat, problem.images, nearest)
        nearest = np.where(allowed[:, None, None, None], nearest, problem.images)
        logits = problem.logits(nearest, f"looks/{name}/logits")
        contest.note(name, fooled, logits, allowed)
        more = contest.among(name, standing) & ~tried
        if not more.any():
            return tried, part
        tried |= more
        watch.attack(name, tried)
        part = _run(problem, name, attack, np.flatnonzero(tried), part, watch.on_part)


def _run(
    problem: Problem,
    name: str,
    attack: AttackFn,
    rows: np.ndarray,
    done: AttackChunk | None,
    on_part: Callable[[str, AttackChunk], Any] | None,
) -> AttackChunk:
    """Runs one attack on its undecided rows and joins the result with the part already done."""
    parts = [] if done is None else [done]
    if done is not None:
        rows = np.setdiff1d(rows, done.rows)

    def decided(places: np.ndarray, result: AttackResult) -> None:
        part = _verified(problem, name, rows[places], result)
        parts.append(part)
        if on_part is not None:
            on_part(name, part)

    if len(rows):
        data = (problem.images[rows], problem.labels[rows], problem.ids[rows])
        key, model_fn, size = stream(problem.key, name), problem.model_fn, problem.batch_size
        if isinstance(attack, IterativeAttack):
            chunk = usual_chunk(attack)
            survive(key, attack, model_fn, *data, batch_size=size, chunk=chunk, finished=decided)
        else:
            size = devices.rows_at_once(model_fn, problem.images.shape[1:], size)
            result = in_parts(key, attack, model_fn, *data, size=size)
            decided(np.arange(len(rows)), result)
    if not parts:
        none, never = np.zeros(0, int), np.zeros(0, bool)
        return AttackChunk(none, np.zeros(0), never, problem.images[:0], none, none, never)
    return AttackChunk(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _verified(problem: Problem, name: str, rows: np.ndarray, result: AttackResult) -> AttackChunk:
    """Verifies an attack: evaluates the network at the points that it returns."""
    x = np.asarray(result.best.x, np.float32)
    # Padded to few sizes, so that a new number of images rarely recompiles.
    padding = -len(rows) % slots_for(len(rows), problem.batch_size)
    padded_rows = np.pad(rows, (0, padding), mode="edge")
    padded = np.pad(x, ((0, padding), (0, 0), (0, 0), (0, 0)), mode="edge")
    before = problem.images[padded_rows]
    inside = allowed_points(problem.threat, before, padded)
    # A point that is not allowed may not even be an image.
    looked_at = np.where(inside[:, None, None, None], padded, before).astype(np.float32)
    share = problem.shares(looked_at, padded_rows, f"looks/{name}")
    return AttackChunk(
        rows=rows,
        share=share[: len(rows)],
        allowed=inside[: len(rows)],
        x=x,
        queries=np.asarray(result.queries),
        gradients=np.asarray(result.gradients),
        claimed=np.asarray(result.best.success),
    )


@jax.jit
def _far(threat: ThreatModel, x0: Array, x: Array) -> Array:
    return jax.vmap(threat.distance)(x0, x)


def _distances(threat: ThreatModel, x0: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(_far(threat, np.asarray(x0, np.float32), np.asarray(x)))
