"""Bad input ends with one ValueError that names the argument, before any work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import checks, saliency, stats, training
from advfeat.attacks import step_rules
from advfeat.features import mislabeled

IMAGES = np.full((4, 2, 3, 1), 0.5, np.float32)
LABELS = np.array([0, 1, 2, 0], np.int32)
KEY = jax.random.key(0)


def linear(x):
    return jnp.stack([x.sum(), x.max(), x.min()])


def with_pixel(value):
    images = IMAGES.copy()
    images[1, 0, 0, 0] = value
    return images


BAD_IMAGES = {
    "eight bit": np.zeros((2, 2, 2, 1), np.uint8),
    "8-bit range": IMAGES * 255,
    "negative": with_pixel(-0.01),
    "above 1": with_pixel(1.001),
    "NaN": with_pixel(np.nan),
    "infinite": with_pixel(np.inf),
    "one image": IMAGES[0],
    "flat": IMAGES.reshape(4, -1),
    "none": IMAGES[:0],
    "no pixel": np.zeros((2, 0, 2, 1), np.float32),
    "complex": IMAGES.astype(np.complex64),
    "objects": np.full((1, 1, 1, 1), None),
    "text": np.full((1, 1, 1, 1), "x"),
    "booleans": np.zeros((1, 1, 1, 1), bool),
}
BAD_LABELS = {
    "too large": np.array([0, 1, 2, 3]),
    "negative": np.array([0, 1, -1, 2]),
    "too few": np.array([0, 1]),
    "one-hot": np.eye(4, 3),
    "fractional": np.array([0.0, 1.0, 2.0, 0.0]),
    "booleans": np.array([True, False, True, False]),
    "scalar": np.int32(1),
    "a column": np.array([[0], [1], [2], [0]]),
    "names": np.array(["cat", "dog", "owl", "cat"]),
    "nothing": np.array([None] * 4),
}
# One of each way in which a label is used.
METHODS = {
    "objective": advfeat.pgd(advfeat.l2(0.3), steps=1),
    "targeted": advfeat.pgd(advfeat.l2(0.3), steps=1, objective=advfeat.targeted()),
    "linearised": advfeat.deepfool(advfeat.l2(0.3), steps=1),
    "pair": advfeat.apgd_targeted(advfeat.l2(0.3), steps=1, targets=1, loss="margin"),
    "noise": advfeat.uniform_noise(advfeat.l2(0.3)),
    "map": saliency.gradient(),
    "wrapped map": saliency.smoothgrad(saliency.gradient_times_input(), samples=2),
    "occlusion": saliency.occlusion(size=2),
}
BAD_IDS = {
    "too large": np.arange(4) + 2**32,
    "negative": np.arange(4) - 1,
    "fractional": np.arange(4.0),
    "too few": np.arange(3),
    "scalar": np.int32(3),
}
BAD_EPS = {
    "negative": -1e-9,
    "NaN": float("nan"),
    "minus infinity": -np.inf,
    "text": "large",
    "None": None,
    "complex": 1j,
    "array": jnp.array(-0.1),
    "digits": "0.1",
    "a list with None": [0.1, None],
}


def says(name, call):
    """Runs `call` and returns its one-line ValueError, which must name the argument."""
    with pytest.raises(ValueError, match=name) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200
    return message


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_images(case):
    bad = BAD_IMAGES[case]
    attack = advfeat.fgsm(advfeat.linf(0.1))
    says("photos", lambda: checks.check_images(bad, name="photos"))
    says("images", lambda: advfeat.predict(linear, bad))
    says("images", lambda: advfeat.correct(linear, bad, LABELS))
    says("images", lambda: advfeat.attack_dataset(KEY, attack, linear, bad, LABELS))
    says("images", lambda: mislabeled.construct(KEY, attack, linear, bad, LABELS, LABELS))


@pytest.mark.parametrize("case", sorted(set(BAD_IMAGES) - {"eight bit"}))
def test_images_of_a_training(case):
    says(
        "images",
        lambda: training.fit(
            KEY, None, {}, BAD_IMAGES[case], LABELS, training.TrainConfig(), num_classes=3
        ),
    )


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels(case):
    bad = BAD_LABELS[case]
    attack = advfeat.fgsm(advfeat.linf(0.1))
    says("truth", lambda: checks.check_labels(bad, num_classes=3, count=4, name="truth"))
    says("labels", lambda: advfeat.correct(linear, IMAGES, bad))
    for method in METHODS.values():
        says(
            "labels", lambda method=method: advfeat.attack_dataset(KEY, method, linear, IMAGES, bad)
        )
    says(
        "labels",
        lambda: training.fit(KEY, None, {}, IMAGES, bad, training.TrainConfig(), num_classes=3),
    )
    says("labels", lambda: mislabeled.construct(KEY, attack, linear, IMAGES, bad, LABELS))
    says("targets", lambda: mislabeled.construct(KEY, attack, linear, IMAGES, LABELS, bad))
    sweep = advfeat.evaluate_epsilons
    says("labels", lambda: sweep(KEY, lambda e: attack, linear, IMAGES, bad, [0.1]))


@pytest.mark.parametrize("case", BAD_EPS)
def test_eps(case):
    bad = BAD_EPS[case]
    says("radius", lambda: checks.check_eps(bad, name="radius"))
    for make in (advfeat.linf, advfeat.l2, advfeat.l1):
        says("eps", lambda make=make: make(bad))
    assert "NaN" not in says("eps", lambda: advfeat.linf(None))
    if bad is not None:
        says("step_size", lambda: advfeat.pgd(advfeat.l2(1.0), step_size=bad))
        says("step_size", lambda: advfeat.fgsm(advfeat.l2(1.0), step_size=bad))
    says(
        "epsilons",
        lambda: advfeat.evaluate_epsilons(KEY, lambda e: None, linear, IMAGES, LABELS, [0.1, bad]),
    )


@pytest.mark.parametrize("good", [0, 0.0, 8 / 255, 3, np.inf, np.float32(0.1), jnp.array(0.1)])
def test_any_eps_from_zero_to_infinity_is_welcome(good):
    threat = advfeat.l2(good)
    assert threat.eps.dtype == jnp.float32
    assert not threat.eps.weak_type
    assert float(threat.eps) == pytest.approx(float(good), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_every_floating_point_image_is_welcome(dtype):
    checks.check_images(np.asarray(IMAGES, dtype))
    if dtype != np.float64:
        checks.check_images(jnp.asarray(IMAGES, dtype))


@pytest.mark.parametrize("bad", [0, -3, 2.0, "4", None, True, np.nan])
def test_counts(bad):
    threat = advfeat.l2(1.0)
    says("steps", lambda: advfeat.pgd(threat, steps=bad))
    says("restarts", lambda: advfeat.pgd(threat, restarts=bad))
    says("restarts", lambda: advfeat.gaussian_noise(threat, restarts=bad))
    says("batch_size", lambda: advfeat.predict(linear, IMAGES, batch_size=bad))
    says("epochs", lambda: training.TrainConfig(epochs=bad))
    says("batch_size", lambda: training.TrainConfig(batch_size=bad))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("norm", lambda: advfeat.threat_model("l3", 1.0)),
        ("eps", lambda: advfeat.linf(jnp.array([0.1, 0.2]))),
        ("restarts", lambda: advfeat.pgd(advfeat.l2(1.0), restarts=2, random_start=False)),
        ("restarts", lambda: advfeat.pgd(advfeat.l2(1.0), restarts=2, keep=None)),
        ("decay", lambda: advfeat.momentum(-0.1)),
        ("decay", lambda: advfeat.momentum(np.nan)),
        ("steps", lambda: step_rules.annealed(advfeat.steepest, 0)),
        ("epsilons", lambda: advfeat.evaluate_epsilons(KEY, None, linear, IMAGES, LABELS, [])),
        (
            "ids",
            lambda: advfeat.attack_dataset(
                KEY, advfeat.fgsm(advfeat.l2(1.0)), linear, IMAGES, LABELS, ids=np.arange(3)
            ),
        ),
        ("num_classes", lambda: mislabeled.random_targets(KEY, LABELS, num_classes=1)),
        ("num_classes", lambda: mislabeled.deterministic_targets(LABELS, num_classes=0)),
        ("labels", lambda: mislabeled.deterministic_targets(LABELS, num_classes=2)),
        ("schedule", lambda: training.TrainConfig(schedule="warm")),
        ("schedule", lambda: training.schedule("warm", learning_rate=1.0, steps=3)),
        ("augment", lambda: training.TrainConfig(augment="rotate")),
        ("learning_rate", lambda: training.TrainConfig(learning_rate=0.0)),
        ("learning_rate", lambda: training.TrainConfig(learning_rate=np.nan)),
        ("momentum", lambda: training.TrainConfig(momentum=1.0)),
        ("weight_decay", lambda: training.TrainConfig(weight_decay=-1.0)),
        ("hits", lambda: stats.rate([])),
        ("hits", lambda: stats.rate(0.5)),
        ("hits", lambda: stats.rate(np.zeros((2, 2, 2)))),
        ("hits", lambda: stats.rate([0.0, np.nan])),
        ("hits", lambda: stats.rate([0, 2])),
        ("effect", lambda: stats.difference([], [])),
        ("control", lambda: stats.difference([1], 0.5)),
        ("same points", lambda: stats.difference([1, 0], [1, 0, 1])),
    ],
)
def test_other_arguments(name, call):
    says(name, call)


def test_checks_let_traced_values_pass():
    assert not jax.jit(lambda e: checks.check_eps(e) or jnp.bool_(checks.is_concrete(e)))(-1.0)
    threat = jax.jit(lambda e: advfeat.l2(e))(0.25)
    assert float(threat.eps) == 0.25


# --- What comes past the loops over a data set. ---------------------------------------------------


@pytest.mark.parametrize("case", METHODS)
def test_one_example_is_checked_too(case):
    method, x, model = METHODS[case], IMAGES[0], advfeat.as_model_fn(linear)
    in_box = "map" not in case and case != "occlusion"  # a gradient is there anywhere
    for bad in (-0.01, np.nan, np.inf, 255.0):
        if in_box or not np.isfinite(bad):
            says("x must", lambda bad=bad: method(KEY, model, with_pixel(bad)[1], 0))
    says("x must", lambda: method(KEY, model, np.zeros((2, 3, 1), np.uint8), 0))
    for bad in (3, -1, 0.0, True, None, "cat", np.eye(3)[0], np.array([0])):
        says("y must", lambda bad=bad: method(KEY, model, x, bad))
    for bad in (0, None, jnp.zeros(2), jax.random.split(KEY, 3), np.zeros(3, np.uint32)):
        says("key must", lambda bad=bad: method(bad, model, x, 0))


@pytest.mark.parametrize("case", METHODS)
def test_a_batch_is_checked_before_it_is_compiled(case):
    def batch(ids=np.arange(4), x=IMAGES, y=LABELS, key=KEY):
        return advfeat.attack_batch(key, METHODS[case], linear, x, y, ids=ids)

    for pixel in (-0.01, 1.001, np.nan, 255.0):
        says("x must", lambda pixel=pixel: batch(x=with_pixel(pixel)))
    says("x must", lambda: batch(x=np.zeros((4, 2, 3, 1), np.uint8)))
    says("x must", lambda: batch(x=IMAGES[0]))
    for bad in BAD_LABELS.values():
        says("y must", lambda bad=bad: batch(y=bad))
    for bad in BAD_IDS.values():
        says("ids must|one image per id", lambda bad=bad: batch(ids=bad))
    says("key must", lambda: batch(key=0))


def test_ids_of_a_batch_are_its_rows_unless_given():
    noise, x, y = METHODS["noise"], IMAGES, LABELS
    given = advfeat.attack_batch(KEY, noise, linear, x, y, ids=np.arange(len(x))).best.x
    np.testing.assert_array_equal(advfeat.attack_batch(KEY, noise, linear, x, y).best.x, given)
    says(
        "x must have a leading axis",
        lambda: advfeat.attack_batch(KEY, noise, linear, x[0, 0, 0, 0], y),
    )


@pytest.mark.parametrize("case", sorted(set(BAD_IDS) - {"scalar"}))
def test_ids(case):
    bad, attack = BAD_IDS[case], METHODS["objective"]
    says("ids", lambda: advfeat.attack_dataset(KEY, attack, linear, IMAGES, LABELS, ids=bad))
    says("ids", lambda: mislabeled.construct(KEY, attack, linear, IMAGES, LABELS, LABELS, ids=bad))
    says(
        "ids",
        lambda: training.fit(
            KEY, None, {}, IMAGES, LABELS, training.TrainConfig(), num_classes=3, ids=bad
        ),
    )


@pytest.mark.slow
def test_the_largest_ids_draw_numbers_of_their_own():
    def drawn(ids):
        noise = METHODS["noise"]
        one = advfeat.attack_batch(KEY, noise, linear, IMAGES, LABELS, ids=ids).best.x
        many = advfeat.attack_dataset(KEY, noise, linear, IMAGES, LABELS, ids=ids).best.x
        np.testing.assert_allclose(one, many, atol=1e-6)
        return np.asarray(one)

    large = np.arange(2**32 - 4, 2**32)
    assert not np.isclose(drawn(large), drawn(np.arange(4))).all(axis=(1, 2, 3)).any()


@pytest.mark.slow
def test_traced_values_pass_but_traced_shapes_do_not():
    attack = METHODS["objective"]

    @jax.jit
    def found(x, y):
        return attack(KEY, linear, x, y).best.x

    assert found(IMAGES[0] * 0 + 2, 7).shape == (2, 3, 1)
    says("y must", lambda: found(IMAGES[0], jnp.eye(3)[0]))
    says("x must", lambda: found(np.zeros((2, 3, 1), np.uint8), 0))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("image", np.zeros((4, 6), np.float32)),
        ("label", np.eye(4, dtype=np.float32)),
        ("label", np.zeros(4, np.float32)),
        ("id", np.zeros((4, 1), int)),
        ("weight", np.ones(4, int)),
        ("label", np.zeros(3, int)),
    ],
)
def test_a_training_batch(name, bad):
    batch = {"image": IMAGES, "label": LABELS, "id": np.arange(4), "weight": np.ones(4, np.float32)}
    batch = jax.tree.map(jnp.asarray, {**batch, name: bad})
    loss_fn = training.standard(None, advfeat.cross_entropy)
    says("batch", lambda: jax.jit(loss_fn)(KEY, {}, {}, batch))
