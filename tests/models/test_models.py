"""The networks: shapes, published sizes, closed forms, frozen statistics, no retrace, bad input."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advfeat import models

# Parameters for 3x32x32 images and 10 classes, as the papers and their usual ports count them.
PUBLISHED = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "wrn_16_4": 2_748_890,
    "wrn_28_10": 36_479_194,
}
SMALL = {"width": 4, "num_classes": 3}


def small(name="cnn", shape=(8, 8, 1), **options):
    model = models.create(name, **{**SMALL, **options})
    return model, models.init(jax.random.key(0), model, shape)


def shapes(model, input_shape):
    images = jnp.zeros((2, *input_shape))
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images))


def layer_shape(model, input_shape, layer):
    def run(variables, image):
        return models.model_fn(model, variables, layer=layer)(image)

    image = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    return jax.eval_shape(run, shapes(model, input_shape)[1], image).shape


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_and_parameters_are_float32(name, dtype):
    logits, variables = shapes(models.create(name, **SMALL, dtype=dtype), (32, 32, 3))
    assert logits.shape == (2, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", models.names())
def test_layers_end_with_representation_and_logits(name):
    assert models.layer_names(models.create(name, **SMALL), (32, 32, 3))[-2:] == (
        "representation",
        "logits",
    )


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_published_number_of_parameters(name, count):
    _, variables = shapes(models.create(name, num_classes=10), (32, 32, 3))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


def test_layers_of_a_residual_network():
    model = models.create("resnet9", num_classes=10)
    names = models.layer_names(model, (32, 32, 3))
    assert names == ("stem", "block1", "block2", "block3", "representation", "logits")
    found = [layer_shape(model, (32, 32, 3), name) for name in names]
    assert found == [(32, 32, 32), (32, 32, 32), (16, 16, 64), (8, 8, 128), (128,), (10,)]


def test_imagenet_stem_divides_the_side_by_four():
    model = models.create("resnet18", **SMALL, stem="imagenet")
    variables = shapes(model, (64, 64, 3))[1]
    assert variables["params"]["stem_conv"]["kernel"].shape == (7, 7, 3, 4)
    assert layer_shape(model, (64, 64, 3), "stem") == (16, 16, 4)


def test_linear_network_is_its_formula():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    model, variables = small("linear", (2, 2, 3), mean=mean, std=std)
    image = jax.random.uniform(jax.random.key(1), (2, 2, 3))
    classifier = variables["params"]["classifier"]
    normalised = (np.asarray(image) - np.array(mean)) / np.array(std)
    expected = normalised.reshape(-1) @ np.asarray(classifier["kernel"]) + classifier["bias"]
    np.testing.assert_allclose(models.model_fn(model, variables)(image), expected, rtol=1e-5)


def test_residual_block_of_zero_scale_is_the_identity():
    model, variables = small("resnet9", (8, 8, 3), blocks=(1,), zero_scale=True)
    image = jax.random.uniform(jax.random.key(1), (8, 8, 3))
    stem = jax.jit(models.model_fn(model, variables, layer="stem"))(image)
    block = jax.jit(models.model_fn(model, variables, layer="block1"))(image)
    np.testing.assert_array_equal(stem, block)


@pytest.mark.slow_for("cnn")
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_logits_follow_from_the_representation(name):
    model, variables = small(name)
    x = jax.random.uniform(jax.random.key(1), (5, 8, 8, 1))
    through = models.model_fn(model, variables, layer="representation")
    representation = jax.jit(jax.vmap(through))(x)
    classifier = variables["params"]["classifier"]
    logits = jax.jit(jax.vmap(models.model_fn(model, variables)))(x)
    expected = representation @ classifier["kernel"] + classifier["bias"].reshape(1, -1)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def trained():
    """A network with batch normalisation after one training pass, and the batch."""
    model, variables = small("resnet9", (8, 8, 3), blocks=(1, 1))
    x = jax.random.uniform(jax.random.key(1), (16, 8, 8, 3))
    apply = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    logits, state = apply(variables, x)
    return model, variables, {**variables, **state}, x, logits


@pytest.mark.slow
def test_training_moves_the_running_averages_by_a_tenth(trained):
    _, before, after, x, _ = trained
    kernel = before["params"]["stem_conv"]["kernel"]
    activations = models.conv(x, kernel)
    stats = [v["batch_stats"]["stem_norm"]["BatchNorm_0"] for v in (before, after)]
    mean, var = activations.mean((0, 1, 2)), activations.var((0, 1, 2))
    np.testing.assert_allclose(stats[1]["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats[1]["var"], 0.9 + 0.1 * var, rtol=1e-4)


@pytest.mark.slow
def test_attacked_network_uses_running_averages(trained):
    model, _, variables, x, training_logits = trained
    batched = jax.jit(lambda x: model.apply(variables, x, train=False))(x)
    alone = jax.jit(jax.vmap(models.model_fn(model, variables)))(x)
    np.testing.assert_allclose(batched, alone, rtol=1e-4, atol=1e-5)
    assert not np.allclose(batched, training_logits, atol=1e-2)


def test_group_norm_has_no_state_and_ignores_the_batch():
    model, variables = small("resnet9", (8, 8, 3), norm="group", blocks=(1,))
    assert set(variables) == {"params"}
    x = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
    apply = jax.jit(lambda x: model.apply(variables, x, train=True))
    np.testing.assert_allclose(apply(x)[:2], apply(x[:2].repeat(2, axis=0))[::2], rtol=1e-4)


def test_new_weights_do_not_retrace():
    @jax.jit
    @chex.assert_max_traces(n=2)  # two networks
    def gradient(fn, x):
        return jax.grad(lambda x: fn(x).sum())(x)

    x = jnp.ones((8, 8, 1))
    results = []
    for seed in range(3):
        model = models.create("mlp", **SMALL)  # made anew, as after loading a checkpoint
        variables = models.init(jax.random.key(seed), model, (8, 8, 1))
        results.append(gradient(models.model_fn(model, variables), x))
    assert not np.allclose(results[0], results[1])
    gradient(models.model_fn(model, variables, layer="hidden1"), x)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other platforms have no such order")
def test_an_attack_in_a_loop_has_no_slow_convolution():
    model, variables = small("resnet9", (8, 8, 3), blocks=(1, 1))
    xs = jnp.ones((2, 8, 8, 3))

    def attack(fn, xs):
        gradient = jax.vmap(jax.grad(lambda x: fn(x).max()))
        return jax.lax.fori_loop(0, 2, lambda _, xs: xs + gradient(xs), xs)

    text = jax.jit(attack).lower(models.model_fn(model, variables), xs).compile().as_text()
    orders = re.findall(r"dim_labels=(\S+?)[,\s]", text)
    assert len(orders) == 9  # five forward; back to the input four, those of stride 1
    assert set(orders) == {"b01f_01io->b01f"}


def test_weights_are_the_leaves_of_model_fn():
    model, variables = small()
    assert len(jax.tree.leaves(models.model_fn(model, variables))) == len(
        jax.tree.leaves(variables)
    )


@pytest.mark.slow
def test_a_network_learns():
    model, variables = small("cnn", num_classes=2)
    y = jnp.arange(16) % 2
    x = jax.random.uniform(jax.random.key(1), (16, 8, 8, 1)) * 0.5
    x = x + 0.5 * y.astype(jnp.float32).reshape(-1, 1, 1, 1)

    def loss(params):
        log_p = jax.nn.log_softmax(model.apply({"params": params}, x, train=True))
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    def step(params, _):
        value, grads = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

    params, losses = jax.jit(lambda p: jax.lax.scan(step, p, None, length=30))(variables["params"])
    assert losses[-1] < 0.5 * losses[0]
    assert params["conv1"]["kernel"].shape == (3, 3, 1, 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, "unknown model 'resnet19'; there are .*resnet18"),
        ("cnn", {"stem": "imagenet"}, "model 'cnn' has no option 'stem'"),
        ("resnet18", {"depth": 3}, "no option 'depth'; it has blocks, .*stem"),
        ("cnn", {"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ("cnn", {"width": 0}, "width must be at least 1, got 0"),
        ("cnn", {"std": (0.5, 0.0)}, "std must be positive"),
        ("mlp", {"depth": 0}, "depth must be at least 1"),
        ("resnet18", {"stem": "mnist"}, "stem must be one of cifar, imagenet, got 'mnist'"),
        ("resnet18", {"norm": "layer"}, "norm must be one of batch, group, none, got 'layer'"),
        ("resnet18", {"blocks": (1, 0)}, "blocks must be at least 1"),
        ("wrn_16_4", {"widen": 0}, "widen must be at least 1"),
        ("wrn_16_4", {"zero_scale": True}, "zero_scale needs post-activation blocks"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **{"num_classes": 10, **options})


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("cnn", (3, 8, 1), "3x8 pixels are too small for CNN, .* at least 4x4"),
        ("resnet18", (4, 4, 3), "at least 8x8"),
        ("linear", (8, 8), "must be a batch of images"),
    ],
)
def test_images_that_do_not_fit(name, shape, message):
    with pytest.raises(ValueError, match=message):
        models.init(jax.random.key(0), models.create(name, **SMALL), shape)


class Theirs(nn.Module):
    """A network that names no layers."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x.reshape(len(x), -1))


def test_wrong_channels_or_dtype_or_layer():
    model = models.create("linear", **SMALL, mean=(0.1, 0.2))
    with pytest.raises(ValueError, match="mean has 2 values, the images have 3 channels"):
        models.init(jax.random.key(0), model, (8, 8, 3))
    model, variables = small("linear")
    with pytest.raises(ValueError, match="uint8"):
        models.model_fn(model, variables)(jnp.zeros((8, 8, 1), jnp.uint8))
    with pytest.raises(ValueError, match="unknown layer 'hidden1'; there are representation, log"):
        models.model_fn(model, variables, layer="hidden1")(jnp.zeros((8, 8, 1)))
    with pytest.raises(ValueError, match=r"made for images of another size .* than \(8, 8, 3\)"):
        models.model_fn(model, variables)(jnp.zeros((8, 8, 3)))
    theirs = Theirs()
    weights = models.init(jax.random.key(0), theirs, (8, 8, 1))
    with pytest.raises(ValueError, match="'representation'; there are none but logits"):
        models.model_fn(theirs, weights, layer="representation")(jnp.zeros((8, 8, 1)))
