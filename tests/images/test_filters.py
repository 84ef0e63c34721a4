"""Filters of an attack's gradient: projections in closed form, and what they let pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from advfeat.images import filters

KEY = jax.random.key(0)


def test_chroma420_keeps_brightness_and_block_means_of_colour():
    image = jax.random.normal(KEY, (8, 6, 3))
    out = filters.chroma420(image)
    np.testing.assert_allclose(out.mean(-1), image.mean(-1), atol=1e-6)
    colour = np.asarray(out - out.mean(-1, keepdims=True))
    wanted = np.asarray(image - image.mean(-1, keepdims=True))
    blocks = wanted.reshape(4, 2, 3, 2, 3).mean(axis=(1, 3)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(colour, blocks, atol=1e-6)
    np.testing.assert_allclose(filters.chroma420(out), out, atol=1e-6)


@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 8, 3)])
def test_chroma420_leaves_what_has_no_chroma_blocks(shape):
    image = jax.random.normal(KEY, shape)
    np.testing.assert_array_equal(filters.chroma420(image), image)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (8, 8, 1)])
def test_power_zero_is_the_identity(shape):
    images = np.random.default_rng(0).random((20, *shape))
    gradient = jax.random.normal(KEY, shape)
    out = filters.natural_spectrum(images, power=0.0)(gradient)
    np.testing.assert_allclose(out, gradient, atol=1e-5)


def test_weights_are_the_spectrum_of_the_images_against_scipy():
    rng = np.random.default_rng(0)
    strength = 1.0 / (1.0 + np.add.outer(np.arange(8), np.arange(8)))
    images = scipy.fft.idctn(rng.normal(size=(4000, 8, 8)) * strength, axes=(1, 2), norm="ortho")
    made = filters.natural_spectrum(images[..., None], band=6)
    wanted = np.minimum(1.0, strength / strength[3, 3])
    np.testing.assert_allclose(np.array(made.weights[0]), wanted, rtol=0.1)
    gradient = rng.normal(size=(8, 8))
    expected = scipy.fft.idctn(
        scipy.fft.dctn(gradient, norm="ortho") * np.array(made.weights[0]), norm="ortho"
    )
    got = made(jnp.asarray(gradient[..., None], jnp.float32))[..., 0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_filter_is_static_and_equal_to_its_like():
    images = np.random.default_rng(0).random((20, 8, 8, 1))
    one, two = filters.natural_spectrum(images), filters.natural_spectrum(images)
    assert one == two
    assert hash(one) == hash(two)


def test_a_band_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="band must lie in"):
        filters.natural_spectrum(np.ones((2, 8, 8, 1)), band=15)
