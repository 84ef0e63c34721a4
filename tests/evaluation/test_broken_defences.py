"""Broken defences do what they say: little to clean images, and what they are named for."""

import io

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from advfeat.attacks.nes_gradient import with_nes_gradient
from advfeat.evaluation import broken_defences
from advfeat.types import Randomised, with_key


def identity(x):
    return x


def flat(x):
    return x.ravel()


def image(seed=0, shape=(8, 8, 1), levels=255):
    grey = np.random.default_rng(seed).integers(0, levels + 1, shape)
    return jnp.asarray(grey / levels, jnp.float32)


def test_outputs_keep_the_prediction():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(50, 7)) * 2, jnp.float32)
    for wrap in (
        broken_defences.scaled_logits,
        broken_defences.probabilities,
        broken_defences.hard_labels,
    ):
        changed = jax.vmap(wrap(identity))(z)
        np.testing.assert_array_equal(changed.argmax(1), z.argmax(1))
    shares = np.exp(np.asarray(z, np.float64))
    shares /= shares.sum(1, keepdims=True)
    np.testing.assert_allclose(
        jax.vmap(broken_defences.probabilities(identity))(z), shares, rtol=1e-5
    )
    clipped = jax.vmap(broken_defences.clipped_log(identity, low=0.05, high=0.8))(z)
    np.testing.assert_allclose(clipped, np.log(np.clip(shares, 0.05, 0.8)), atol=1e-5)
    sure = shares.max(1) > 0.3
    np.testing.assert_array_equal(clipped.argmax(1)[sure], shares.argmax(1)[sure])


def test_quantised_and_thermometer_see_few_grey_levels():
    x = image()
    seen = broken_defences.quantised(flat, levels=4)(x)
    np.testing.assert_allclose(seen, np.round(np.asarray(x.ravel()) * 4) / 4)
    assert len(np.unique(broken_defences.thermometer(flat, levels=6)(x))) == 7
    coarse = broken_defences.thermometer(flat, levels=6)(x)
    assert np.abs(coarse - x.ravel()).max() <= 1 / 12 + 1e-6


@pytest.mark.parametrize("name", ["quantised", "thermometer", "jpeg", "stopped_gradient"])
def test_gradients_that_are_cut_off(name):
    network = getattr(broken_defences, name)(flat)
    gradient = jax.jacobian(network)(image(1))
    assert not np.any(gradient)
    assert np.any(jax.jacobian(flat)(image(1)))


