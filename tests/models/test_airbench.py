"""The fast network: its fixed first layer, its start as an identity, its pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advfeat import models
from advfeat.models import airbench

SHAPE = (12, 12, 3)
MODEL = models.create("airbench", num_classes=4, width=8, mean=(0.5,), std=(0.2,))
VARIABLES = models.init(jax.random.key(0), MODEL, SHAPE)
IMAGES = np.random.default_rng(0).random((40, *SHAPE), np.float32)


def test_an_adapted_network_whitens_the_patches_of_its_images():
    images = (IMAGES + np.roll(IMAGES, 1, axis=2)) / 2  # neighbours are correlated
    adapted = MODEL.adapted(VARIABLES, images)
    kernel = np.asarray(adapted[airbench.FROZEN]["kernel"])
    seen = airbench.patches((images - 0.5) / 0.2).reshape(-1, 12)
    white = seen @ kernel.reshape(12, 12)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(12), atol=0.02)
    before = seen @ np.asarray(VARIABLES[airbench.FROZEN]["kernel"]).reshape(12, 12)
    assert np.abs(before.T @ before / len(before) - np.eye(12)).max() > 0.3
    assert adapted["params"] is VARIABLES["params"]  # nothing else changes


def test_the_first_layer_is_the_product_with_every_patch_and_its_opposite():
    adapted = MODEL.adapted(VARIABLES, IMAGES)
    stem = jax.vmap(models.model_fn(MODEL, adapted, layer="stem"))(IMAGES[:2])
    kernel = np.asarray(adapted[airbench.FROZEN]["kernel"]).reshape(12, 12)
    white = airbench.patches((IMAGES[:2] - 0.5) / 0.2).reshape(2, 11, 11, 12) @ kernel
    expected = np.maximum(np.concatenate([white, -white], axis=-1), 0)
    np.testing.assert_allclose(stem, expected, atol=1e-4)


def test_no_training_changes_the_first_kernel():
    assert airbench.FROZEN not in VARIABLES["params"]
    _, changed = MODEL.apply(VARIABLES, IMAGES, train=True, mutable=["batch_stats"])
    assert set(changed) == {"batch_stats"}


@pytest.mark.parametrize(("inside", "out"), [(3, 5), (4, 4), (6, 2)])
def test_a_kernel_begins_by_passing_channels_on(inside, out):
    kernel = airbench.mostly_identity(jax.random.key(1), (3, 3, inside, out))
    x = jax.random.normal(jax.random.key(2), (2, 5, 5, inside))
    passed = models.conv(x, kernel)
    same = min(inside, out)
    np.testing.assert_allclose(passed[..., :same], x[..., :same], atol=1e-6)


def test_pooling_takes_the_maximum_of_blocks_and_drops_the_rest():
    x = np.random.default_rng(1).normal(size=(2, 7, 5, 3)).astype(np.float32)
    blocks = x[:, :6, :4].reshape(2, 3, 2, 2, 2, 3)
    np.testing.assert_array_equal(airbench.pooled(jnp.asarray(x), 2), blocks.max((2, 4)))


def test_shifts_learn_sixty_four_times_as_fast():
    layer = airbench.Shifted()
    x = jax.random.normal(jax.random.key(0), (8, 3, 3, 2))
    variables = layer.init(jax.random.key(1), x, train=True)

    def output(shift):
        given = {**variables, "params": {"shift": shift}}
        return layer.apply(given, x, train=True, mutable=["batch_stats"])[0].sum()

    step = jax.grad(output)(variables["params"]["shift"])
    moved = output(step) - output(jnp.zeros(2))
    np.testing.assert_allclose(moved, 64 * 2 * (8 * 3 * 3) ** 2, rtol=1e-4)
