"""A convolution whose gradients run at full speed inside loops on CPU.

XLA's CPU compiler runs a convolution fast only if its operands have the layout `b01f_01io`.
Outside of loops it rewrites the gradients of a convolution into that layout. Inside `fori_loop`,
`scan` and `while_loop` it does not: with jax 0.10.2, 3x3 kernels and 32 to 128 channels, the
gradient of the input (an attack) takes 4 to 50 times as long, that of the kernel (training) 40 to
100 times; for a whole small residual network, an attack takes 10 times as long. The remedy is to
write the transpositions explicitly, followed by an optimisation barrier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

Pads = tuple[tuple[int, int], ...]
"""Zero padding before and after each spatial axis."""

_ORDER = ("NHWC", "HWIO", "NHWC")

CHUNK = 2_000_000  # patch values per matrix product: what fits in a core's cache


def conv(
    x: Array, kernel: Array, *, stride: int = 1, padding: str | Sequence[tuple[int, int]] = "SAME"
) -> Array:
    """Convolves a batch of images; its gradients are fast inside loops on every platform.

    On CPU both gradients follow rules of their own (see the module's docstring), exact and with all
    higher derivatives; elsewhere it is plain `lax.conv_general_dilated`. The choice is made by
    `jax.default_backend()` while tracing, and affects speed only. (`lax.platform_dependent` would
    choose later, at the cost of a `cond` in every layer, both of whose branches reverse mode would
    save residuals for.)

    Args:
      x: `[B, H, W, I]`.
      kernel: `[h, w, I, O]`, of the dtype of `x`.
      stride: the same in both directions.
      padding: `"SAME"`, `"VALID"` or the zero padding before and after each axis.

    Returns:
      `[B, H', W', O]`.

    Example:
      >>> import jax.numpy as jnp
      >>> conv(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 8)), stride=2).shape
      (1, 2, 2, 8)
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    if jax.default_backend() != "cpu":
        return _plain(x, kernel, stride, pads)
    if x.shape[-1] == 1 and stride == 1:
        # One input channel leaves a convolution nothing to vectorise over; a product over patches
        # takes half the time, forwards and backwards (28x28 images, 3x3 kernel, 16 features).
        size = (kernel.shape[0], kernel.shape[1])
        return _patches(x, size, 1, pads) @ kernel.reshape(-1, kernel.shape[-1])
    if x.shape[-1] == 3 and stride == 1:
        # Three channels take twice as long as four (32x32 images, 3x3 kernel, 32 features).
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0)))
    return _conv(x, kernel, stride, pads)


def _plain(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_ORDER)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    return _plain(x, kernel, stride, pads)


@partial(_conv.defjvp, symbolic_zeros=True)
def _conv_jvp(
    stride: int, pads: Pads, primals: tuple[Array, Array], tangents: tuple
) -> tuple[Array, Array]:
    """Computes the ordinary tangents, each written so that its transpose is a fast convolution.

    A custom_vjp could state the gradients directly, but forbids forward mode. Symbolic zeros keep
    an attack, which does not differentiate the kernel, from convolving with a kernel of zeros.
    """
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    out = _conv(x, kernel, stride, pads)
    tangent = jnp.zeros_like(out)
    if not isinstance(x_dot, SymbolicZero):
        tangent += _input_tangent(x_dot, kernel, stride, pads)
    if not isinstance(kernel_dot, SymbolicZero):
        tangent += _kernel_tangent(x, kernel_dot, stride, pads)
    return out, tangent


