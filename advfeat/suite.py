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
from advfeat.evaluation import predict
from advfeat.keys import stream
from advfeat.measures import rate
from advfeat.stepwise import Stepwise
from advfeat.suites import resolve
from advfeat.threat import ThreatModel
from advfeat.types import Array, AttackFn, AttackResult, Key, ModelFn, as_model_fn

NOTES = frozenset({"rounding", "replaced"})
"""Codes of warnings that leave the robust accuracy as it is."""
ALWAYS = frozenset({"eps_scale", "randomised"})
"""Codes of warnings that speak against a number even where no image stands."""


class Warned(NamedTuple):
    """A reason not to believe a number as it stands.

    Attributes:
      code: one word for programs, as in `zero_gradients`.
      sentence: what was seen and what it means, for people.
    """

    code: str
    sentence: str


class Part(NamedTuple):
    """What one attack did to some of the images: enough to go on after a kill.

    Attributes:
      rows: `[F]`, which images.
      fooled: `[F]` bool, as verified.
      x: `[F, H, W, C]`, the adversarial examples (of images that stand: what came nearest).
      queries: `[F]`, forward passes.
      gradients: `[F]`, backward passes.
      outside: `[F]` bool, claimed to be fooled by a point that is not allowed.
      unconfirmed: `[F]` bool, claimed to be fooled by a point that the network gets right.
    """

    rows: np.ndarray
    fooled: np.ndarray
    x: np.ndarray
    queries: np.ndarray
    gradients: np.ndarray
    outside: np.ndarray
    unconfirmed: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """What one attack of a suite came to.

    Attributes:
      name: as the suite calls it.
      tried: `[N]` bool, the images it was given.
      fooled: `[N]` bool, those it fooled, verified.
      robust: `[N]` bool, right on the clean image and not fooled by this attack nor, where the
        attacks go one after the other, by any before it.
      forward_passes: in all, those of gradients included.
      gradients: backward passes in all.
      seconds: wall time, compilation included.
      outside: claims of success that were refused: the point is not allowed.
      unconfirmed: claims of success that were refused: the network gets the point right.
    """

    name: str
    tried: np.ndarray
    fooled: np.ndarray
    robust: np.ndarray
    forward_passes: int
    gradients: int
    seconds: float
    outside: int = 0
    unconfirmed: int = 0

    @property
    def robust_accuracy(self) -> dict[str, Any]:
        """The rate of `robust` with its 95 % interval."""
        return rate(self.robust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What `evaluate` found.

    Attributes:
      suite: its name.
      threat: the threat model.
      clean: `[N]` bool, right on the clean image.
      robust: `[N]` bool, right on the clean image and fooled by no attack: the worst case.
      adversarial: `[N, H, W, C]` float32; the image itself where nothing fooled.
      distance: `[N]`, of the adversarial example, in the threat model's norm.
      fooled_by: `[N]` int, the first attack that fooled; -1 for none, -2 for wrong without any.
      attacks: in the order they ran.
      warnings: reasons not to believe the number.
    """

    suite: str
    threat: ThreatModel
    clean: np.ndarray
    robust: np.ndarray
    adversarial: np.ndarray
    distance: np.ndarray
    fooled_by: np.ndarray
    attacks: tuple[AttackOutcome, ...]
    warnings: tuple[Warned, ...]

    @property
    def clean_accuracy(self) -> dict[str, Any]:
        """The rate of `clean` with its 95 % interval."""
        return rate(self.clean)

    @property
    def robust_accuracy(self) -> dict[str, Any]:
        """The rate of `robust` with its 95 % interval."""
        return rate(self.robust)

    @property
    def trusted(self) -> bool:
        """Whether no warning speaks against the number: if not, it is no robust accuracy.

        Warnings of 8-bit rounding and of replaced attacks leave it as it is. Where nothing stands,
        most others do too: no stronger attack can find less.
        """
        codes = {warned.code for warned in self.warnings} - NOTES
        return not (codes if self.robust.any() else codes & ALWAYS)

    def __str__(self) -> str:
        """A table: one line per attack, then the warnings and what they come to."""

        def line(name: str, value: dict[str, Any], rest: str = "") -> str:
            low, high = 100 * value["low"], 100 * value["high"]
            return f"{name:<20} {100 * value['mean']:6.2f} %  [{low:.1f}, {high:.1f}]{rest}"

        lines = [line("clean", self.clean_accuracy)]
        for part in self.attacks:
            cost = f"  {part.forward_passes:>12,} forward {part.gradients:>12,} backward"
            lines.append(line(part.name, part.robust_accuracy, cost + f" {part.seconds:8.1f} s"))
        lines.append(line("worst case", self.robust_accuracy))
        lines += [f"warning ({w.code}): {w.sentence}" for w in self.warnings]
        if not self.trusted:
            lines.append("NOT TO BE CALLED ROBUST: the warnings say why the number is too good.")
        return "\n".join(lines)


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
    suite: str | Iterable[str] | Mapping[str, AttackFn] = "standard",
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
        `rand`, names from `ATTACKS` in the order they are to run, or a mapping from names of your
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
    for index, (name, attack) in enumerate(chosen.attacks.items()):
        tried = standing if sequential else clean
        if on_attack is not None:
            on_attack(name, int(tried.sum()))
        begun = time.perf_counter()
        part = _run(problem, name, attack, np.flatnonzero(tried), (done or {}).get(name), on_part)
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
    from advfeat.diagnostics import examine  # it looks at results, which are defined here

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
