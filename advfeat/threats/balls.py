"""Threat models: the inputs an attack may choose, a norm ball around the example in the box.

eps is a traced leaf, so a new eps does not recompile; the norm is static.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool, Float

from advfeat.checks import check_eps, is_concrete
from advfeat.threats import norms
from advfeat.types import Array, Key, Number, pytree, static


@pytree
class ThreatModel:
    """All images in the box [0, 1] within `eps` of the example in `norm`.

    Make one with `linf`, `l2` or `l1`. Every method is for ONE example.

    Attributes:
      eps: float32, in units of [0, 1] pixels.
      norm: the norm, static.
    """

    eps: Float[Array, ""]
    norm: norms.Norm = static()

    def project(self, x0: Float[Array, "*x"], x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """Projects `x` onto the threat model."""
        return self.norm.project(self.eps, x0, x)

    def sample(self, key: Key, x0: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """Samples an allowed point: uniformly in the ball, then projected into the box."""
        return self.norm.sample(key, self.eps, x0)

    def direction(self, x: Float[Array, "*x"], gradient: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """Returns the steepest ascent direction of unit norm at `x`."""
        return self.norm.direction(x, gradient)

    def distance(self, x0: Float[Array, "*x"], x: Float[Array, "*x"]) -> Float[Array, ""]:
        """Computes the distance of `x` from `x0` in this norm."""
        return self.norm.distance(x0, x)

    def contains(
        self, x0: Float[Array, "*x"], x: Float[Array, "*x"], *, rtol: float = 1e-6
    ) -> Bool[Array, ""]:
        """Tests whether `x` is allowed, up to a relative tolerance of a few ulp."""
        in_box = jnp.all((x >= 0.0) & (x <= 1.0))
        # An L-infinity bound x0 + eps is rounded at the scale of x0, not of eps.
        slack = rtol * self.eps + 2.0 * jnp.finfo(x0.dtype).eps
        return in_box & (self.distance(x0, x) <= self.eps + slack)


def threat_model(norm: str | norms.Norm, eps: Number) -> ThreatModel:
    """Returns a threat model by the name of its norm.

    Args:
      norm: `linf`, `l2`, `l1`, or a `Norm`.
      eps: any value >= 0 in units of [0, 1] pixels, infinity included.

    Raises:
      ValueError: for an unknown norm, or an eps that is negative or NaN.

    >>> threat_model("l2", 0.5).norm
    Norm(l2)
    """
    if isinstance(norm, str):
        if norm not in norms.NORMS:
            raise ValueError(f"norm must be one of {', '.join(norms.NORMS)}, got {norm!r}")
        norm = norms.NORMS[norm]
    check_eps(eps)
    if is_concrete(eps) and jnp.ndim(eps) != 0:
        raise ValueError(f"eps must be a single number, got shape {jnp.shape(eps)}; vmap over it")
    # A Python float and a JAX scalar would create two entries in the jit cache.
    return ThreatModel(eps=jnp.asarray(eps, jnp.float32), norm=norm)


def linf(eps: Number = jnp.inf) -> ThreatModel:
    """Returns an L-infinity ball: every pixel may change by at most `eps` (e.g. 8/255).

    Without an eps every image in [0, 1] is allowed, for minimum-norm attacks such as `ddn(l2())`.

    >>> linf(8 / 255).contains(jnp.zeros(3), jnp.full(3, 0.03))
    Array(True, dtype=bool)
    """
    return threat_model(norms.LINF, eps)


def l2(eps: Number = jnp.inf) -> ThreatModel:
    """Returns an L2 ball: Euclidean distance at most `eps`; unbounded by default (see `linf`).

    >>> l2(0.5).project(jnp.zeros(2), jnp.array([3.0, 4.0])).round(3)
    Array([0.3, 0.4], dtype=float32)
    """
    return threat_model(norms.L2, eps)


def l1(eps: Number = jnp.inf) -> ThreatModel:
    """Returns an L1 ball: absolute changes sum to at most `eps`; unbounded by default (see `linf`).

    >>> l1(1.0).project(jnp.zeros(2), jnp.array([0.9, 0.5])).tolist()
    [0.7, 0.3]
    """
    return threat_model(norms.L1, eps)
