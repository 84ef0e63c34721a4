"""Spaces in which a picture is moved other than pixel by pixel: frequencies and colours.

A space is linear and invertible, so that ascent in it is ascent in pixels with another step: the
kernel need not know. Olah et al. (2017), https://distill.pub/2017/feature-visualization, "The
enemy of feature visualization"; Mordvintsev et al. (2018),
https://distill.pub/2018/differentiable-parameterizations.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from advfeat.images.filters import OPPONENT, cosine_matrix
from advfeat.types import Array


@dataclasses.dataclass(frozen=True)
class Fourier:
    """Cosine coefficients, the low ones worth more, of colour axes as natural images have them.

    Static and hashable. The papers' transform is a complex one; the cosine transform is real, of
    the image's own shape, and does not make the left edge meet the right one. Their sigmoid is
    left out: the threat model's box bounds the pixels.

    Attributes:
      decay: coefficients of frequency f count `f ** -decay`; 0 leaves pixels as they are.
      colours: the share of each opponent axis (brightness, red against green, blue against both).
    """

    decay: float = 1.0
    colours: tuple[float, float, float] = (1.0, 0.4, 0.3)

    def image(self, z: Array) -> Array:
        """Coefficients `[H, W, C]` (or `[n, H, W, C]`, several images at once) -> image, linear."""
        if z.ndim > 3:
            return jax.vmap(self.image)(z)
        return self._back(z * self._scale(z.shape, z.dtype))

    def adjoint(self, gradient: Array) -> Array:
        """Gradient with respect to the image -> that with respect to the coefficients."""
        if gradient.ndim > 3:
            return jax.vmap(self.adjoint)(gradient)
        return self._forth(gradient) * self._scale(gradient.shape, gradient.dtype)

    def __call__(self, gradient: Array) -> Array:
        """The move in pixels that a step along the coefficients' gradient makes."""
        return self.image(self.adjoint(gradient))

    def _scale(self, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        height, width, channels = shape
        across, down = np.arange(width) / (2 * width), np.arange(height) / (2 * height)
        frequency = np.hypot(down[:, None], across[None, :])
        scale = np.maximum(frequency, 1 / (2 * max(height, width))) ** -self.decay
        scale = scale / np.sqrt(np.mean(scale**2))
        shares = np.asarray(self.colours if channels == 3 else (1.0,) * channels)
        return jnp.asarray(scale[:, :, None] * shares[None, None, :], dtype)

    def _forth(self, image: Array) -> Array:
        down, across = (jnp.asarray(cosine_matrix(size), image.dtype) for size in image.shape[:2])
        found = jnp.einsum("ah,hwc,bw->abc", down, image, across)
        return found @ _axes(image).T if image.shape[-1] == 3 else found

    def _back(self, z: Array) -> Array:
        down, across = (jnp.asarray(cosine_matrix(size), z.dtype) for size in z.shape[:2])
        found = jnp.einsum("ah,abc,bw->hwc", down, z, across)
        return found @ _axes(z) if z.shape[-1] == 3 else found


def _axes(like: Array) -> Array:
    return jnp.asarray(OPPONENT, like.dtype)


def fourier(
    *, decay: float = 1.0, colours: tuple[float, float, float] = (1.0, 0.4, 0.3)
) -> Fourier:
    """The space that makes pictures smooth instead of speckled.

    Args:
      decay: how much more low frequencies count.
      colours: how much each opponent axis counts; natural images vary least in the last two.

    Raises:
      ValueError: for a negative decay, or a share that is not positive.

    >>> space = fourier(decay=0.0, colours=(1.0, 1.0, 1.0))
    >>> bool(jnp.allclose(space(jnp.eye(4)[:, :, None]), jnp.eye(4)[:, :, None], atol=1e-6))
    True
    """
    if not 0 <= decay < np.inf:
        raise ValueError(f"decay must be at least 0 and finite, got {decay!r}")
    if len(colours) != 3 or not all(0 < share < np.inf for share in colours):
        raise ValueError(f"colours must be three positive numbers, got {colours!r}")
    return Fourier(float(decay), tuple(map(float, colours)))  # type: ignore[arg-type]
