"""The convolution: exact derivatives of every order, and none of them slow inside a loop on CPU."""

import re
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from advfeat.models import layers
from advfeat.models.layers import Conv, conv

CASES = [
    # size, input channels, output channels, kernel, stride, padding
    ((8, 8), 4, 6, 3, 1, "SAME"),
    ((7, 9), 3, 5, 3, 1, "SAME"),
    ((8, 8), 4, 6, 3, 2, "SAME"),
    ((7, 9), 4, 6, 3, 2, "SAME"),
    ((7, 8), 4, 6, 1, 2, "SAME"),
    ((14, 14), 3, 4, 7, 2, "SAME"),
    ((13, 9), 3, 4, 7, 2, "SAME"),
    ((10, 9), 2, 4, 3, 2, "VALID"),
    ((2, 1), 4, 6, 3, 2, "SAME"),
    ((9, 8), 2, 4, 4, 3, ((2, 0), (1, 3))),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)
only_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the rules are CPU's")


def reference(x, kernel, *, stride, padding):
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=order)


def draw(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def make(case, batch=3):
    size, inputs, outputs, side, stride, padding = case
    x = draw(0, (batch, *size, inputs))
    kernel = draw(1, (side, side, inputs, outputs)) / side
    options = {"stride": stride, "padding": padding}
    return x, kernel, partial(conv, **options), partial(reference, **options)


def energy(fn):
    return lambda x, kernel: jnp.sum(jnp.sin(fn(x, kernel)))


def close(actual, expected):
    """Equal to a few float32 ulp of the largest entry, the scale on which sums are rounded."""

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=4e-6 * float(jnp.abs(b).max()))

    jax.tree.map(check, actual, expected)


@pytest.mark.slow_for("((14, 14), 3, 4, 7, 2, 'SAME')", "((9, 8), 2, 4, 4, 3, ((2, 0), (1, 3)))")
@cases
def test_value_and_gradients_are_those_of_lax(case):
    x, kernel, fn, reference_fn = make(case)
    both = partial(jax.value_and_grad, argnums=(0, 1))
    close(jax.jit(both(energy(fn)))(x, kernel), jax.jit(both(energy(reference_fn)))(x, kernel))


@pytest.mark.parametrize("case", [CASES[1], CASES[3]], ids=str)
def test_gradients_of_one_example_at_a_time(case):
    x, kernel, fn, reference_fn = make(case)

    def gradients(f):
        one = jax.grad(lambda x, kernel: energy(f)(x[None], kernel), argnums=(0, 1))
        return jax.jit(jax.vmap(one, in_axes=(0, None)))(x, kernel)

    close(gradients(fn), gradients(reference_fn))


@pytest.mark.slow_for("((7, 9), 3, 5, 3, 1, 'SAME')")
@pytest.mark.parametrize("case", [CASES[1], CASES[2]], ids=str)
def test_a_training_loop_that_attacks(case):
    x, kernel, fn, reference_fn = make(case)

    def run(f):
        def step(kernel, x):
            attacked = x
            for _ in range(2):
                attacked = attacked + 0.1 * jax.grad(energy(f))(attacked, kernel)
            return kernel - 0.01 * jax.grad(energy(f), 1)(attacked, kernel), attacked

        return jax.jit(lambda: lax.scan(step, kernel, jnp.stack([x, 2 * x, 3 * x])))()

    close(run(fn), run(reference_fn))


@pytest.mark.slow_for("((7, 9), 3, 5, 3, 1, 'SAME')")
@pytest.mark.parametrize("case", [CASES[1], CASES[3]], ids=str)
def test_derivatives_of_higher_order(case):
    x, kernel, fn, reference_fn = make(case, batch=1)
    x_dot, kernel_dot = jnp.cos(x), jnp.cos(kernel)

    def derivatives(f):
        def penalty(x, kernel):
            return sum(jnp.sum(g**2) for g in jax.grad(energy(f), (0, 1))(x, kernel))

        primals, tangents = (x, kernel), (x_dot, kernel_dot)
        return {
            "forward": jax.jvp(energy(f), primals, tangents),
            "reverse over reverse": jax.grad(penalty, (0, 1))(x, kernel),
            "forward over reverse": jax.jvp(jax.grad(energy(f), (0, 1)), primals, tangents),
            "reverse over forward": jax.grad(
                lambda x, kernel: jax.jvp(energy(f), (x, kernel), tangents)[1], (0, 1)
            )(x, kernel),
        }

    close(jax.jit(partial(derivatives, fn))(), jax.jit(partial(derivatives, reference_fn))())


def test_gradients_under_shard_map():
    x, kernel, fn, reference_fn = make(CASES[1])
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    def gradients(f):
        sharded = jax.shard_map(
            jax.grad(energy(f), (0, 1)),
            mesh=mesh,
            in_specs=(PartitionSpec("batch"), PartitionSpec()),
            out_specs=(PartitionSpec("batch"), PartitionSpec()),
        )
        return jax.jit(sharded)(x, kernel)

    close(gradients(fn), gradients(reference_fn))


