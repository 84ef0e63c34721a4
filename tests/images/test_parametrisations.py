"""Ascent in frequencies and colours is ascent in pixels with another step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from advfeat import l2, pgd
from advfeat.attacks.step_rules import filtered, from_optax, steepest, within
from advfeat.images import augmentation, parametrisations

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 9, 1)])
def test_the_adjoint_is_the_adjoint(shape):
    space = parametrisations.fourier()
    z, g = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for _ in range(2))
    left = np.sum(np.asarray(space.image(z) * g))
    right = np.sum(np.asarray(z * space.adjoint(g)))
    np.testing.assert_allclose(left, right, rtol=1e-4)
    gradient = jax.grad(lambda z: jnp.sum(space.image(z) * g))(z)
    np.testing.assert_allclose(gradient, space.adjoint(g), atol=1e-4)


def test_low_frequencies_move_further():
    space = parametrisations.fourier(decay=1.0, colours=(1.0, 1.0, 1.0))
    noise = RNG.normal(size=(32, 32, 3)).astype(np.float32)
    power = np.abs(np.fft.fft2(np.asarray(space(jnp.asarray(noise))).mean(-1))) ** 2
    before = np.abs(np.fft.fft2(noise.mean(-1))) ** 2
    low, high = power[1, 1] / before[1, 1], power[16, 16] / before[16, 16]
    # decay counts in the coefficient and again in its gradient
    assert low / high > 100


def test_colours_move_as_far_as_they_count():
    space = parametrisations.fourier(decay=0.0, colours=(1.0, 0.5, 0.25))
    from advfeat.images.filters import OPPONENT

    for axis, share in zip(OPPONENT, space.colours, strict=True):
        flat = jnp.asarray(np.broadcast_to(axis, (4, 4, 3)), jnp.float32)
        np.testing.assert_allclose(space(flat), share**2 * flat, atol=1e-5)


def test_plain_descent_within_is_plain_descent_of_the_coefficients():
    space = parametrisations.fourier()
    x = RNG.random((8, 8, 3)).astype(np.float32)
    g = jnp.asarray(RNG.normal(size=x.shape), jnp.float32)
    rule = within(from_optax(optax.sgd), space)(l2(1.0), jnp.array(0.1))
    move, _ = rule.update(g, rule.init(jnp.asarray(x)), jnp.asarray(x))
    np.testing.assert_allclose(move, 0.1 * space(g), atol=1e-5)


def test_steps_of_a_filtered_rule_keep_their_length():
    rule = filtered(steepest, parametrisations.fourier())(l2(1.0), jnp.array(0.25))
    x = RNG.random((8, 8, 3)).astype(np.float32)
    g = RNG.normal(size=x.shape).astype(np.float32)
    move, _ = rule.update(jnp.asarray(g), rule.init(jnp.asarray(x)), jnp.asarray(x))
    np.testing.assert_allclose(np.linalg.norm(move), 0.25, rtol=1e-5)


@pytest.mark.slow
def test_pgd_in_a_space_compiles_once():
    traced = []

    def fn(x):
        traced.append(1)
        return jnp.stack([x.sum(), -x.sum()])

    fn = jax.tree_util.Partial(fn)
    run = jax.jit(lambda attack, fn, x: attack(KEY, fn, x, 0).best.x)
    for _ in range(2):
        attack = pgd(l2(0.5), steps=3, rule=filtered(steepest, parametrisations.fourier()))
        run(attack, fn, jnp.full((4, 4, 3), 0.5))
    before = len(traced)
    other = pgd(l2(0.1), steps=3, rule=filtered(steepest, parametrisations.fourier()))
    run(other, fn, jnp.full((4, 4, 3), 0.9))
    assert len(traced) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decay": -1.0}, "decay must be at least 0"),
        ({"colours": (1.0, 0.0, 1.0)}, "colours must be three positive"),
        ({"colours": (1.0, 1.0)}, "colours must be three positive"),
    ],
)
def test_bad_spaces(options, words):
    with pytest.raises(ValueError, match=words):
        parametrisations.fourier(**options)


def test_a_look_of_no_size_changes_nothing():
    image = RNG.random((9, 8, 3)).astype(np.float32)
    same = augmentation.random_affine(pixels=0, degrees=0, scale=1.0)(KEY, jnp.asarray(image))
    np.testing.assert_allclose(same, image, atol=1e-5)


@pytest.mark.slow
def test_looks_keep_a_constant_and_move_the_rest():
    look = augmentation.random_affine(pixels=3)
    np.testing.assert_allclose(look(KEY, jnp.full((8, 8, 1), 0.3)), 0.3, rtol=1e-5)
    image = RNG.random((16, 16, 1)).astype(np.float32)
    seen = jax.vmap(look, (0, None))(jax.random.split(KEY, 20), jnp.asarray(image))
    assert np.ptp(np.asarray(seen), axis=0).mean() > 0.1
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 1 + 1e-6


def test_a_quarter_turn():
    image = RNG.random((7, 7, 1)).astype(np.float32)
    look = augmentation.random_affine(pixels=0, degrees=90.0, scale=1.0)
    # The draw scales the angle: take the one that it is for this key and turn back by NumPy.
    angle = float(jax.random.uniform(KEY, (4,), minval=-1.0, maxval=1.0)[0]) * 90
    from scipy import ndimage

    for sign in (1, -1):
        turned = ndimage.rotate(
            image, sign * angle, reshape=False, order=1, mode="nearest", prefilter=False
        )
        if np.abs(turned - np.asarray(look(KEY, jnp.asarray(image)))).max() < 1e-4:
            return
    raise AssertionError("neither turn is that of scipy")


@pytest.mark.parametrize("options", [{"pixels": -1}, {"degrees": -1}, {"scale": 0.9}])
def test_bad_looks(options):
    with pytest.raises(ValueError, match="must be at least"):
        augmentation.random_affine(**options)
