"""Fast adversarial training: one step from a random start, optionally regularised by GradAlign.

Wong et al. (2020), https://arxiv.org/abs/2001.03994; Andriushchenko and Flammarion (2020),
https://arxiv.org/abs/2007.02617.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from advfeat.attacks.fgsm import fgsm
from advfeat.attacks.pgd import GradientAttack
from advfeat.checks import check_eps, is_concrete
from advfeat.numerics import over
from advfeat.threats.balls import ThreatModel
from advfeat.threats.norms import l2_length
from advfeat.training.losses.adversarial import Adversarial
from advfeat.training.losses.base import weighted_mean
from advfeat.types import Array, Batch, Descended, Key, LogitLoss, Number, pytree


@pytree
class Aligned(Adversarial):
    """Adversarial training with gradient alignment, a `LossFn`; see `fast`.

    Attributes:
      grad_align: the regulariser's weight.
    """

    grad_align: Float[Array, ""]

    def prepare(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Batch:
        """Also samples `batch["nearby"]`, the points of the second input gradient."""
        key_attack, key_nearby = jax.random.split(key)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key_nearby, batch["id"])
        threat: ThreatModel = self.attack.threat  # type: ignore[attr-defined]
        nearby = jax.vmap(threat.sample)(keys, batch["image"])
        return {**super().prepare(key_attack, params, model_state, batch), "nearby": nearby}

    def descend(self, key: Key, params: PyTree, model_state: PyTree, batch: Batch) -> Descended:
        """Returns the loss with the regulariser, the new model state and metrics."""
        value, (after, metrics) = super().descend(key, params, model_state, batch)
        variables = {"params": params, **model_state}

        def input_gradient(images: Array) -> Array:
            # In evaluation mode, as in the attack: examples do not interact, so the gradient of
            # the sum is the stack of per-example gradients.
            def total(x: Array) -> Array:
                logits = self.model.apply(variables, x, train=False)
                return jnp.sum(jax.vmap(self.loss)(logits, batch["label"]))

            return jax.grad(total)(images)

        cosines = jax.vmap(_cosine)(input_gradient(batch["image"]), input_gradient(batch["nearby"]))
        misaligned = weighted_mean(1.0 - cosines, batch)
        value = value + self.grad_align * misaligned
        return value, (after, {**metrics, "loss": value, "misaligned": misaligned})


def _cosine(a: Float[Array, "*x"], b: Float[Array, "*x"]) -> Float[Array, ""]:
    """Returns the cosine between two gradients; constant 1 if one of them is zero."""
    long = l2_length(a), l2_length(b)
    some = (long[0] > 0) & (long[1] > 0)
    return jnp.where(some, jnp.sum(over(a, long[0]) * over(b, long[1])), 1.0)


def fast_attack(threat: ThreatModel, *, step_size: Number | None = None) -> GradientAttack:
    """Returns the attack of `fast`: one step of 1.25 eps from a uniform start.

    >>> import advfeat
    >>> fast_attack(advfeat.linf(8 / 255)).step_size * 255
    Array(10., dtype=float32)
    """
    size = 1.25 * threat.eps if step_size is None else step_size
    return fgsm(threat, step_size=size, random_start=True, keep=None)


def fast(
    model: Any,
    loss: LogitLoss,
    threat: ThreatModel,
    *,
    step_size: Number | None = None,
    grad_align: Number = 0.0,
) -> Adversarial:
    """Returns adversarial training with one step from a random start, optionally with GradAlign.

    Wong et al. (2020), https://arxiv.org/abs/2001.03994, algorithm 3: FGSM with steps of 1.25 eps
    from a uniform start. Such training can collapse within an epoch (catastrophic overfitting): the
    network then withstands FGSM and nothing else. GradAlign (Andriushchenko and Flammarion 2020,
    https://arxiv.org/abs/2007.02617, equation 5) prevents it by adding
    `grad_align E [1 - cos(grad_x loss(x, y), grad_x loss(x + eta, y))]`, eta uniform in the ball.
    It is differentiated through both gradients, at the cost of a double backward pass; the authors'
    weight for CIFAR-10 is `0.02 * 10 ** (255 * eps / 8)`.

    Args:
      model: a flax module with `apply(variables, images, train=...)`.
      loss: of one example's logits at its label.
      threat: the set of allowed inputs.
      step_size: by default 1.25 eps.
      grad_align: >= 0, the regulariser's weight; 0 disables it.

    Returns:
      A `LossFn`: `(key, params, model_state, batch) -> (loss, (model_state, metrics))`.

    Raises:
      ValueError: if the weight or the step size is negative or NaN.

    >>> import advfeat
    >>> from advfeat import models
    >>> network = models.create("linear", num_classes=10)
    >>> type(fast(network, advfeat.cross_entropy, advfeat.linf(8 / 255), grad_align=0.2)).__name__
    'Aligned'
    """
    check_eps(grad_align, name="grad_align", finite=True)
    attack = fast_attack(threat, step_size=step_size)
    if is_concrete(grad_align) and grad_align == 0:
        return Adversarial(model, loss, attack)
    return Aligned(model, loss, attack, jnp.asarray(grad_align, jnp.float32))
