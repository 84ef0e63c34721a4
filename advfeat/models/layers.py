"""Convolution whose gradients run at full speed inside loops on CPU.

XLA's CPU compiler runs a convolution fast only when its operands have the order `b01f_01io`.
Outside of loops the gradients of a convolution are rewritten into that order. Inside
`fori_loop`, `scan` and `while_loop` they are not: with jax 0.10.2, 3x3 kernels and 32 to 128
channels the gradient of the input (an attack) takes 4 to 50 times as long, that of the kernel
(training) 50 to 100 times. The remedy is to write the transpositions out and to put a barrier
behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

Pads = tuple[tuple[int, int], ...]
"""Zeros before and after each spatial axis."""

_ORDER = ("NHWC", "HWIO", "NHWC")


def conv(
    x: Array, kernel: Array, *, stride: int = 1, padding: str | Sequence[tuple[int, int]] = "SAME"
) -> Array:
    """Convolves a batch of images; its gradients are fast inside loops on every platform.

    On CPU both gradients have rules of their own (see the module's docstring), exact and with all
    higher derivatives; elsewhere it is `lax.conv_general_dilated` and nothing else. The choice is
    made by `jax.default_backend()` while tracing, and only ever decides about speed.
    (`lax.platform_dependent` would choose later, at the price of a `cond` in every layer, whose
    branches reverse mode would both save for.)

    Args:
      x: `[B, H, W, I]`.
      kernel: `[h, w, I, O]`, of the dtype of `x`.
      stride: the same in both directions.
      padding: `"SAME"`, `"VALID"` or the zeros before and after each axis.

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
    """Writes each tangent as the transpose of the gradient we want.

    Reverse mode transposes it once more and so runs exactly `_input_gradient`, respectively
    `_kernel_gradient`. A custom_vjp would do the same, but forbids forward mode. Symbolic zeros
    keep an attack, which does not differentiate the kernel, from convolving a kernel of zeros.
    """
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    out = _conv(x, kernel, stride, pads)
    tangent = jnp.zeros_like(out)
    if not isinstance(x_dot, SymbolicZero):
        to_input = partial(_input_gradient, kernel=kernel, shape=x.shape, stride=stride, pads=pads)
        tangent += jax.linear_transpose(to_input, out)(x_dot)[0]
    if not isinstance(kernel_dot, SymbolicZero):
        to_kernel = partial(_kernel_gradient, x=x, shape=kernel.shape, stride=stride, pads=pads)
        tangent += jax.linear_transpose(to_kernel, out)(kernel_dot)[0]
    return out, tangent


def _kernel_gradient(
    grad: Array, *, x: Array, shape: Sequence[int], stride: int, pads: Pads
) -> Array:
    """The correlation of the input with `grad`, the batch taking the place of the channels."""
    conv_pads = tuple(
        (low, shape[axis] - x.shape[1 + axis] - low + stride * (grad.shape[1 + axis] - 1))
        for axis, (low, _) in enumerate(pads)
    )
    # The barrier keeps XLA from folding the transpositions back into the convolution.
    images = lax.optimization_barrier(x.transpose(3, 1, 2, 0))
    grads = lax.optimization_barrier(grad.transpose(1, 2, 0, 3))
    out = lax.conv_general_dilated(
        images, grads, (1, 1), conv_pads, rhs_dilation=(stride, stride), dimension_numbers=_ORDER
    )
    return out.transpose(1, 2, 0, 3)


def _input_gradient(
    grad: Array, *, kernel: Array, shape: Sequence[int], stride: int, pads: Pads
) -> Array:
    """The transposed convolution, as a stride-1 convolution followed by a depth-to-space.

    Along one axis `y[i] = sum_a x[s i + a - low] k[a]`, hence with `j = s q + r`

        dx[s q + r] = sum_d dy[q + d] k[r + low - s d],        first <= d <= last,

    an ordinary convolution of `dy` with a kernel of `last - first + 1` taps and `s` output
    phases `r`. For stride 1 it is the flipped kernel, for 3x3 with stride 2 a 2x2 kernel.
    """
    outputs, inputs = kernel.shape[3], kernel.shape[2]
    zeros, taps, conv_pads = [], [], []
    for axis, (low, _) in enumerate(pads):
        length = kernel.shape[axis]
        first, last = -((length - 1 - low) // stride), (stride - 1 + low) // stride
        taps.append(last - first + 1)
        before = stride * last - low
        zeros.append((before, stride * taps[-1] - before - length))
        phases = -(-shape[1 + axis] // stride)
        conv_pads.append((-first, phases - grad.shape[1 + axis] + first + taps[-1] - 1))
    kernel = jnp.pad(kernel, (*zeros, (0, 0), (0, 0)))
    kernel = kernel.reshape(taps[0], stride, taps[1], stride, inputs, outputs)
    kernel = kernel[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    kernel = kernel.reshape(taps[0], taps[1], outputs, stride * stride * inputs)
    # Without the barrier XLA folds the flip and the transposition back into the convolution.
    out = _plain(grad, lax.optimization_barrier(kernel), 1, tuple(conv_pads))
    if stride > 1:
        batch, rows, columns = out.shape[:3]
        out = out.reshape(batch, rows, columns, stride, stride, inputs)
        out = out.transpose(0, 1, 3, 2, 4, 5)
        out = out.reshape(batch, rows * stride, columns * stride, inputs)
    return out[:, : shape[1], : shape[2]]


class Conv(nn.Module):
    """A convolution layer without bias, He-initialised, on `[B, H, W, C]`.

    Attributes:
      features: output channels.
      kernel_size: side of the square kernel, in pixels.
      stride: the same in both directions.
      use_bias: adds a bias per channel.
      dtype: of the computation; the parameters are float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, C]` -> `[B, ceil(H / stride), ceil(W / stride), features]`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        init = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
        kernel = self.param("kernel", init, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.kernel_size == 1 and self.stride > 1:
            # A 1x1 kernel only sees these pixels; the slice's gradient is a padding, which is fast.
            x = x[:, :: self.stride, :: self.stride]
            x = conv(x, kernel)
        else:
            x = conv(x, kernel, stride=self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return x
