"""Bad input ends with one ValueError that names the argument, before any work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import checks, constructed, stats, steps, training

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
}
BAD_EPS = {
    "negative": -1e-9,
    "NaN": float("nan"),
    "minus infinity": -np.inf,
    "text": "large",
    "None": None,
    "complex": 1j,
    "array": jnp.array(-0.1),
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
    says("images", lambda: advfeat.accuracy(linear, bad, LABELS))
    says("images", lambda: advfeat.attack_dataset(attack, KEY, linear, bad, LABELS))
    says("images", lambda: constructed.construct(KEY, attack, linear, bad, LABELS, LABELS))


@pytest.mark.parametrize("case", sorted(set(BAD_IMAGES) - {"eight bit"}))
def test_images_of_a_training(case):
    says("images", lambda: training.fit(
        KEY, None, {}, BAD_IMAGES[case], LABELS, training.Fit(), num_classes=3
    ))


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels(case):
    bad = BAD_LABELS[case]
    attack = advfeat.fgsm(advfeat.linf(0.1))
    says("truth", lambda: checks.check_labels(bad, num_classes=3, count=4, name="truth"))
    says("labels", lambda: advfeat.accuracy(linear, IMAGES, bad))
    if case in ("too large", "negative", "too few", "scalar"):  # else a target of another kind
        says("labels", lambda: advfeat.attack_dataset(attack, KEY, linear, IMAGES, bad))
    says("labels", lambda: training.fit(
        KEY, None, {}, IMAGES, bad, training.Fit(), num_classes=3
    ))
    says("labels", lambda: constructed.construct(KEY, attack, linear, IMAGES, bad, LABELS))
    says("targets", lambda: constructed.construct(KEY, attack, linear, IMAGES, LABELS, bad))
    sweep = advfeat.evaluate_epsilons
    says("labels", lambda: sweep(KEY, lambda e: attack, linear, IMAGES, bad, [0.1]))


@pytest.mark.parametrize("case", BAD_EPS)
def test_eps(case):
    bad = BAD_EPS[case]
    says("radius", lambda: checks.check_eps(bad, name="radius"))
    for make in (advfeat.linf, advfeat.l2, advfeat.l1):
        says("eps", lambda make=make: make(bad))
    if bad is not None:
        says("step_size", lambda: advfeat.pgd(advfeat.l2(1.0), step_size=bad))
        says("step_size", lambda: advfeat.fgsm(advfeat.l2(1.0), step_size=bad))
    says("epsilons", lambda: advfeat.evaluate_epsilons(
        KEY, lambda e: None, linear, IMAGES, LABELS, [0.1, bad]
    ))


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
    says("repeats", lambda: advfeat.gaussian_noise(threat, repeats=bad))
    says("batch_size", lambda: advfeat.predict(linear, IMAGES, batch_size=bad))
    says("epochs", lambda: training.Fit(epochs=bad))
    says("batch_size", lambda: training.Fit(batch_size=bad))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("norm", lambda: advfeat.threat_model("l3", 1.0)),
        ("eps", lambda: advfeat.linf(jnp.array([0.1, 0.2]))),
        ("restarts", lambda: advfeat.pgd(advfeat.l2(1.0), restarts=2, random_start=False)),
        ("restarts", lambda: advfeat.pgd(advfeat.l2(1.0), restarts=2, score_last=False)),
        ("decay", lambda: advfeat.momentum(-0.1)),
        ("decay", lambda: advfeat.momentum(np.nan)),
        ("steps", lambda: steps.annealed(advfeat.steepest, 0)),
        ("epsilons", lambda: advfeat.evaluate_epsilons(KEY, None, linear, IMAGES, LABELS, [])),
        ("ids", lambda: advfeat.attack_dataset(
            advfeat.fgsm(advfeat.l2(1.0)), KEY, linear, IMAGES, LABELS, ids=np.arange(3))),
        ("num_classes", lambda: constructed.random_targets(KEY, LABELS, num_classes=1)),
        ("num_classes", lambda: constructed.deterministic_targets(LABELS, num_classes=0)),
        ("labels", lambda: constructed.deterministic_targets(LABELS, num_classes=2)),
        ("schedule", lambda: training.Fit(schedule="warm")),
        ("schedule", lambda: training.schedule("warm", learning_rate=1.0, steps=3)),
        ("augment", lambda: training.Fit(augment="rotate")),
        ("learning_rate", lambda: training.Fit(learning_rate=0.0)),
        ("learning_rate", lambda: training.Fit(learning_rate=np.nan)),
        ("momentum", lambda: training.Fit(momentum=1.0)),
        ("weight_decay", lambda: training.Fit(weight_decay=-1.0)),
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
