"""What `evaluate` is asked: network, data, threat model and attacks, checked before any work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.attacks.batch import check_batch
from advfeat.checks import check_positive
from advfeat.edges import one_key
from advfeat.evaluation.prediction import logits_of, shares
from advfeat.evaluation.suites import Suite, resolve
from advfeat.keys import stream
from advfeat.objectives.classification import untargeted
from advfeat.threats.balls import ThreatModel
from advfeat.types import Array, AttackFn, AttackResult, Key, ModelFn, Randomised, as_model_fn


class Problem(NamedTuple):
    """The network, data and threat model under evaluation."""

    key: Key
    model_fn: ModelFn
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    threat: ThreatModel
    batch_size: int

    @property
    def random(self) -> bool:
        """Whether the network is random."""
        return isinstance(self.model_fn, Randomised)

    def logits(self, images: np.ndarray, name: str) -> np.ndarray:
        """Computes logits `[N, K]` of all images, each with its own draw."""
        key = stream(self.key, name) if self.random else None
        return logits_of(self.model_fn, images, self.ids, batch_size=self.batch_size, key=key)

    def shares(self, images: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
        """Computes the share of correct draws `[F]` on points that replace the images at `rows`."""
        return shares(
            stream(self.key, name),
            self.model_fn,
            images,
            self.labels[rows],
            ids=self.ids[rows],
            batch_size=self.batch_size,
        )


def asked(
    key: Key,
    model_fn: ModelFn,
    images: np.ndarray,
    labels: np.ndarray,
    threat: ThreatModel,
    suite: str | Iterable[str] | Mapping[str, AttackFn] | Suite,
    batch_size: int,
    ids: np.ndarray | None,
) -> tuple[Problem, Suite]:
    """Checks the arguments of `evaluate` before any attack; returns its problem and its attacks."""
    key = one_key(key)
    check_positive(batch_size, name="batch_size")
    if not isinstance(threat, ThreatModel):
        raise ValueError(f"threat must be a threat model, as in linf(8 / 255), got {threat!r}")
    # Whatever the attacks ascend, the labels are class indices, as those of an untargeted one.
    images, labels, ids, output = check_batch(
        model_fn, images, labels, ids, method=untargeted(), check_output=_check_output
    )
    model_fn = as_model_fn(model_fn)
    chosen = resolve(suite, threat, num_classes=output.shape[0])
    _check_gradient(chosen.attacks, key, model_fn, images[0], labels[0])
    if isinstance(suite, Mapping):
        _check_attacks(chosen.attacks, key, model_fn, images[0], labels[0])
    return Problem(key, model_fn, images, labels, ids, threat, batch_size), chosen


def _check_output(output: jax.ShapeDtypeStruct, shape: tuple[int, ...]) -> None:
    """Raises unless a network's output for ONE image of a shape is logits of some classes."""
    if output.ndim != 1 or output.shape[0] < 2:
        raise ValueError(
            f"model_fn must return logits [K] with K >= 2 classes for ONE image {list(shape)}, "
            f"got shape {output.shape}"
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(f"model_fn must return floating-point logits, got dtype {output.dtype}")


def _slope(model_fn: ModelFn, x: Array) -> Array:
    return jax.grad(lambda point: jnp.sum(model_fn(point)))(x)


def _check_gradient(
    attacks: Mapping[str, AttackFn], key: Key, model_fn: ModelFn, x: np.ndarray, y: np.ndarray
) -> None:
    """Raises for a network without gradient and names the attacks that need one."""
    point = jnp.asarray(x, jnp.float32)
    try:
        jax.eval_shape(_slope, model_fn, point)
    except Exception as error:  # user code may raise anything
        line = (str(error).strip().splitlines() or [""])[0]
        needing = []
        for name, attack in attacks.items():
            try:
                jax.eval_shape(partial(as_model_fn(attack), key, model_fn), point, y)
            except Exception:
                needing.append(name)
        if needing:
            raise ValueError(
                f"model_fn has no gradient ({type(error).__name__}: {line}), and suite needs one "
                f"for {', '.join(needing)}. Attack it by its scores, suite=['square'], or with "
                "gradients estimated from them, "
                "advfeat.attacks.nes_gradient.with_nes_gradient(model_fn, sigma=...)"
            ) from error


def _check_attacks(
    attacks: Mapping[str, AttackFn], key: Key, model_fn: ModelFn, x: np.ndarray, y: np.ndarray
) -> None:
    """Traces each attack once, so that an invalid one fails before any attack runs."""
    for name, attack in attacks.items():
        point = jnp.asarray(x, jnp.float32)
        try:
            found = jax.eval_shape(partial(as_model_fn(attack), key, model_fn), point, y)
        except (TypeError, ValueError) as error:
            raise ValueError(f"suite[{name!r}] cannot attack this network: {error}") from error
        if not isinstance(found, AttackResult):
            raise ValueError(f"suite[{name!r}] must return an AttackResult, got {found!r}")
