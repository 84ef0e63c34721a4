"""Random noise of a given norm: the baseline for every attack."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from advfeat.attacks.iterative import varying_with
from advfeat.attacks.keeping import by_success, choose
from advfeat.attacks.oracles import scores_only
from advfeat.checks import check_positive
from advfeat.edges import on_one
from advfeat.objectives.classification import untargeted
from advfeat.threats.balls import ThreatModel
from advfeat.threats.norms import scale_to_norm
from advfeat.types import (
    Array,
    AttackResult,
    Best,
    Key,
    ModelFn,
    Objective,
    frozen,
    pytree,
    static,
)


def _gaussian(key: Key, x: Array) -> Array:
    return jax.random.normal(key, x.shape, x.dtype)


def _uniform(key: Key, x: Array) -> Array:
    return jax.random.uniform(key, x.shape, x.dtype, -1.0, 1.0)


def _salt_and_pepper(key: Key, x: Array) -> Array:
    """Moves one pixel in ten (all channels together) towards black or white at random."""
    key_where, key_which = jax.random.split(key)
    pixel = (*x.shape[:-1], 1)
    hit = jax.random.bernoulli(key_where, 0.1, pixel)
    target = jax.random.bernoulli(key_which, 0.5, pixel).astype(x.dtype)
    return jnp.where(hit, target - x, 0.0)


DRAWS = {"gaussian": _gaussian, "uniform": _uniform, "salt_and_pepper": _salt_and_pepper}


@pytree
class NoiseAttack:
    """Random perturbations rescaled to norm eps after clipping: an `AttackFn`.

    Attributes:
      threat: its norm and eps determine the size of the noise.
      kind: `gaussian`, `uniform` or `salt_and_pepper`.
      restarts: number of draws; each example keeps its worst case.
      objective: the objective that defines the worst case.
    """

    threat: ThreatModel
    kind: str = static()
    restarts: int = static()
    objective: Objective = static()

    def __call__(self, key: Key, model_fn: ModelFn, x: Float[Array, "*x"], y: Any) -> AttackResult:
        """Perturbs ONE example `[H, W, C]`; spends one forward pass per draw."""
        key, x, y = on_one(key, self, model_fn, x, y)
        x = varying_with(x, self, key, y)
        oracle = scores_only(self.objective, frozen(model_fn, x), y)

        def draw(index: Array | int) -> Best:
            key_draw, key_score = jax.random.split(jax.random.fold_in(key, index))
            noise = DRAWS[self.kind](key_draw, x)
            point = scale_to_norm(self.threat.norm, self.threat.eps, x, noise)
            point = self.threat.project(x, point)
            seen = oracle(key_score, point)
            far = self.threat.distance(x, point).astype(jnp.float32)
            return Best(point, seen.score.astype(jnp.float32), seen.success, far)

        def again(carry: tuple[Best, Best], index: Array) -> tuple[tuple[Best, Best], None]:
            new = draw(index)
            return (choose(by_success, new, carry[0]), new), None

        first = draw(0)
        (best, last), _ = jax.lax.scan(again, (first, first), jnp.arange(1, self.restarts))
        count = jnp.full_like(x, self.restarts, shape=(), dtype=jnp.int32)
        return AttackResult(best, last, count, jnp.zeros_like(count))


def _noise(kind: str, threat: ThreatModel, restarts: int, objective: Objective) -> NoiseAttack:
    check_positive(restarts, name="restarts")
    return NoiseAttack(threat=threat, kind=kind, restarts=restarts, objective=objective)


def gaussian_noise(
    threat: ThreatModel, *, restarts: int = 1, objective: Objective = untargeted()
) -> NoiseAttack:
    """Returns Gaussian noise of norm eps; each example keeps the worst of `restarts` draws."""
    return _noise("gaussian", threat, restarts, objective)


def uniform_noise(
    threat: ThreatModel, *, restarts: int = 1, objective: Objective = untargeted()
) -> NoiseAttack:
    """Returns uniform noise of norm eps; each example keeps the worst of `restarts` draws."""
    return _noise("uniform", threat, restarts, objective)


def salt_and_pepper_noise(
    threat: ThreatModel, *, restarts: int = 1, objective: Objective = untargeted()
) -> NoiseAttack:
    """Returns salt-and-pepper noise of norm eps on a tenth of the pixels; worst of `restarts`."""
    return _noise("salt_and_pepper", threat, restarts, objective)