@pytest.mark.slow
def test_bfloat16_stays_bfloat16():
    x, kernel, fn, reference_fn = make(CASES[2])
    small = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    gradients = jax.jit(jax.grad(lambda *a: energy(fn)(*a).astype(jnp.float32), (0, 1)))(*small)
    assert {g.dtype for g in gradients} == {jnp.dtype(jnp.bfloat16)}
    for gradient, exact in zip(
        gradients, jax.grad(energy(reference_fn), (0, 1))(x, kernel), strict=True
    ):
        error = jnp.linalg.norm(gradient.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
        assert error < 0.02


def products(fn, *arrays):
    """How many convolutions and matrix products a function traces to."""
    text = str(jax.make_jaxpr(fn)(*arrays))
    return text.count("conv_general_dilated["), text.count("dot_general[")


def test_an_attack_does_not_differentiate_the_kernel():
    x, kernel, fn, _ = make(CASES[0])
    assert products(jax.grad(energy(fn)), x, kernel) == (2, 0)
    convolutions, kernels = products(jax.grad(energy(fn), (0, 1)), x, kernel)
    assert (convolutions, kernels) == (2, 3)  # a product for each row of the kernel
    x, kernel, fn, _ = make(CASES[2])  # of stride 2: the input's gradient is a product as well
    assert products(jax.grad(energy(fn)), x, kernel) == (1, 1)


@pytest.mark.slow_for("1")
@pytest.mark.parametrize("chunk", [1, 900, 10**9])
def test_kernel_gradient_does_not_depend_on_the_chunks(monkeypatch, chunk):
    x, kernel, fn, plain = make(CASES[1], batch=6)
    monkeypatch.setattr(layers, "CHUNK", chunk)
    close(jax.grad(energy(fn), 1)(x, kernel), jax.grad(energy(plain), 1)(x, kernel))


def test_other_platforms_get_the_plain_convolution(monkeypatch):
    x, kernel, fn, _ = make(CASES[1])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = str(jax.make_jaxpr(jax.grad(energy(fn), (0, 1)))(x, kernel))
    assert "optimization_barrier" not in text
    assert "custom_jvp" not in text


def orders_in_loop(fn, x, kernel):
    """The dimension orders of the convolutions that XLA compiles a loop of training steps to."""

    def step(kernel, x):
        x_grad, kernel_grad = jax.grad(energy(fn), (0, 1))(x, kernel)
        return kernel - kernel_grad, x_grad

    xs = jnp.stack([x, x])
    text = jax.jit(lambda k, xs: lax.scan(step, k, xs)).lower(kernel, xs).compile().as_text()
    return re.findall(r"dim_labels=(\S+?)[,\s]", text)


@only_cpu
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[2]], ids=str)
def test_every_convolution_in_a_loop_has_the_fast_order(case):
    x, kernel, fn, _ = make(case)
    found = orders_in_loop(fn, x, kernel)
    # Forward and, with stride 1, the input's gradient; all else is matrix products.
    assert len(found) == (2 if case[4] == 1 else 1)
    assert set(found) == {"b01f_01io->b01f"}


@only_cpu
@pytest.mark.slow
def test_gradients_in_a_loop_take_as_long_as_outside():
    x, kernel, fn, _ = make(((16, 16), 32, 32, 3, 1, "SAME"), batch=16)
    steps = 4

    def step(kernel, x):
        x_grad, kernel_grad = jax.grad(energy(fn), (0, 1))(x, kernel)
        return kernel - 1e-3 * kernel_grad, x_grad

    xs = jnp.stack([x] * steps)
    outside = jax.jit(step).lower(kernel, x).compile()
    inside = jax.jit(lambda k, xs: lax.scan(step, k, xs)).lower(kernel, xs).compile()

    def seconds(run, *arguments):
        start = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        return time.perf_counter() - start

    pairs = [(seconds(outside, kernel, x), seconds(inside, kernel, xs)) for _ in range(20)]
    # The trap is a factor of 7 to 100; a busy machine does not triple the fastest of 20 runs.
    assert min(b for _, b in pairs) / steps < 3 * min(a for a, _ in pairs)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 3])
def test_layer_is_its_convolution(side, stride):
    kernel, x, bias = draw(0, (side, side, 3, 5)), draw(1, (2, 7, 8, 3)), jnp.arange(5.0)
    layer = Conv(5, side, stride, use_bias=True)
    actual = jax.jit(layer.apply)({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = reference(x, kernel, stride=stride, padding="SAME")
    close(actual, expected + bias.reshape(1, 1, 1, -1))


def test_layer_starts_as_he_et_al():
    kernel = Conv(64).init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    np.testing.assert_allclose(jnp.std(kernel), np.sqrt(2 / (9 * 64)), rtol=0.02)


def test_padding_the_channels_is_invisible():
    x, kernel, fn, _ = make(CASES[1])
    assert x.shape[-1] == 3
    assert jax.grad(energy(fn))(x, kernel).shape == x.shape
    assert conv(x, kernel).shape == (3, 7, 9, 5)


@pytest.mark.parametrize("common", [False, True], ids=["any sign", "one sign"])
def test_many_chunks_of_bfloat16_add_up_to_the_kernels_gradient(common, monkeypatch):
    monkeypatch.setattr(layers, "CHUNK", 1)  # one image at a time
    x, cotangent, kernel = draw(0, (96, 6, 6, 4)), draw(1, (96, 6, 6, 4)), draw(2, (3, 3, 4, 4))
    if common:
        x, cotangent = jnp.abs(x), jnp.abs(cotangent)
    x, cotangent, kernel = (a.astype(jnp.bfloat16) for a in (x, cotangent, kernel))

    @partial(jax.jit, static_argnums=0)
    def gradient(fn, x, kernel, cotangent):
        return jax.vjp(lambda k: fn(x, k), kernel)[1](cotangent)[0]

    found = gradient(conv, x, kernel, cotangent)
    assert found.dtype == jnp.bfloat16
    plain = partial(reference, stride=1, padding="SAME")
    exact = gradient(plain, *(a.astype(jnp.float32) for a in (x, kernel, cotangent)))
    found, exact = np.asarray(found, np.float64), np.asarray(exact, np.float64)
    # bfloat16 rounds by up to 0.2 %; sums of a common sign must not come out short.
    assert np.linalg.norm(found - exact) < 0.004 * np.linalg.norm(exact)
    if common:
        assert abs(np.mean(found / exact) - 1) < 5e-4
