"""Images with planted features: what is said to be in them is, as often and as strongly as said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advfeat import data
from advfeat.data import planted_images
from advfeat.features.planted import FEATURES, SHAPES, drawings, planted, pointing, share_inside

KEY = jax.random.key(0)


def drawn(world, count=400):
    labels = jnp.arange(count) % world.num_classes
    return np.asarray(labels), jax.tree.map(np.asarray, drawings(KEY, world, labels))


@pytest.mark.slow
def test_each_feature_agrees_as_often_as_said():
    labels, found = drawn(planted(agreements=(1.0, 0.5, 0.0)), 4000)
    agree = (found.classes == labels[:, None]).mean(0)
    assert agree[0] == 1
    # By chance a class drawn evenly is the label a quarter of the time.
    np.testing.assert_allclose(agree[1:], [0.5 + 0.5 / 4, 1 / 4], atol=0.03)


@pytest.mark.slow
def test_features_have_the_strengths_that_were_asked_for():
    world = planted(noise=0.0, strengths=(0.3, 0.02, 0.5), channels=1)
    labels, found = drawn(world, 40)
    background = ~found.shape & ~found.mark
    textures = np.asarray(world.textures)[labels]
    wanted = 0.4 + 0.02 * textures
    np.testing.assert_allclose(found.image[background], wanted[background], atol=1e-6)
    np.testing.assert_allclose(found.image[found.mark], wanted[found.mark] + 0.5, atol=1e-6)
    inside = (found.image - wanted)[found.shape]
    assert (inside > 0.6 * 0.3 - 1e-6).all()
    assert (inside < 0.3 + 1e-6).all()


@pytest.mark.slow
def test_a_feature_without_strength_is_not_there():
    plain = drawn(planted(strengths=(0.0, 0.0, 0.0)), 40)[1].image
    spread = np.abs(plain - 0.4)
    assert abs(spread[:, :3, :3].mean() - spread[:, 10:20, 10:20].mean()) < 0.003


@pytest.mark.slow
def test_shapes_differ_and_stay_clear_of_marks():
    labels, found = drawn(planted(), 400)
    assert not (found.shape & found.mark).any()
    assert (found.mark.sum((1, 2)) == 9).all()
    assert found.image.min() >= 0
    assert found.image.max() <= 1
    area = [found.shape[labels == k].sum((1, 2)).mean() for k in range(len(SHAPES))]
    assert min(area) > 30
    corners = [found.mark[labels == k][0] for k in range(4)]
    places = [tuple(np.argwhere(mark).mean(0) > 16) for mark in corners]
    assert len(set(places)) == 4


@pytest.mark.slow
def test_a_drawing_depends_on_its_key_and_label_only():
    world = planted(noise=0.1)
    labels = jnp.arange(8) % 4
    whole = drawings(KEY, world, labels)
    some = drawings(KEY, world, labels[:3])
    np.testing.assert_array_equal(whole.image[:3], some.image)
    jitted = jax.jit(world.draw)(jax.random.fold_in(KEY, 1), labels[1])
    np.testing.assert_allclose(whole.image[1], jitted.image, atol=1e-6)


@pytest.mark.slow_for("0")
@pytest.mark.parametrize("which", range(3))
def test_the_only_feature_that_agrees_is_the_only_one_that_is_learned(which):
    """A nearest-template rule for each feature: right where its feature agrees, else a guess."""
    agreements = tuple(float(index == which) for index in range(3))
    world = planted(agreements=agreements, noise=0.01)
    labels, found = drawn(world, 400)
    textures = np.asarray(world.textures)
    # The faint pattern is read off where no shape and no mark is.
    clear = (~found.shape & ~found.mark)[..., None]
    middle = (found.image - 0.4) * clear
    texture = np.einsum("nhwc,khwc->nk", middle, textures).argmax(1)
    np.testing.assert_array_equal(texture, found.classes[:, 1])
    bright = [
        found.image[:, a, b].mean((1, 2, 3))
        for a, b in (
            (slice(0, 3), slice(0, 3)),
            (slice(0, 3), slice(-3, None)),
            (slice(-3, None), slice(0, 3)),
            (slice(-3, None), slice(-3, None)),
        )
    ]
    mark = np.argmax(bright, axis=0)
    np.testing.assert_array_equal(mark, found.classes[:, 2])
    rules = {"shape": found.classes[:, 0], "texture": texture, "mark": mark}
    right = [(rules[name] == labels).mean() for name in FEATURES]
    assert right[which] == 1
    assert max(right[:which] + right[which + 1 :]) < 0.35


def test_pointing():
    region = jnp.zeros((4, 4), bool).at[:2].set(True)
    assert float(pointing(region.astype(jnp.float32), region)) == 1.0
    assert float(pointing(jnp.ones((4, 4)), region)) == 0.5
    assert float(pointing(1 - region.astype(jnp.float32), region)) == 0.0
    values = np.random.default_rng(0).random((4, 4))
    area = pointing(jnp.asarray(values), region)
    inside, outside = values[:2].ravel(), values[2:].ravel()
    wanted = (inside[:, None] > outside[None, :]).mean()
    np.testing.assert_allclose(area, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 5}, r"num_classes must lie in \[2, 4\], got 5"),
        ({"size": 7}, "size must be at least 12, got 7"),
        ({"strengths": (0.1, 0.2)}, "strengths must be three numbers, shape, texture, mark"),
        ({"agreements": (1.0, 2.0, 0.0)}, r"agreements must lie in \[0, 1\], got 2"),
        ({"noise": -0.1}, "noise must lie in"),
        ({"channels": 0}, "channels must be a whole number"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(ValueError, match=words):
        planted(**options)


# --- As a data set. -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_data_set_is_the_same_every_time_and_its_name_says_what_tells():
    shape = data.load("planted:shape")
    again = data.load("planted:shape")
    np.testing.assert_array_equal(shape.train.image, again.train.image)
    assert (len(shape.train), len(shape.test)) == (4000, 1000)
    assert shape.class_names == SHAPES
    assert shape.train.image.dtype == np.uint8
    some = planted_images.drawn(planted_images.world("planted:shape"), np.arange(40))
    np.testing.assert_array_equal(np.round(some.image * 255), shape.train.image[:40])
    np.testing.assert_array_equal(some.classes[:, 0], shape.train.label[:40])
    assert (some.classes[:, 2] != shape.train.label[:40]).any()
    later = planted_images.drawn(planted_images.world("planted:shape"), shape.test.id[[7, 3]])
    np.testing.assert_array_equal(np.round(later.image * 255), shape.test.image[[7, 3]])
    pair = data.load("planted:texture+mark", classes=("ring", "disc"))
    assert pair.class_names == ("ring", "disc")
    assert len(pair.train) == 2000
    with pytest.raises(data.DataError, match="unknown feature 'colour', known are shape, texture"):
        data.load("planted:colour")


def test_shares_by_hand():
    delta = np.zeros((1, 4, 4, 3))
    delta[0, 0, 0] = 1.0
    delta[0, 3, 3] = 2.0
    region = np.zeros((1, 4, 4), bool)
    region[0, 3, 3] = True
    np.testing.assert_allclose(share_inside(delta, region), [4 / 5])
