"""Image synthesis by gradient ascent on a single classifier, following the papers' recipes.

Each function returns an attack `(key, model_fn, start, aim) -> AttackResult` of ONE example, which
`attack_batch` and `attack_dataset` run over many. The start is the centre of the ball. Defaults
were tuned for 32 pixels; L2 lengths scale with the side, so 224 pixels need seven times as much.

Engstrom et al. (2019), https://arxiv.org/abs/1906.00945; Santurkar et al. (2019),
https://arxiv.org/abs/1906.09453.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from advfeat.attacks.keeping import by_score
from advfeat.attacks.pgd import GradientAttack, pgd
from advfeat.attacks.step_rules import StepRule, annealed, filtered, momentum, steepest
from advfeat.checks import check_images, check_labels, check_positive
from advfeat.edges import one_key
from advfeat.images.augmentation import Transform
from advfeat.images.parametrisations import Fourier
from advfeat.objectives.classification import targeted, transformed
from advfeat.objectives.features import inversion, masked, painted, reach, unit
from advfeat.threats.balls import l2
from advfeat.types import Array, Key, Label, Number, Objective


def _ascent(
    objective: Objective,
    *,
    eps: Number,
    steps: int,
    step_size: Number,
    transform: Transform | None = None,
    rule: StepRule = steepest,
    noisy: bool = False,
) -> GradientAttack:
    if transform is not None:
        objective = transformed(objective, transform)
    return pgd(
        l2(eps),
        steps=steps,
        step_size=step_size,
        random_start=False,
        objective=objective,
        rule=rule,
        keep=None if noisy else by_score,
    )


def maximise(
    *,
    eps: Number = jnp.inf,
    steps: int = 200,
    step_size: Number = 0.5,
    transform: Transform | None = None,
    space: Fourier | None = None,
    objective: Objective = unit(),
) -> GradientAttack:
    """Visualises a unit, channel or direction by maximising its activation.

    The network is `model_fn(..., layer=NAME)`; use `models.with_fake_relu(model)` if a unit of the
    representation may be inactive at the start. The aim is the index of the unit (or, with
    `objective=features.direction()`, a direction), and the start an image, noise or a constant.
    `objectives.features.diverse` draws several pictures of a unit at once.

    Args:
      eps: maximum L2 distance from the start.
      steps: number of steps of fixed length.
      step_size: length of a step, L2 in pixels.
      transform: random transform, redrawn at every step, e.g. `augmentation.random_affine()`, which
        yields smoother pictures. The last iterate is then kept, unscored: of noisy scores the
        highest is mostly luck.
      space: space in which steps are taken, e.g. `parametrisations.fourier()`; None for pixels.
      objective: by default `objectives.features.unit()`.
    """
    return _ascent(
        objective,
        eps=eps,
        steps=steps,
        step_size=step_size,
        transform=transform,
        rule=steepest if space is None else filtered(steepest, space),
        noisy=transform is not None,
    )


def add_feature(
    *,
    eps: Number = jnp.inf,
    steps: int = 100,
    step_size: Number = 0.1,
    level: float = 1.0,
) -> GradientAttack:
    """Adds a feature to an image by raising a unit to a given activation.

    Args:
      eps: maximum L2 distance from the image.
      steps: number of steps of fixed length.
      step_size: length of a step.
      level: target activation; exceeding it gains nothing.
    """
    return _ascent(reach(level=level), eps=eps, steps=steps, step_size=step_size)


def paint(
    *,
    eps: Number = 10.0,
    steps: int = 140,
    step_size: Number = 0.15,
    share: float = 0.1,
    weight: float = 90.0,
) -> GradientAttack:
    """Paints a feature inside a mask; the aim is `(unit, image, mask)`."""
    return _ascent(painted(share=share, weight=weight), eps=eps, steps=steps, step_size=step_size)


def invert(*, eps: Number = jnp.inf, steps: int = 300, step_size: Number = 0.2) -> GradientAttack:
    """Inverts a representation: finds an image whose activations match the aim at a layer.

    The paper takes 10,000 steps of length 1 at 224 pixels and steps of 0.1 on CIFAR. Here the step
    size decays from `step_size` to zero, with momentum, which ends closer to the aim than the same
    number of constant steps. A larger `step_size` gets closer still, but gives noisier images.
    """
    rule = annealed(momentum(0.9), steps)
    return _ascent(inversion(), eps=eps, steps=steps, step_size=step_size, rule=rule)


def generate(
    *, eps: Number = 4.0, steps: int = 60, step_size: Number | None = None
) -> GradientAttack:
    """Generates an image of a class from a seed (`fit_seeds`) by ascent within a ball.

    Also serves image-to-image translation (start: an image, aim: another class), super-resolution
    (start: an upsampled small image) and sketch-to-image (start: a sketch).
    """
    size = 2.5 * jnp.asarray(eps) / steps if step_size is None else step_size
    return _ascent(targeted(), eps=eps, steps=steps, step_size=size)


def inpaint(
    *,
    eps: Number = 3.0,
    steps: int = 200,
    step_size: Number = 0.1,
    weight: float = 10.0,
) -> GradientAttack:
    """Inpaints a region; the aim is `(class, image, mask)`, with mask 1 where pixels may change."""
    return _ascent(masked(weight=weight), eps=eps, steps=steps, step_size=step_size)


class Seeds(NamedTuple):
    """Class-conditional Gaussians of small images, as starts for generation.

    Attributes:
      mean: with D pixel values per small image.
      factor: lower Cholesky factors of the covariances.
      side: `(h, w, C)`, shape of the small images.
    """

    mean: Float[Array, "K D"]
    factor: Float[Array, "K D D"]
    side: tuple[int, int, int]

    def draw(self, key: Key, label: Label, size: tuple[int, int]) -> Float[Array, "H W C"]:
        """Draws one seed in [0, 1] of a class, upsampled by pixel repetition."""
        noise = jax.random.normal(one_key(key), self.mean.shape[1:], self.mean.dtype)
        small = self.mean[label] + self.factor[label] @ noise
        image = jnp.clip(small, 0.0, 1.0).reshape(self.side)
        return jax.image.resize(image, (*size, self.side[2]), "nearest")


def fit_seeds(
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    num_classes: int,
    side: int | tuple[int, int],
) -> Seeds:
    """Fits mean and covariance of every class after downsampling images by block means.

    Args:
      images: training images in [0, 1].
      labels: their classes.
      num_classes: K; each class needs at least two images.
      side: size of the small images, one number or `(h, w)`, divisors of H and W; the covariance
        has `(h * w * C) ** 2` values.

    Raises:
      ValueError: for invalid images or labels, a side that does not divide H or W, or a class with
        fewer than two images.
    """
    check_images(images)
    check_labels(labels, num_classes=num_classes, count=len(images))
    sides = (side, side) if isinstance(side, int) else side
    for number in sides:
        check_positive(number, name="side")
    count, height, width, channels = images.shape
    rows, columns = sides
    if height % rows or width % columns:
        raise ValueError(
            f"side must divide the images' height and width, {height} and {width}, got {side}"
        )
    blocks = images.reshape(count, rows, height // rows, columns, width // columns, channels)
    small = blocks.mean(axis=(2, 4))
    flat = small.reshape(count, -1).astype(np.float64)
    means, factors = [], []
    for label in range(num_classes):
        part = flat[labels == label]
        if len(part) < 2:
            raise ValueError(f"labels must hold class {label} at least twice, got {len(part)}")
        covariance = np.cov(part, rowvar=False, bias=True) + 1e-4 * np.eye(flat.shape[1])
        means.append(part.mean(axis=0))
        factors.append(np.linalg.cholesky(np.atleast_2d(covariance)))
    return Seeds(
        jnp.asarray(np.array(means), jnp.float32),
        jnp.asarray(np.array(factors), jnp.float32),
        (rows, columns, channels),
    )
