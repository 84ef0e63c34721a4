"""Image parametrisations for visualisation by ascent: frequency and colour spaces.

A space is linear and invertible, so ascent in it equals ascent in pixels with another step, and the
kernel need not know about it. Olah et al. (2017),
https://distill.pub/2017/feature-visualization, "The enemy of feature visualization"; Mordvintsev et
al. (2018), https://distill.pub/2018/differentiable-parameterizations.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from advfeat.images.filters import OPPONENT, cosine_matrix
from advfeat.types import Array


@dataclasses.dataclass(frozen=True)
class Fourier:
    """The Fourier parametrisation, by cosine coefficients of opponent colour axes.

    Low frequencies weigh more. Static and hashable. The name is the papers', who take a complex
    Fourier transform; this is a cosine transform (DCT-II), which is real, keeps the shape of the
    image, and does not wrap around at the edges. The papers' sigmoid is omitted, since the box of
    the threat model bounds the pixels.

    Attributes:
      decay: weight `f ** -decay` of coefficients of frequency f; 0 weights all equally.
      colours: weight of each opponent axis (brightness, red-green, yellow-blue).
    """

    decay: float = 1.0
    colours: tuple[float, float, float] = (1.0, 0.4, 0.3)

    def image(self, z: Float[Array, "*n H W C"]) -> Float[Array, "*n H W C"]:
        """Maps coefficients linearly to an image, or several to as many."""
        if z.ndim > 3:
            return jax.vmap(self.image)(z)
        return self._back(z * self._scale(z.shape, z.dtype))

    def adjoint(self, gradient: Float[Array, "*n H W C"]) -> Float[Array, "*n H W C"]:
        """Maps a gradient in the image to a gradient in the coefficients."""
        if gradient.ndim > 3:
            return jax.vmap(self.adjoint)(gradient)
        return self._forth(gradient) * self._scale(gradient.shape, gradient.dtype)

    def __call__(self, gradient: Float[Array, "*n H W C"]) -> Float[Array, "*n H W C"]:
        """Returns the move in pixels of a step along the gradient in the coefficients."""
        return self.image(self.adjoint(gradient))

    def _scale(self, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        height, width, channels = shape
        across, down = np.arange(width) / (2 * width), np.arange(height) / (2 * height)
        frequency = np.hypot(down[:, None], across[None, :])
        scale = np.maximum(frequency, 1 / (2 * max(height, width))) ** -self.decay
        scale = scale / np.sqrt(np.mean(scale**2))
        shares = np.asarray(self.colours if channels == 3 else (1.0,) * channels)
        return jnp.asarray(scale[:, :, None] * shares[None, None, :], dtype)

    def _forth(self, image: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        down, across = (jnp.asarray(cosine_matrix(size), image.dtype) for size in image.shape[:2])
        found = jnp.einsum("ah,hwc,bw->abc", down, image, across)
        return found @ _axes(image).T if image.shape[-1] == 3 else found

    def _back(self, z: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
        down, across = (jnp.asarray(cosine_matrix(size), z.dtype) for size in z.shape[:2])
        found = jnp.einsum("ah,abc,bw->hwc", down, z, across)
        return found @ _axes(z) if z.shape[-1] == 3 else found


def _axes(like: Array) -> Array:
    return jnp.asarray(OPPONENT, like.dtype)


def fourier(
    *, decay: float = 1.0, colours: tuple[float, float, float] = (1.0, 0.4, 0.3)
) -> Fourier:
    """Returns the Fourier parametrisation, for smooth instead of speckled pictures.

    In its real form, a cosine transform; see `Fourier`.

    Args:
      decay: exponent of the weight of low frequencies.
      colours: weight of each opponent axis; natural images vary least along the last two.

    Raises:
      ValueError: for a negative decay, or a weight that is not positive.

    >>> space = fourier(decay=0.0, colours=(1.0, 1.0, 1.0))
    >>> bool(jnp.allclose(space(jnp.eye(4)[:, :, None]), jnp.eye(4)[:, :, None], atol=1e-6))
    True
    """
    if not 0 <= decay < np.inf:
        raise ValueError(f"decay must be at least 0 and finite, got {decay!r}")
    if len(colours) != 3 or not all(0 < share < np.inf for share in colours):
        raise ValueError(f"colours must be three positive numbers, got {colours!r}")
    return Fourier(float(decay), tuple(map(float, colours)))  # type: ignore[arg-type]