def _input_tangent(x_dot: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """Convolves a tangent of the input.

    With stride 1, the transpose is a convolution with the flipped kernel, written out: without the
    barrier, XLA would fold flip and transposition back into it; the second flip cancels that of the
    transpose. With a larger stride, the transpose is one matrix product whose columns are scattered
    back by addition. This takes half the time of a convolution over blocks of pixels and less than
    a tenth of that of a dilated convolution, but needs memory for the columns (9/4 of the input for
    a 3x3 kernel).
    """
    if stride > 1:
        size = (kernel.shape[0], kernel.shape[1])
        return _patches(x_dot, size, stride, pads) @ kernel.reshape(-1, kernel.shape[-1])
    flipped = lax.optimization_barrier(kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    return lax.conv_general_dilated(
        x_dot, lax.rev(flipped, (0, 1)), (1, 1), pads, dimension_numbers=("NHWC", "HWOI", "NHWC")
    )


def _kernel_tangent(x: Array, kernel_dot: Array, stride: int, pads: Pads) -> Array:
    """Convolves with a tangent of the kernel: matrix products over a few images at a time.

    Its transpose, the kernel's gradient, is then a sum of products of patches and gradients that
    stay in the cache: three times as fast as XLA's convolution over the batch. Patches are built
    per kernel row (a third of the copies), and rebuilt for the transpose (checkpoint), which would
    otherwise keep all of them. The kernel is transposed because a product with a long, thin matrix
    on the left takes three times as long as with one on the right.
    """
    rows, columns, channels, features = kernel_dot.shape
    matrices = kernel_dot.reshape(rows, columns * channels, features).transpose(0, 2, 1)
    # The transpose accumulates the chunks' gradients in the dtype of the loop's input.
    matrices = matrices.astype(jnp.promote_types(x.dtype, jnp.float32))

    count = x.shape[0]
    area = math.prod(
        _extent(x.shape[1 + axis], kernel_dot.shape[axis], stride, pads[axis]) for axis in (0, 1)
    )
    fitting = max(1, CHUNK // max(1, area * kernel_dot[..., 0].size))
    chunk = next(n for n in range(min(fitting, count), 0, -1) if count % n == 0)

    def convolve(first: Array) -> Array:
        images = lax.dynamic_slice_in_dim(x, first, chunk)
        strips = jnp.concatenate(_views(images, 2, columns, stride, pads[1]), axis=-1)
        return sum(
            (
                lax.dot_general(seen, matrix, (((3,), (1,)), ((), ())))
                for seen, matrix in zip(
                    _views(strips, 1, rows, stride, pads[0]), matrices.astype(x.dtype), strict=True
                )
            ),
            start=jnp.zeros((), x.dtype),
        )

    # Slice x instead of reshaping it: the reshaped copy would be computed a second time.
    out = lax.map(jax.checkpoint(convolve, prevent_cse=False), jnp.arange(0, count, chunk))
    return out.reshape(count, *out.shape[2:])


def _patches(x: Array, size: tuple[int, int], stride: int, pads: Pads) -> Array:
    """Extracts the patches under the kernel: `[B, H, W, I]` -> `[B, H', W', h w I]`."""
    return jnp.concatenate(
        [
            seen
            for row in _views(x, 1, size[0], stride, pads[0])
            for seen in _views(row, 2, size[1], stride, pads[1])
        ],
        axis=-1,
    )


def _views(x: Array, axis: int, length: int, stride: int, pad: tuple[int, int]) -> list[Array]:
    """Returns the strided views of x that a kernel sees along one axis: `length` arrays.

    Phases are split off instead of strided slicing, whose transpose is slow.
    """
    low, _ = pad
    out = _extent(x.shape[axis], length, stride, pad)
    blocks = out + (length - 1) // stride
    around = [(0, 0, 0)] * x.ndim
    around[axis] = (low, blocks * stride - low - x.shape[axis], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), around)
    phases = [x]
    if stride > 1:
        x = x.reshape(*x.shape[:axis], blocks, stride, *x.shape[axis + 1 :])
        phases = [part.squeeze(axis + 1) for part in lax.split(x, [1] * stride, axis=axis + 1)]
    return [
        lax.slice_in_dim(phases[place % stride], place // stride, place // stride + out, axis=axis)
        for place in range(length)
    ]


def _extent(size: int, length: int, stride: int, pad: tuple[int, int]) -> int:
    """Returns the number of positions of a kernel of this length along an axis."""
    return max(0, (size + sum(pad) - length) // stride + 1)


HE = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
"""He initialisation, which preserves the variance of gradients where no normalisation follows."""

SMALL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""For convolutions followed by a normalisation. There the scale only sets the effective learning
rate; with this scale (PyTorch's default), a learning rate of 0.1 suits them and the classifier."""


class Conv(nn.Module):
    """A convolution layer without bias, He-initialised, on `[B, H, W, C]`.

    Attributes:
      features: output channels.
      kernel_size: side of the square kernel, in pixels.
      stride: the same in both directions.
      use_bias: adds a bias per channel.
      init_fn: of the kernel.
      dtype: of the computation; the parameters are float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    init_fn: Callable[..., Array] = HE

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, C]` -> `[B, ceil(H / stride), ceil(W / stride), features]`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.init_fn, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.kernel_size == 1 and self.stride > 1:
            # A 1x1 kernel sees only these pixels; the slice's gradient is zero padding, which is
            # fast.
            x = x[:, :: self.stride, :: self.stride]
            x = conv(x, kernel)
        else:
            x = conv(x, kernel, stride=self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return x
