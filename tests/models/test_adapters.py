"""Networks of every kind become functions of one image, and new weights never compile again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import advfeat
from advfeat.models import (
    create,
    from_equinox,
    from_function,
    from_haiku,
    from_linen,
    from_nnx,
    init,
)

IMAGE = jax.random.uniform(jax.random.key(7), (4, 4, 3))


class Traces:
    """Counts how often jit compiles a function of a network."""

    def __init__(self):
        self.count = 0

        @jax.jit
        def gradients(fn, xs):
            self.count += 1
            return jax.vmap(jax.grad(lambda x: fn(x).sum()))(xs)

        self.gradients = gradients

    def assert_one_for(self, *fns):
        results = [self.gradients(fn, jnp.stack([IMAGE, 1 - IMAGE])) for fn in fns]
        assert self.count == 1
        assert results[0].shape == (2, 4, 4, 3)
        assert not np.allclose(results[0], results[1])


@pytest.mark.slow
def test_linen():
    model = create("mlp", num_classes=5, width=8)
    weights = [init(jax.random.key(seed), model, IMAGE.shape) for seed in (0, 1)]
    fns = [from_linen(create("mlp", num_classes=5, width=8), v, train=False) for v in weights]
    np.testing.assert_allclose(fns[0](IMAGE), model.apply(weights[0], IMAGE[None])[0], rtol=1e-6)
    Traces().assert_one_for(*fns)


def test_linen_calls_another_method():
    class Net(linen.Module):
        def setup(self):
            self.dense = linen.Dense(2)

        def __call__(self, x):
            return self.dense(self.flat(x))

        def flat(self, x):
            return x.reshape(x.shape[0], -1)

    variables = Net().init(jax.random.key(0), IMAGE[None])
    np.testing.assert_array_equal(from_linen(Net(), variables, method="flat")(IMAGE), IMAGE.ravel())


def test_linen_options_must_be_hashable():
    with pytest.raises(ValueError, match="mutable must be hashable, got a list"):
        from_linen(linen.Dense(2), {}, mutable=["batch_stats"])


class NnxNet(nnx.Module):
    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(48, 5, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(self.norm(x))
        return self.dense(x.reshape(x.shape[0], -1))


def test_nnx_is_evaluated_with_its_running_averages():
    net = NnxNet(0)
    net.norm.mean[...] = jnp.array([0.1, 0.2, 0.3])
    net.norm.var[...] = jnp.array([1.0, 2.0, 3.0])
    fn = from_nnx(net)
    mean, var = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])
    normalised = (np.asarray(IMAGE) - mean) / np.sqrt(var + 1e-5)
    expected = normalised.reshape(-1) @ np.asarray(net.dense.kernel[...])
    np.testing.assert_allclose(fn(IMAGE), expected, rtol=1e-4, atol=1e-5)
    assert not net.dropout.deterministic  # the caller's network is still in training mode
    assert not net.norm.use_running_average


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: lambda x: net(x)[0]])
def test_nnx_in_training_mode_is_told_of_the_adapter(wrap):
    net = wrap(NnxNet(0))
    images, labels = np.full((2, 4, 4, 3), 0.5, np.float32), np.array([0, 1])
    attack = advfeat.fgsm(advfeat.linf(0.1))
    for call in (
        lambda: advfeat.attack_dataset(jax.random.key(0), attack, net, images, labels),
        lambda: advfeat.correct(net, images, labels),
        lambda: advfeat.evaluate(
            jax.random.key(0), net, images, labels, threat=advfeat.linf(0.1), suite=["fgsm"]
        ),
    ):
        with pytest.raises(ValueError, match=r"training mode .*from_nnx\(module\)"):
            call()


def test_nnx_does_not_compile_for_new_weights():
    Traces().assert_one_for(*(from_nnx(NnxNet(seed)) for seed in (0, 1)))


def logits(weights, x):
    return x.reshape(x.shape[0], -1) @ weights


def one_logits(weights, x):
    return x.reshape(-1) @ weights


@pytest.mark.parametrize(("fn", "batched"), [(logits, True), (one_logits, False)])
def test_function_with_weights(fn, batched):
    weights = [jax.random.normal(jax.random.key(seed), (48, 5)) for seed in (0, 1)]
    fns = [from_function(fn, w, batched=batched) for w in weights]
    np.testing.assert_allclose(fns[0](IMAGE), IMAGE.reshape(-1) @ weights[0], rtol=1e-4)
    Traces().assert_one_for(*fns)


def test_function_without_weights():
    np.testing.assert_array_equal(from_function(lambda x: x.sum((1, 2)))(IMAGE), IMAGE.sum((0, 1)))
    np.testing.assert_array_equal(from_function(jnp.ravel, batched=False)(IMAGE), IMAGE.ravel())


def test_equinox():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout

        def __call__(self, x, state):
            x, state = self.norm(self.conv(x), state)
            return self.dropout(x).mean((1, 2)), state

    def build(seed):
        return eqx.nn.make_with_state(
            lambda: Net(
                eqx.nn.Conv2d(3, 5, 3, key=jax.random.key(seed)),
                eqx.nn.BatchNorm(5, "batch", mode="ema"),
                eqx.nn.Dropout(0.5),
            )
        )()

    net, state = build(0)
    _, state = jax.vmap(
        lambda x, s: net.norm(net.conv(x), s),
        in_axes=(0, None),
        out_axes=(0, None),
        axis_name="batch",
    )(jnp.stack([IMAGE, 1 - IMAGE]).transpose(0, 3, 1, 2), state)
    expected, _ = eqx.nn.inference_mode(net)(IMAGE.transpose(2, 0, 1), state)
    np.testing.assert_allclose(from_equinox(net, state)(IMAGE), expected, rtol=1e-5)
    other, _ = build(1)
    Traces().assert_one_for(from_equinox(net, state), from_equinox(other, state))
    last = eqx.nn.Lambda(lambda x: x[..., 0].ravel())
    np.testing.assert_array_equal(
        from_equinox(last, channels_first=False)(IMAGE), IMAGE[..., 0].ravel()
    )


def test_haiku():
    hk = pytest.importorskip("haiku")

    def forward(x, is_training):
        x = hk.BatchNorm(True, True, 0.9)(x, is_training)
        return hk.Linear(5)(hk.Flatten()(x))

    net = hk.transform_with_state(forward)
    weights = [net.init(jax.random.key(seed), IMAGE[None], True) for seed in (0, 1)]
    fns = [from_haiku(net, *pair, is_training=False) for pair in weights]
    expected, _ = net.apply(*weights[0], None, IMAGE[None], False)
    np.testing.assert_allclose(fns[0](IMAGE), expected[0], rtol=1e-6)
    Traces().assert_one_for(*fns)
