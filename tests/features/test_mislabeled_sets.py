"""Constructed data sets: targets, labels, controls, and that the perturbation does its work."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scipy import stats

import advfeat
from advfeat.features import mislabeled

SHAPE = (4, 4, 1)
COUNT, CLASSES = 60, 3
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(CLASSES, 16)).astype(np.float32)
IMAGES = RNG.uniform(0, 1, (COUNT, *SHAPE)).astype(np.float32)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.int32)
MODEL = jax.tree_util.Partial(lambda w, x: w @ (x.ravel() - 0.5), jnp.asarray(WEIGHTS))
THREAT = advfeat.l2(0.8)


def predictions(images):
    return ((images.reshape(len(images), -1) - 0.5) @ WEIGHTS.T).argmax(1)


@pytest.fixture(scope="module")
def d_rand():
    targets = mislabeled.random_targets(jax.random.key(5), LABELS, num_classes=CLASSES)
    attack = mislabeled.targeted_pgd(THREAT, steps=20)
    ids = np.arange(100, 100 + COUNT)
    return mislabeled.construct(KEY, attack, MODEL, IMAGES, LABELS, targets, ids=ids, batch_size=20)


def test_random_targets_are_uniform_whatever_the_label():
    labels = np.repeat(np.arange(4), 2500)
    targets = mislabeled.random_targets(jax.random.key(1), labels, num_classes=4)
    assert targets.dtype == np.int32
    for label in range(4):  # t = y is as frequent as any other class
        assert stats.chisquare(np.bincount(targets[labels == label], minlength=4)).pvalue > 1e-3
    again = mislabeled.random_targets(jax.random.key(1), labels, num_classes=4)
    np.testing.assert_array_equal(targets, again)
    other = mislabeled.random_targets(jax.random.key(2), labels, num_classes=4)
    assert 0.6 < np.mean(targets != other) < 0.9


def test_deterministic_targets():
    labels = np.array([3, 0, 9, 8])
    found = mislabeled.deterministic_targets(labels, num_classes=10)
    np.testing.assert_array_equal(found, [4, 1, 0, 9])
    np.testing.assert_array_equal(
        mislabeled.deterministic_targets(np.array([0, 1]), num_classes=2), [1, 0]
    )


@pytest.mark.slow
def test_a_constructed_set_is_what_it_says(d_rand):
    assert (d_rand.label == d_rand.original_label).sum() > 0.15 * COUNT  # t = y stays in
    np.testing.assert_array_equal(d_rand.original_label, LABELS)
    np.testing.assert_array_equal(d_rand.id, np.arange(100, 100 + COUNT))
    assert d_rand.image.dtype == np.float32
    assert d_rand.image.min() >= 0
    assert d_rand.image.max() <= 1
    far = np.array(
        [
            oracle.length("l2", a.astype(np.float64) - b)
            for a, b in zip(d_rand.image, IMAGES, strict=True)
        ]
    )
    np.testing.assert_allclose(d_rand.distance, far, rtol=1e-5)
    assert far.max() <= 0.8 * (1 + 4 * oracle.ULP) + 1e-6
    np.testing.assert_array_equal(d_rand.fooled, predictions(d_rand.image) == d_rand.label)
    assert d_rand.fooled.mean() > 0.7
    # Beyond what was right already, it is the perturbation that did it.
    assert np.mean(predictions(IMAGES) == d_rand.label) < 0.6


@pytest.mark.slow
def test_the_perturbation_is_targeted_pgd_from_the_image_itself():
    # Two classes: cross-entropy's slope is that of the lead, so the ascent is a straight line.
    model = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), jnp.asarray(WEIGHTS[:2]))
    inner = np.float32(0.4 + 0.2 * IMAGES[:4])
    attack = mislabeled.targeted_pgd(THREAT, steps=3)
    assert float(attack.step_size) == pytest.approx(0.8 / 5)
    assert not attack.random_start
    made = mislabeled.construct(KEY, attack, model, inner, LABELS[:4] % 2, np.full(4, 1))
    slope = (WEIGHTS[1] - WEIGHTS[0]).reshape(SHAPE).astype(np.float64)
    wanted = inner + 3 * (0.8 / 5) * slope / oracle.length("l2", slope)
    np.testing.assert_allclose(made.image, wanted, atol=1e-5)
    assert mislabeled.targeted_pgd(THREAT).steps == 100
    assert float(mislabeled.targeted_pgd(advfeat.l2(0.5)).step_size) == pytest.approx(0.1)


@pytest.mark.slow
def test_taking_rows(d_rand):
    some = d_rand.take(np.array([3, 1]))
    assert some.id.tolist() == [103, 101]
    np.testing.assert_array_equal(some.image, d_rand.image[[3, 1]])
    masked = d_rand.take(d_rand.label != d_rand.original_label)
    assert np.all(masked.label != masked.original_label)
    assert 0 < len(masked.id) < COUNT


@pytest.mark.parametrize("norm", oracle.NORMS)
def test_noise_of_the_same_norm_image_by_image(d_rand, norm):
    threat = advfeat.threat_model(norm, 1.0)
    wanted = np.linspace(0.0, 0.4, COUNT).astype(np.float32)
    made = d_rand._replace(distance=wanted)
    noisy = mislabeled.noise_control(jax.random.key(3), threat, made, IMAGES)
    far = [
        oracle.length(norm, a.astype(np.float64) - b)
        for a, b in zip(noisy.image, IMAGES, strict=True)
    ]
    np.testing.assert_allclose(far, wanted, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(noisy.label, made.label)
    assert noisy.image.min() >= 0
    assert noisy.image.max() <= 1
    # The noise belongs to the example, not to its place, and another key draws another.
    back = mislabeled.noise_control(
        jax.random.key(3), threat, made.take(slice(None, None, -1)), IMAGES[::-1]
    )
    np.testing.assert_allclose(back.image[::-1], noisy.image, atol=1e-6)
    if norm == "l2":
        other = mislabeled.noise_control(jax.random.key(4), threat, made, IMAGES)
        assert np.abs(other.image - noisy.image).max() > 0.01


def test_unperturbed_control(d_rand):
    plain = mislabeled.unperturbed_control(d_rand, IMAGES)
    np.testing.assert_array_equal(plain.image, IMAGES)
    np.testing.assert_array_equal(plain.label, d_rand.label)
    assert not plain.distance.any()


def feature_free(made, resemblance, eps=0.8):
    return mislabeled.feature_free_control(
        jax.random.key(9), advfeat.l2(eps), made, IMAGES, resemblance, num_classes=CLASSES
    )


def test_feature_free_control_leaves_the_suitable_ones_alone(d_rand):
    control = feature_free(d_rand, np.zeros(COUNT))
    suits = d_rand.label == d_rand.original_label
    np.testing.assert_array_equal(control.image[suits], IMAGES[suits])
    np.testing.assert_array_equal(control.label, d_rand.label)
    moved = control.image - IMAGES
    far = np.array([oracle.length("l2", m.astype(np.float64)) for m in moved])
    np.testing.assert_allclose(far[~suits], 0.8, rtol=1e-4)
    np.testing.assert_allclose(control.distance, far, rtol=1e-4, atol=1e-6)
    # One pattern per class: wherever no pixel is clipped two images are moved alike.
    for label in range(CLASSES):
        rows = moved[~suits & (control.label == label)]
        free = (control.image > 0) & (control.image < 1)
        free = free[~suits & (control.label == label)]
        angle = [
            np.corrcoef(rows[0][both], other[both])[0, 1]
            for other, both in zip(rows[1:], free[1:] & free[0], strict=True)
        ]
        assert min(angle) > 0.999
    patterns = [moved[~suits & (control.label == label)].mean(0).ravel() for label in range(3)]
    assert np.abs(np.corrcoef(patterns)[np.triu_indices(3, 1)]).max() < 0.8


def test_feature_free_control_where_no_label_is_the_original(d_rand):
    made = d_rand._replace(label=(d_rand.original_label + 1) % CLASSES)
    resemblance = np.random.default_rng(1).permutation(COUNT).astype(float)
    control = feature_free(made, resemblance)
    untouched = np.flatnonzero(np.all(control.image == IMAGES, axis=(1, 2, 3)))
    # One in C, those that look most like the new label already.
    np.testing.assert_array_equal(untouched, np.flatnonzero(resemblance >= COUNT - COUNT // 3))
