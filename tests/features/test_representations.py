"""Distances, orders and sensitivities of representations with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import advfeat
from advfeat import models, saliency
from advfeat.features import counterfactuals, representations
from advfeat.images import distortions, quality

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(6, 48)).astype(np.float32)
IMAGES = (0.3 + 0.4 * RNG.random((12, 4, 4, 3))).astype(np.float32)


def linear(x):
    return WEIGHTS @ x.ravel()


ordered = jax.jit(representations.rank_agreement, static_argnums=0)


def itself(x):
    return x


def all_alike(x):
    return 0 * x + 1


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 5.0), min_size=2, max_size=6, unique=True))
def test_distances_that_grow_are_ordered_and_others_are_not(lengths):
    x = np.ones(3, np.float32)
    grown = np.array([x + length for length in sorted(lengths)], np.float32)
    if len(np.unique(grown, axis=0)) < len(grown):
        return
    assert float(ordered(itself, x, grown)) == 1.0
    assert float(ordered(itself, x, grown[::-1])) == 0.0
    assert float(ordered(all_alike, x, grown)) == 0.5


@pytest.mark.slow
def test_sensitivity_of_a_linear_layer_is_its_spectral_norm():
    found = representations.layer_sensitivity(
        KEY, linear, IMAGES, advfeat.l2(0.2), steps=60, batch_size=5
    )
    assert found.moved.shape == found.apart.shape == (12,)
    norm = np.linalg.norm(WEIGHTS, 2)
    assert np.all(found.moved <= 0.2 * norm * (1 + 1e-4))
    assert found.moved.mean() > 0.9 * 0.2 * norm
    far = [np.linalg.norm(WEIGHTS @ (a - b).ravel()) for a in IMAGES for b in IMAGES]
    assert min(f for f in far if f > 0) - 1e-3 <= found.apart.min()
    assert found.apart.max() <= max(far) + 1e-3
    np.testing.assert_allclose(found.ratio, found.moved.mean() / found.apart.mean())


def test_bad_representations():
    with pytest.raises(ValueError, match="graded must hold at least two"):
        representations.rank_agreement(linear, IMAGES[0], jnp.asarray(IMAGES[:1]))
    with pytest.raises(ValueError, match="images must be at least two"):
        representations.layer_sensitivity(KEY, linear, IMAGES[:1], advfeat.l2(0.1))
    with pytest.raises(ValueError, match="count must be at least 2"):
        representations.interpolate(jnp.zeros(3), jnp.ones(3), 1)
    with pytest.raises(ValueError, match="of one shape"):
        representations.interpolate(jnp.zeros(3), jnp.ones(4), 3)
    with pytest.raises(ValueError, match=r"count must lie in \[1, 3\]"):
        representations.extremes(np.zeros(3), 4)


@pytest.mark.parametrize("name", distortions.DISTORTIONS)
def test_distortions_grow_from_nothing(name):
    images = np.stack([np.kron(RNG.random((4, 4, 3)), np.ones((4, 4, 1))) for _ in range(5)])
    made = distortions.graded(name, images, (0.0, 0.25, 0.5, 1.0))
    assert made.shape == (5, 4, 16, 16, 3)
    assert made.dtype == np.float32
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_allclose(made[:, 0], images, atol=1e-6)
    far = np.sqrt(((made - images[:, None]) ** 2).mean((2, 3, 4))).mean(0)
    assert np.all(np.diff(far) > 0)
    np.testing.assert_array_equal(made, distortions.graded(name, images, (0.0, 0.25, 0.5, 1.0)))


def test_bad_distortions():
    with pytest.raises(ValueError, match="name must be one of noise"):
        distortions.graded("fog", IMAGES, (0.5,))
    with pytest.raises(ValueError, match=r"strengths must lie in \[0, 1\]"):
        distortions.graded("blur", IMAGES, (1.5,))


def test_frechet_distance_of_gaussians_is_that_of_the_formula():
    rng = np.random.default_rng(1)
    one = rng.normal(size=(20_000, 3)) * [1.0, 2.0, 0.5]
    other = rng.normal(size=(20_000, 3)) * [2.0, 1.0, 0.5] + [1.0, 0.0, 0.0]
    wanted = 1.0 + (1 - 2) ** 2 + (2 - 1) ** 2
    assert abs(quality.frechet_distance(one, other) - wanted) < 0.15
    assert quality.frechet_distance(one, one) < 1e-9
    # rotations of both leave it alone; a singular covariance does not break it
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = quality.frechet_distance(one @ turn, other @ turn)
    np.testing.assert_allclose(turned, quality.frechet_distance(one, other), rtol=1e-6)
    assert quality.frechet_distance(one[:, :1].repeat(3, 1), other) > 0


def test_diversity_by_hand():
    points = RNG.normal(size=(7, 3))
    far = [np.linalg.norm(points[i] - points[j]) for i in range(7) for j in range(7) if i != j]
    np.testing.assert_allclose(quality.mean_pairwise_distance(points), np.mean(far), rtol=1e-9)
    np.testing.assert_allclose(
        quality.mean_pairwise_distance(points + 1e6), np.mean(far), rtol=1e-8
    )
    assert quality.mean_pairwise_distance(np.ones((5, 4))) == 0.0
    # An offset moves all of them alike; through squares it would cost the digits that differ.
    near = 1e-3 * points
    np.testing.assert_allclose(
        quality.mean_pairwise_distance(near + 1e6), 1e-3 * np.mean(far), rtol=1e-5
    )


def test_similarity():
    image = RNG.random((12, 12, 3))
    assert quality.ssim(image, image) == pytest.approx(1.0)
    assert quality.ssim(image, 1 - image) < 0.2
    # Equal images are as good as any that differ by less than 8 bits show, and means are numbers.
    assert quality.psnr(image, image) == pytest.approx(10 * np.log10(12 * 255**2))
    assert quality.psnr(image, image + 1e-4) == quality.psnr(image, image)
    assert quality.psnr(image, image + 0.01) == pytest.approx(40)
    assert quality.ssim(image[:4, :4], image[:4, :4]) == pytest.approx(1.0)
    for bad in (
        lambda: quality.ssim(image, image[:5]),
        lambda: quality.psnr(image, image[:5]),
        lambda: quality.ssim(image[:2], image[:2]),
        lambda: quality.frechet_distance(np.zeros((3, 2)), np.zeros((3, 4))),
        lambda: quality.frechet_distance(np.zeros((1, 2)), np.zeros((3, 2))),
        lambda: quality.mean_pairwise_distance(np.zeros((1, 2))),
    ):
        with pytest.raises(ValueError, match=r"image|features"):
            bad()


# Counterfactuals: a classifier of two layers whose features are known.

HEAD = np.array([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 0.1]], np.float32)
BEFORE = np.linalg.qr(np.random.default_rng(3).normal(size=(48, 4)))[0].T.astype(np.float32)


def first(x):
    return BEFORE @ x.ravel()


def test_the_features_that_speak_for_the_label():
    network = saliency.split(first, lambda r: r @ HEAD)
    scale = jnp.array([1.0, 2.0, 0.1, 1.0])
    gains = (HEAD[:, 0] - HEAD[:, 1]) * np.asarray(scale)
    found = counterfactuals.supporting(network, jnp.asarray(IMAGES[0]), 0, 1, scale, count=2)
    assert found.units.tolist() == np.argsort(-gains)[:2].tolist()
    np.testing.assert_allclose(found.gains, np.sort(gains)[::-1][:2], rtol=1e-4)
    np.testing.assert_allclose(np.flatnonzero(np.asarray(found.weights)), np.sort(found.units))


@pytest.mark.slow
def test_enhancing_them_is_the_shortest_way_along_them():
    network = saliency.split(first, lambda r: r @ HEAD)
    x = jnp.asarray(IMAGES[1])
    logits = np.asarray(network(x))
    wrong = int(np.argmax(logits))
    label = (wrong + 1) % 3
    found = counterfactuals.supporting(network, x, label, wrong, jnp.ones(4), count=1)
    unit = int(found.units[0])
    attack = counterfactuals.enhance(eps=3.0, steps=300, step_size=0.01)
    best = attack(KEY, network, x, (found.weights, label)).best
    # Rows of BEFORE are orthonormal: a step along one raises that unit only. How far until the
    # label leads all others, pixels staying inside the box?
    slope = HEAD[unit, label] - HEAD[unit]
    gap = logits - logits[label]
    need = (
        max(g / s for g, s in zip(gap, slope, strict=True) if g > 0)
        if all(s > 0 for g, s in zip(gap, slope, strict=True) if g > 0)
        else np.inf
    )
    if bool(best.success):
        assert abs(float(best.distance) - need) < 0.02
    else:
        assert need > 2.5 or need == np.inf
    moved = np.asarray(first(best.x) - first(x))
    assert moved[unit] > 5 * np.abs(np.delete(moved, unit)).max()


@pytest.mark.slow
def test_enhancing_in_a_network_of_ours():
    model = models.create("resnet9", num_classes=4, width=4)
    variables = models.init(KEY, model, (8, 8, 3))
    network = models.split_fn(model, variables, layer="representation")
    x = jnp.asarray(RNG.random((8, 8, 3)), jnp.float32)
    activations, logits = network.both(x)
    np.testing.assert_allclose(activations, network.activations(x), rtol=1e-5)
    np.testing.assert_allclose(logits, network(x), rtol=1e-5)
    predicted = int(jnp.argmax(logits))
    label = (predicted + 1) % 4
    scale = jnp.ones(activations.shape[-1])
    found = counterfactuals.supporting(network, x, label, predicted, scale)
    best = counterfactuals.enhance(steps=5)(KEY, network, x, (found.weights, label)).best
    assert float(jnp.sum(network.activations(best.x) * found.weights)) > float(
        jnp.sum(activations * found.weights)
    )
    with pytest.raises(ValueError, match=r"scale must have shape \(16,\)"):
        counterfactuals.supporting(network, x, 0, 1, jnp.ones(3))
    with pytest.raises(ValueError, match="features of a layer need a network"):
        counterfactuals.supporting(lambda x: x, x, 0, 1, scale)
    with pytest.raises(ValueError, match="count must be at most 16"):
        counterfactuals.supporting(network, x, 0, 1, scale, count=17)


def test_units_of_a_layer_and_channels_by_their_means():
    units = representations.unit_values(linear, IMAGES)
    np.testing.assert_allclose(units, IMAGES.reshape(12, -1) @ WEIGHTS.T, rtol=1e-4, atol=1e-4)
    channels = representations.unit_values(lambda x: 2 * x, IMAGES)
    np.testing.assert_allclose(channels, 2 * IMAGES.mean(axis=(1, 2)), rtol=1e-5)


def _inner(key, model_fn, x, y):
    del key
    label, other = y
    return model_fn(x)[label] + jnp.sum(x * other)


@pytest.mark.parametrize("batch_size", [5, 12])
def test_aims_of_several_arrays_go_batch_by_batch(batch_size):
    labels, others = np.arange(12) % 6, RNG.normal(size=IMAGES.shape).astype(np.float32)
    found = advfeat.attack_dataset(
        KEY, _inner, linear, IMAGES, (labels, others), batch_size=batch_size
    )
    expected = (IMAGES.reshape(12, -1) @ WEIGHTS.T)[np.arange(12), labels]
    expected += (IMAGES * others).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_aims_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"labels must hold 12 entries.*\(11, 3\)"):
        advfeat.attack_dataset(KEY, _inner, linear, IMAGES, (np.arange(12) % 6, np.ones((11, 3))))


def test_classes_in_an_aim_of_several_arrays_are_checked():
    labels = np.r_[np.arange(11) % 6, 99]
    with pytest.raises(ValueError, match="99"):
        advfeat.attack_dataset(KEY, _inner, linear, IMAGES, (labels, IMAGES))


def test_a_probe_reads_classes_that_lie_apart_and_directions_lead_to_them():
    centres = 3 * RNG.normal(size=(3, 5))
    labels = np.arange(60) % 3
    values = centres[labels] + 0.1 * RNG.normal(size=(60, 5))
    predict = representations.linear_probe(values[::2], labels[::2])
    assert (predict(values[1::2]) == labels[1::2]).mean() > 0.95
    found = representations.class_directions(values, labels, [2, 0])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0)
    wanted = centres[[2, 0]] - centres.mean(0)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=0.05)
