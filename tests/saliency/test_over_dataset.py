"""Maps over a set of images: of every method, their rankings, measures and randomisation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import models, saliency
from advfeat.models.network import Network, NetworkSpec
from advfeat.saliency import measures, over_dataset, sanity

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SPEC = NetworkSpec("cnn", ("a", "b", "c"), (8, 8, 1), width=4)
NETWORK = Network(SPEC, models.init(KEY, SPEC.build(), SPEC.input_shape), {})
IMAGES = RNG.random((6, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(6) % 3
OPTIONS = saliency.Options(samples=2, steps=2, baselines=IMAGES)
TRACED = [name for name, method in saliency.METHODS.items() if not method.on_host]


def test_maps_are_those_of_the_methods_one_by_one():
    names = ("gradient", "smoothgrad", "grad_cam", "guided_backpropagation")
    found = saliency.maps(KEY, names, NETWORK, IMAGES, LABELS, options=OPTIONS)
    assert list(found) == list(names)
    fn, split = NETWORK.model_fn(), models.split_fn(SPEC.build(), NETWORK.variables, layer="block3")
    wanted = {
        "gradient": (saliency.gradient(), fn),
        "smoothgrad": (saliency.smoothgrad(samples=2, sigma=0.15), fn),
        "grad_cam": (saliency.grad_cam(), split),
    }
    for name, (method, network) in wanted.items():
        key = advfeat.keys.stream(KEY, name)
        alone = advfeat.attack_dataset(key, method, network, IMAGES, LABELS, batch_size=5)
        np.testing.assert_array_equal(found[name], np.asarray(alone))
    assert (found["guided_backpropagation"] != found["gradient"]).any()


def test_a_function_suffices_for_what_needs_no_other_form():
    fn = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), RNG.normal(size=(3, 64)))
    names = [name for name in TRACED if name not in ("guided_backpropagation", "grad_cam")]
    found = saliency.maps(KEY, names, fn, IMAGES, LABELS, options=OPTIONS)
    assert {values.shape[:3] for values in found.values()} == {(6, 8, 8)}
    with pytest.raises(ValueError, match="rectifier that can be replaced"):
        saliency.maps(KEY, ["guided_backpropagation"], fn, IMAGES, LABELS)
    with pytest.raises(ValueError, match="lets it be reached"):
        saliency.maps(KEY, ["grad_cam"], fn, IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"methods must be among .* got 'limes'"):
        saliency.maps(KEY, ["limes"], fn, IMAGES, LABELS)
    with pytest.raises(ValueError, match="baselines must hold images for expected_gradients"):
        saliency.maps(KEY, ["expected_gradients"], fn, IMAGES, LABELS)


def test_the_layer_of_grad_cam():
    assert NETWORK.spatial_layer() == "block3"
    assert NETWORK.spatial_layer("block1") == "block1"
    with pytest.raises(ValueError, match="layer 'logits' has no positions"):
        NETWORK.spatial_layer("logits")
    with pytest.raises(ValueError, match="unknown layer 'blok'; there are block1"):
        NETWORK.spatial_layer("blok")
    spec = NetworkSpec("linear", ("a", "b"), (8, 8, 1))
    flat = Network(spec, models.init(KEY, spec.build(), spec.input_shape), {})
    with pytest.raises(ValueError, match="linear has no layer with positions"):
        flat.split_fn()


def test_measures_have_one_value_an_image():
    maps = saliency.maps(KEY, ("gradient", "occlusion"), NETWORK, IMAGES, LABELS)
    fn = NETWORK.model_fn()
    missed = saliency.infidelities(KEY, maps, fn, IMAGES, LABELS, samples=5)
    assert set(missed) == {"gradient"}
    assert missed["gradient"].shape == (6,)
    moved = saliency.sensitivities(KEY, ("gradient", "lime"), NETWORK, IMAGES, LABELS, samples=2)
    assert set(moved) == {"gradient"}
    assert (moved["gradient"] > 0).all()


def test_randomised_weights_change_the_gradient_and_not_the_edges():
    fresh = models.init(jax.random.key(1), SPEC.build(), SPEC.input_shape)
    order, seen = models.module_names(SPEC.build(), SPEC.input_shape), []

    def maps_of(variables):
        network = dataclasses.replace(NETWORK, variables=variables)
        found = saliency.maps(KEY, ["gradient"], network, IMAGES, LABELS)
        return {**found, "edges": np.array([saliency.edges(image) for image in IMAGES])}

    for how in saliency.RANDOMISED:
        found = saliency.randomisation_test(
            how, maps_of, NETWORK.variables, fresh, order, on_module=seen.append
        )
        assert found.modules == tuple(reversed(order)) == tuple(seen[-len(order) :])
        assert found.rank["gradient"].shape == (len(IMAGES), len(order))
        assert found.rank["gradient"].mean() < 0.9
        np.testing.assert_allclose(found.ssim["edges"], 1.0)
        assert len(found.first["gradient"]) == len(order) + 1
    with pytest.raises(ValueError, match="how must be one of cascading, independent"):
        saliency.randomisation_test("at once", maps_of, NETWORK.variables, fresh, order)


def test_cosines_by_hand():
    one = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(saliency.cosines(one, 3 * one), [1.0, 0.0])
    np.testing.assert_allclose(saliency.cosines(one, one + 5, centred=True), [1.0, 0.0])
    aligned = saliency.alignment(jnp.asarray(one[0]), jnp.array([1.0, -1.0, 0.5]))
    cosine = saliency.cosines(one[:1], np.array([[1.0, -1.0, 0.5]]))
    np.testing.assert_allclose(abs(cosine[0]) * np.linalg.norm(one[0]), aligned, rtol=1e-6)


def test_curves_of_a_network_that_counts_one_pixel():
    """Its own pixel ranked first is lost at once; ranked last, at the end."""
    images = np.full((2, 8, 8, 1), 0.5, np.float32)
    images[:, 3, 3] = 1.0
    right = np.zeros((2, 8, 8), np.float32)
    right[:, 3, 3] = 1.0

    def fn(x):
        return jax.numpy.stack([50.0 * (x[3, 3, 0] - 0.75), jax.numpy.zeros(())])

    found = saliency.curves(KEY, {"right": right, "wrong": 1 - right}, fn, images, np.zeros(2, int))
    last = measures.CURVE_STEPS
    np.testing.assert_allclose(found["right"][0], [[1.0] + [0.0] * last] * 2, atol=1e-3)
    np.testing.assert_allclose(found["wrong"][0], [[1.0] * last + [0.0]] * 2, atol=1e-3)
    # A blurred pixel is below 0.75.
    np.testing.assert_allclose(found["right"][1], [[0.0] + [1.0] * last] * 2, atol=1e-3)


def test_signs_count_for_attributions_only():
    values = np.array([[[[-3.0], [1.0]]]])
    assert saliency.ranking("integrated_gradients", values).tolist() == [[[-3.0, 1.0]]]
    assert saliency.ranking("gradient", values).tolist() == [[[3.0, 1.0]]]


def test_the_cascade_draws_statistics_anew_too():
    variables = {"params": {"a": {"w": 1}, "b": {"w": 2}}, "batch_stats": {"a": {"m": 3}}}
    modules = sanity._by_module(variables)
    assert modules["a"] == {"params": {"w": 1}, "batch_stats": {"m": 3}}
    assert sanity._by_collection(modules) == variables


def test_lime_covers_patches_of_what_the_network_looks_at():
    """A network that looks at one corner: the patch there has all the weight."""

    def corner(x):
        bright = x[:4, :4].mean()
        return jax.numpy.stack([8.0 * bright, 0.0 * bright])

    rng = np.random.default_rng(0)
    for channels in (1, 3):
        images = (0.2 + 0.1 * rng.random((2, 16, 16, channels))).astype(np.float32)
        images[:, :4, :4] += 0.6
        found = saliency.lime(samples=200)(KEY, corner, images, np.zeros(2, int))
        assert found.shape == (2, 16, 16)
        for weights in found:
            rest = np.abs(weights)[8:, 8:]
            assert np.abs(weights[:4, :4]).max() > 5 * rest.max()


def test_side_by_side_keeps_names_and_failures():
    found = over_dataset.side_by_side(lambda name: name * 2, ["b", "a", "c"])
    assert list(found.items()) == [("b", "bb"), ("a", "aa"), ("c", "cc")]
    with pytest.raises(ZeroDivisionError):
        over_dataset.side_by_side(lambda name: 1 // 0, ["a", "b"])
