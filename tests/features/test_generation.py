"""Pictures by ascent where the best picture is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import data, models, zoo
from advfeat.attacks.keeping import by_score
from advfeat.evaluation.prediction import predict
from advfeat.features import generation
from advfeat.images import augmentation, parametrisations
from advfeat.objectives.features import (
    class_score,
    direction,
    diverse,
    inversion,
    masked,
    painted,
    unit,
)

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SHAPE, UNITS = (4, 4, 3), 5
WEIGHTS = RNG.normal(size=(UNITS, 48)).astype(np.float32)
X = (0.3 + 0.4 * RNG.random(SHAPE)).astype(np.float32)


def linear(x):
    return WEIGHTS @ x.ravel()


def one(attack, fn, x, y):
    return advfeat.attack_batch(
        KEY, attack, fn, jnp.asarray(x)[None], jax.tree.map(lambda a: a[None], y), ids=jnp.arange(1)
    )


@pytest.mark.slow_for("0")
@pytest.mark.parametrize("unit", [0, 3])
def test_the_best_picture_of_a_linear_unit_lies_along_its_weights(unit):
    attack = generation.maximise(eps=0.5, steps=20, step_size=0.05)
    found = one(attack, linear, X, jnp.array(unit)).best.x[0]
    wanted = X + 0.5 * (WEIGHTS[unit] / np.linalg.norm(WEIGHTS[unit])).reshape(SHAPE)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.slow
def test_without_a_bound_the_box_bounds():
    attack = generation.maximise(steps=400, step_size=0.2)
    found = one(attack, linear, X, jnp.array(1)).best.x[0]
    assert found.shape == SHAPE
    weights = WEIGHTS[1].reshape(SHAPE)
    fast = np.abs(weights) > 0.2  # a pixel goes as fast as its weight is large
    np.testing.assert_allclose(found[fast], (weights > 0)[fast], atol=1e-3)
    assert np.all((np.asarray(found) - X)[~fast] * weights[~fast] >= 0)


def test_a_direction_is_a_sum_of_units():
    attack = generation.maximise(eps=0.3, steps=20, step_size=0.05, objective=direction())
    weights = jnp.asarray(RNG.normal(size=UNITS), jnp.float32)
    found = one(attack, linear, X, weights).best.x[0]
    way = np.asarray(weights) @ WEIGHTS
    wanted = X + 0.3 * (way / np.linalg.norm(way)).reshape(SHAPE)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("score", [unit(), class_score(), class_score(log_probability=True)])
def test_what_is_out_of_range_has_no_score(score):
    for index in (UNITS, 999, -1):
        for compiled in (False, True):
            look = (
                jax.jit(lambda i: score(KEY, linear, X, i)[0])
                if compiled
                else (lambda i: score(KEY, linear, X, i)[0])
            )
            assert np.isnan(look(index)), (index, compiled)
    assert np.isfinite(score(KEY, linear, X, UNITS - 1)[0])


def test_a_direction_is_of_the_layers_shape():
    for aim in (1, jnp.ones(1), jnp.ones((UNITS, 1))):
        with pytest.raises(ValueError, match=r"a direction must have the layer's shape"):
            direction()(KEY, linear, X, aim)


@pytest.mark.slow
def test_inversion_of_an_invertible_layer_finds_the_image():
    square = RNG.normal(size=(48, 48)).astype(np.float32) + 6 * np.eye(48, dtype=np.float32)
    wanted = RNG.random(SHAPE).astype(np.float32)
    attack = generation.invert(steps=600, step_size=0.02)
    layer = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), square)
    found = one(attack, layer, X, jnp.asarray(square @ wanted.ravel())).best
    assert bool(found.success[0])
    assert np.abs(found.x[0] - wanted).mean() < 0.02
    start = np.linalg.norm(square @ (X - wanted).ravel()) / np.linalg.norm(square @ wanted.ravel())
    assert -float(found.score[0]) < start / 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_standard", "cifar10_l2_robust"])
def test_inversions_end_nearer_than_by_steps_of_one_length(name):
    network, images = zoo.load(name), data.unit(data.samples("cifar10").image[::12])
    fn = models.model_fn(
        models.with_fake_relu(network.spec.build()), network.variables, layer="representation"
    )
    aims = jnp.asarray(predict(network.model_fn("representation"), images))
    threat, starts = advfeat.l2(), np.roll(images, 1, axis=0)
    ways = {
        "ours": generation.invert(),
        "one length": advfeat.pgd(
            threat,
            steps=300,
            step_size=0.1,
            random_start=False,
            objective=inversion(),
            keep=by_score,
        ),
    }
    apart = {
        way: -np.asarray(advfeat.attack_dataset(KEY, attack, fn, starts, aims).best.score)
        for way, attack in ways.items()
    }
    print(name, *(f"{way} {values.mean():.3f}" for way, values in apart.items()))
    assert apart["ours"].mean() < apart["one length"].mean()


@pytest.mark.slow
def test_a_generated_image_is_of_its_class_and_near_its_seed():
    attack = generation.generate(eps=2.5, steps=30)
    for label in range(UNITS):
        found = one(attack, linear, X, jnp.array(label)).best
        assert int(np.argmax(linear(np.asarray(found.x[0])))) == label
        assert float(found.distance[0]) <= 2.5 + 1e-5


@pytest.mark.slow
def test_inpainting_leaves_the_rest_as_it_is():
    mask = jnp.zeros((4, 4)).at[:2].set(1.0)
    image = jnp.asarray(X)
    changes = {}
    for weight in (0.0, 10.0):
        attack = generation.inpaint(eps=2.0, steps=60, step_size=0.05, weight=weight)
        found = one(attack, linear, X, (jnp.array(2), image, mask)).best
        moved = np.abs(np.asarray(found.x[0]) - X).mean(-1)
        changes[weight] = moved[2:].mean() / moved[:2].mean()
    assert changes[10.0] < 0.1 < 0.3 < changes[0.0]


def test_masked_scores_by_hand():
    mask = np.zeros((4, 4), np.float32)
    mask[0] = 1
    other = RNG.random(SHAPE).astype(np.float32)
    aim = (jnp.array(2), jnp.asarray(other), jnp.asarray(mask))
    kept = np.mean(((X - other) * (1 - mask)[..., None]) ** 2)
    logits = WEIGHTS @ X.ravel()
    loss = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[2]
    score, _ = masked(weight=7.0)(KEY, linear, jnp.asarray(X), aim)
    np.testing.assert_allclose(score, -loss - 7 * kept, rtol=1e-4)
    score, active = painted()(KEY, linear, jnp.asarray(X), aim)
    np.testing.assert_allclose(score, 0.1 * logits[2] - 90 * kept, rtol=1e-4)
    assert bool(active) == (logits[2] > 0)


def test_seeds_have_the_mean_and_covariance_of_their_class():
    count, side = 3000, 4
    labels = np.arange(count) % 2
    blobs = np.clip(RNG.normal(0.5, 0.08, (count, side, side, 1)), 0, 1)
    blobs[labels == 1] *= 0.5
    images = np.repeat(np.repeat(blobs, 2, 1), 2, 2).astype(np.float32)
    seeds = generation.fit_seeds(images, labels, num_classes=2, side=4)
    flat = blobs[labels == 1].reshape(-1, 16)
    np.testing.assert_allclose(seeds.mean[1], flat.mean(0), atol=1e-5)
    covariance = np.asarray(seeds.factor[1] @ seeds.factor[1].T)
    np.testing.assert_allclose(
        covariance, np.cov(flat, rowvar=False, bias=True) + 1e-4 * np.eye(16), atol=1e-6
    )
    draws = jax.vmap(lambda k: seeds.draw(k, jnp.array(1), (8, 8)))(jax.random.split(KEY, 500))
    assert draws.shape == (500, 8, 8, 1)
    np.testing.assert_array_equal(draws[:, ::2, ::2], draws[:, 1::2, 1::2])
    mean = draws[:, ::2, ::2].reshape(500, 16).mean(0)
    np.testing.assert_allclose(mean, seeds.mean[1], atol=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 3}, "side must divide the images' height and width, 8 and 8, got 3"),
        ({"side": (4, 3)}, r"height and width, 8 and 8, got \(4, 3\)"),
        ({"num_classes": 3}, "labels must hold class 2 at least twice, got 0"),
        ({"side": 0}, "side must be a whole number"),
        ({"images": np.zeros((4, 8, 8, 1), np.uint8)}, "images must be floating point"),
    ],
)
def test_bad_seeds(options, words):
    given = {
        "images": np.zeros((4, 8, 8, 1), np.float32),
        "labels": np.array([0, 1, 0, 1]),
        "num_classes": 2,
        "side": 4,
        **options,
    }
    images, labels = given.pop("images"), given.pop("labels")
    with pytest.raises(ValueError, match=words):
        generation.fit_seeds(images, labels, **given)


@pytest.mark.slow
def test_adding_a_feature_stops_at_its_level():
    here = float(linear(X)[1])
    attack = generation.add_feature(steps=200, step_size=0.02, level=here + 0.5)
    best = one(attack, linear, X, jnp.array(1)).best
    assert bool(best.success[0])
    # the nearest image at that level is half a unit along the weights
    assert float(best.distance[0]) < 0.5 / np.linalg.norm(WEIGHTS[1]) + 0.04


@pytest.mark.slow
def test_painting_stays_within_its_mask():
    mask = jnp.zeros((4, 4)).at[1:3, 1:3].set(1.0)
    attack = generation.paint(eps=1.0, steps=80, step_size=0.02)
    best = one(attack, linear, X, (jnp.array(0), jnp.asarray(X), mask)).best.x[0]
    inside = np.asarray(mask, bool)
    assert np.abs(best - X)[inside].mean() > 10 * np.abs(best - X)[~inside].mean()
    assert float(linear(best)[0]) > float(linear(X)[0])


@pytest.mark.slow
def test_pictures_of_a_dead_unit_need_the_remedy():
    model = models.create("cnn", num_classes=3, width=2)
    variables = models.init(KEY, model, (8, 8, 3))
    dense, start = variables["params"]["dense"], jnp.full((8, 8, 3), 0.2)
    dense["kernel"] = dense["kernel"].at[:, 0].set(jnp.abs(dense["kernel"][:, 0]))
    representation = models.model_fn(model, variables, layer="representation")
    # a unit that is just off at the start, and on for brighter images
    dense["bias"] = dense["bias"].at[0].set(-0.1 - representation(start)[0])
    ways = {}
    for name, network in (("plain", model), ("remedy", models.with_fake_relu(model))):
        fn = models.model_fn(network, variables, layer="representation")
        attack = generation.maximise(steps=60, step_size=0.5)
        ways[name] = attack(KEY, fn, start, jnp.array(0)).last
    assert float(ways["plain"].distance) == 0.0
    assert float(ways["remedy"].score) > 0.0
    same = models.model_fn(models.with_fake_relu(model), variables)(start)
    np.testing.assert_array_equal(same, models.model_fn(model, variables)(start))


@pytest.mark.slow
def test_a_fourier_picture_is_smoother_and_as_strong():
    model = models.create("resnet9", num_classes=4, width=4)
    variables = models.init(KEY, model, (16, 16, 3))
    fn = models.model_fn(model, variables, layer="block2")
    start = jnp.full((16, 16, 3), 0.5)

    def roughness(space):
        attack = generation.maximise(eps=4.0, steps=30, step_size=0.4, space=space)
        best = attack(KEY, fn, start, jnp.array(2)).best
        x = np.asarray(best.x)
        return np.abs(np.diff(x, axis=0)).mean() / x.std(), float(best.score)

    plain, smooth = roughness(None), roughness(parametrisations.fourier())
    assert smooth[0] < 0.8 * plain[0]
    assert smooth[1] > float(jnp.mean(fn(start)[..., 2]))


@pytest.mark.slow
def test_diverse_pictures_differ_more():
    model = models.create("cnn", num_classes=4, width=4)
    variables = models.init(KEY, model, (8, 8, 3))
    fn = models.model_fn(model, variables, layer="block2")
    start = 0.5 + 0.02 * jax.random.normal(KEY, (3, 8, 8, 3))
    apart = {}
    for weight in (0.0, 20.0):
        attack = generation.maximise(
            steps=40, step_size=0.5, objective=diverse(unit(), weight=weight)
        )
        best = attack(KEY, fn, start, jnp.array(1)).best.x
        flat = np.asarray(jax.vmap(fn)(best)).reshape(3, -1, 8)
        gram = np.einsum("npi,npj->nij", flat, flat).reshape(3, -1)
        gram /= np.linalg.norm(gram, axis=1, keepdims=True)
        apart[weight] = (gram @ gram.T)[np.triu_indices(3, 1)].mean()
    assert apart[20.0] < apart[0.0] - 0.05


@pytest.mark.slow
def test_several_pictures_in_frequencies_and_through_views():
    attack = generation.maximise(
        eps=1.0,
        steps=4,
        step_size=0.2,
        space=parametrisations.fourier(),
        transform=augmentation.random_affine(),
        objective=diverse(unit(), weight=0.5),
    )
    start = jnp.full((2, 4, 4, 3), 0.5)
    network = jax.tree_util.Partial(lambda weights, x: weights @ x.ravel(), jnp.asarray(WEIGHTS))
    best = attack(KEY, network, start, jnp.array(1)).best
    assert best.x.shape == (2, 4, 4, 3)
    assert float(jax.vmap(linear)(best.x)[:, 1].mean()) > float(linear(start[0])[1])


@pytest.mark.parametrize("objective", [masked(), painted()])
def test_masks_and_images_of_another_shape_are_refused(objective):
    x = jnp.asarray(X)
    with pytest.raises(ValueError, match=r"mask must have shape \(4, 4\), got \(4, 4, 1\)"):
        objective(KEY, linear, x, (jnp.array(0), x, jnp.zeros((4, 4, 1))))
    with pytest.raises(ValueError, match=r"image must have shape \(4, 4, 3\)"):
        objective(KEY, linear, x, (jnp.array(0), x[:, :, :1], jnp.zeros((4, 4))))


def test_a_representation_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the aim must have the activations' shape \(5,\)"):
        inversion()(KEY, linear, jnp.asarray(X), jnp.zeros((1, 5)))


@pytest.mark.slow
def test_a_unit_that_does_not_exist_is_refused():
    images = np.stack([X, X])
    for layer in (linear, lambda x: x):
        with pytest.raises(ValueError, match="labels must"):
            advfeat.attack_dataset(
                KEY, generation.maximise(steps=2), layer, images, np.array([0, 99])
            )