@pytest.mark.parametrize("quality", [30, 50, 90])
@pytest.mark.parametrize("shape", [(8, 8), (16, 24), (13, 9)])
def test_jpeg_is_that_of_pillow(quality, shape):
    smooth = np.add.outer(np.linspace(40, 160, shape[0]), np.linspace(0, 60, shape[1]))
    grey = np.clip(smooth + np.random.default_rng(0).normal(0, 6, shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=quality)
    reference = np.asarray(Image.open(file), np.float64)
    seen = broken_defences.jpeg(flat, quality=quality)(
        jnp.asarray(grey[..., None] / 255, jnp.float32)
    )
    ours = 255 * np.asarray(seen).reshape(shape)
    # Pillow's transforms are in whole numbers: now and then a coefficient rounds the other way.
    assert np.mean(np.abs(ours - reference) > 1.5) < 0.2
    assert np.abs(grey - reference).max() > 3  # it did lose something


def test_shattered_is_exact_on_the_grid_and_points_the_other_way():
    x = image(2, levels=16)
    network = broken_defences.shattered(flat, levels=16)
    np.testing.assert_allclose(network(x), flat(x), atol=5e-3)
    slope = jnp.diagonal(jax.jacobian(network)(x).reshape(64, 64))
    assert np.all(slope < -10)
    off = jnp.full_like(x, 0.5 + 0.25 / (12 * 16))
    np.testing.assert_allclose(network(off) - flat(off), -0.04, atol=2e-3)


@pytest.mark.slow
def test_noisy_gradient_is_exact_forward_and_noise_backward():
    x = image(3)
    network = broken_defences.noisy_gradient(flat)
    np.testing.assert_array_equal(network(x), flat(x))

    def slope(x):
        return jax.grad(lambda x: network(x).sum())(x)

    once, again, nearby = slope(x), slope(x), slope(x.at[0, 0, 0].add(1e-3))
    np.testing.assert_array_equal(once, again)
    assert np.abs(np.corrcoef(once.ravel(), nearby.ravel())[0, 1]) < 0.5
    assert 0.5 < once.std() < 1.5


def test_switching_takes_one_member_and_another_one_nearby():
    members = [lambda x, i=i: x.ravel()[:3] * 0 + i for i in range(3)]
    network = jax.jit(broken_defences.switching(members))
    x = image(4)
    seen = [int(network(x.at[0, 0, 0].add(1e-4 * step))[0]) for step in range(60)]
    assert set(seen) == {0, 1, 2}
    assert int(network(x)[0]) == seen[0]


def test_k_winners_pass_the_largest_only():
    halves = broken_defences.Halves(flat, identity)
    seen = np.asarray(broken_defences.k_winners(halves, share=0.25)(image(5)))
    x = np.asarray(image(5).ravel())
    np.testing.assert_array_equal(np.flatnonzero(seen), np.flatnonzero(x >= np.sort(x)[-16]))


@pytest.mark.slow
def test_lookup_answers_as_on_the_image_it_knows():
    known = np.stack([image(seed, levels=16) for seed in range(5)])
    rng = np.random.default_rng(0)
    near = jnp.clip(known[2] + rng.uniform(-0.1, 0.1, known[2].shape), 0, 1).astype(jnp.float32)
    far = jnp.clip(near + 0.3, 0, 1)
    for plausible in (False, True):
        network = broken_defences.lookup(flat, known, radius=0.1, plausible=plausible)
        np.testing.assert_allclose(network(near), known[2].ravel(), atol=1e-6)
        np.testing.assert_array_equal(network(far), far.ravel())
        assert np.any(jax.jacobian(network)(near)) == plausible
        assert np.any(jax.jacobian(network)(far))


def test_masked_off_grid_has_its_gradient_on_clean_images_only():
    network = broken_defences.masked_off_grid(flat, levels=16)
    x = image(6, levels=16)
    np.testing.assert_array_equal(network(x), x.ravel())
    assert np.any(jax.jacobian(network)(x))
    assert not np.any(jax.jacobian(network)(x.at[0, 0, 0].set(0.51)))


def test_gamma_is_undone_and_has_no_finite_slope_at_black():
    network = broken_defences.gamma_corrected(flat)
    x = image(7).at[0, 0, 0].set(0.0)
    np.testing.assert_allclose(network(x), x.ravel(), atol=1e-6)
    slope = jax.grad(lambda x: network(x).sum())(x)
    assert not np.isfinite(slope[0, 0, 0])


@pytest.mark.slow_for("random_view")
@pytest.mark.parametrize("name", ["random_view", "dropout_left_on"])
def test_random_ones_say_so_and_follow_their_key(name):
    network = getattr(broken_defences, name)(broken_defences.Halves(flat, identity))
    assert isinstance(network, Randomised)
    x = image(8)
    one, other = (with_key(network, jax.random.key(seed))(x) for seed in (1, 2))
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(one, with_key(network, jax.random.key(1))(x))
    many = jax.vmap(lambda key: with_key(network, key)(x))(jax.random.split(jax.random.key(0), 500))
    if name == "dropout_left_on":
        np.testing.assert_allclose(many.mean(0), x.ravel(), atol=0.12)
    else:
        assert np.abs(many.mean(0) - x.ravel()).mean() < 0.15


@pytest.mark.slow
def test_a_family_is_its_members():
    x = image(9)
    halves = broken_defences.Halves(flat, identity)
    alone = [
        broken_defences.quantised(flat),
        broken_defences.random_view(flat),
        broken_defences.scaled_logits(flat),
        broken_defences.dropout_left_on(halves),
    ]
    together = broken_defences.one_of(alone)
    key = jax.random.key(3)
    for one, member in zip(alone, together, strict=True):
        assert isinstance(one, Randomised) == isinstance(member, Randomised)
        np.testing.assert_allclose(with_key(one, key)(x), with_key(member, key)(x), atol=1e-5)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def call(network, x):
        return network(x)

    call(together[0], x)
    call(together[2], x)


@pytest.mark.slow_for("shattered")
@pytest.mark.parametrize("name", ["shattered", "quantised"])
def test_an_estimated_gradient_sees_through(name):
    weights = jax.random.normal(jax.random.key(0), (64,))
    network = getattr(broken_defences, name)(lambda x: jnp.stack([weights @ x.ravel(), 0.0]))
    seen = with_nes_gradient(network, sigma=0.15, pairs=300)
    x = jnp.full((8, 8, 1), 0.5)
    np.testing.assert_array_equal(seen(x), network(x))
    slope = jax.grad(lambda x: seen(x)[0])(x).ravel()
    cosine = slope @ weights / jnp.linalg.norm(slope) / jnp.linalg.norm(weights)
    assert cosine > 0.8
    np.testing.assert_allclose(jnp.linalg.norm(slope * cosine), jnp.linalg.norm(weights), rtol=0.2)
    other = jax.grad(lambda x: with_key(seen, jax.random.key(5))(x)[0])(x).ravel()
    assert not np.allclose(slope, other)  # a fresh estimate at every evaluation


@pytest.mark.slow
def test_an_estimate_has_no_bias_on_the_faces_of_the_box():
    slope = np.array([1.0, 1.0, 1.0, -1.0, -1.0, 1.0], np.float32)
    x = jnp.array([0.5, 0.0, 1.0, 0.0, 1.0, 0.02])
    for sigma in (0.1, 1.0):
        seen = with_nes_gradient(lambda x: jnp.stack([slope @ x, 0.0]), sigma=sigma, pairs=20_000)
        found = jax.grad(lambda x, seen=seen: seen(x)[0])(x)
        # The standard deviation is about sqrt(6 / 20,000), less than 0.02.
        np.testing.assert_allclose(found, slope, atol=0.07)


@pytest.mark.slow
def test_pairs_without_a_number_say_nothing():
    network = lambda x: jnp.stack([jnp.where(x[0] > 0.9, jnp.nan, x[0]), 0.0])  # noqa: E731
    found = jax.grad(lambda x: with_nes_gradient(network, sigma=0.1, pairs=300)(x)[0])(
        jnp.full(2, 0.8)
    )
    assert np.isfinite(found).all()
    # Those with |n| < 1 are left: the mean of n^2 over them is 0.199 of 1, +- 0.02.
    assert abs(found[0] - 0.199) < 0.08


def test_bad_input():
    for sigma in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"sigma must lie in \(0, inf\), got"):
            with_nes_gradient(flat, sigma=sigma)
    with pytest.raises(ValueError, match="pairs must be a whole number >= 1, got 0"):
        with_nes_gradient(flat, sigma=0.1, pairs=0)
