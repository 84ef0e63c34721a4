"""Tasks of synthesis: what is damaged, what stays, what a network is asked to draw."""

import jax
import numpy as np
import pytest

from advfeat import data
from advfeat.features import generation, tasks

DIGITS = data.load("digits")
IMAGES, LABELS = data.unit(DIGITS.test.image[:12]), DIGITS.test.label[:12]
MEAN = np.asarray(DIGITS.mean)


def test_a_hole_is_all_that_changes():
    task = tasks.inpainting(IMAGES, LABELS, MEAN, seed=0)
    changed = (task.starts != task.originals).any(-1)
    assert (task.masks.sum((1, 2)) == 9).all()
    assert not changed[task.masks == 0].any()
    inside = task.starts[task.masks > 0]
    np.testing.assert_allclose(inside, np.broadcast_to(MEAN, inside.shape), rtol=1e-5)


def test_small_images_are_block_means_and_bicubic_is_smoother():
    task = tasks.superresolution(IMAGES, LABELS)
    small = task.starts[:, ::4, ::4]
    np.testing.assert_allclose(small, IMAGES.reshape(12, 2, 4, 2, 4, 1).mean((2, 4)), rtol=1e-5)
    smooth = task.controls["bicubic"]
    assert np.abs(np.diff(smooth, axis=1)).max() < np.abs(np.diff(task.starts, axis=1)).max()
    flat = tasks.bicubic(np.full((2, 2, 3), 0.3), (8, 8))
    np.testing.assert_allclose(flat, 0.3, rtol=1e-6)


def test_a_sketch_is_dark_lines_on_white():
    sketch = tasks.sketch_of(IMAGES[0])
    assert set(np.unique(sketch).tolist()) == {np.float32(0.1), 1.0}
    assert 0.05 < (sketch < 0.5).mean() <= 0.21


def test_translation_aims_at_the_next_class():
    task = tasks.translation(IMAGES, LABELS, 10)
    np.testing.assert_array_equal(task.labels, (LABELS + 1) % 10)


def test_a_task_is_drawn_within_its_limits():
    weights = np.random.default_rng(0).normal(size=(10, 64)).astype(np.float32)
    network = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), weights)
    key = jax.random.key(0)
    for task in (
        tasks.inpainting(IMAGES, LABELS, MEAN, seed=0),
        tasks.sketch(IMAGES, LABELS, strength=0.5),
        tasks.generation(
            key,
            generation.fit_seeds(IMAGES, LABELS % 2, num_classes=2, side=tasks.seed_side((8, 8))),
            LABELS % 2,
            (8, 8),
        ),
    ):
        drawn = tasks.draw(key, task, network, steps=3)
        far = np.linalg.norm((drawn - task.starts).reshape(len(drawn), -1), axis=1)
        assert (far > 0).all()
        assert (far <= task.eps * (1 + 1e-5)).all()
        if task.masks is not None:
            np.testing.assert_array_equal(drawn[task.masks == 0], task.starts[task.masks == 0])
    with pytest.raises(ValueError, match="factor must be"):
        tasks.superresolution(IMAGES, LABELS, factor=0)
