"""Training: a step against NumPy, exact resume, augmentation, the robust objective."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import advfeat
from advfeat import models, training
from advfeat.images import augmentation
from advfeat.training import loop
from advfeat.types import pytree, static

SHAPE = (4, 4, 1)
COUNT, CLASSES = 20, 3
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, *SHAPE)).astype(np.uint8)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.int32)
LINEAR = models.create("linear", num_classes=CLASSES)
MLP = models.create("mlp", num_classes=CLASSES, width=8, depth=1)


def equal(first, second):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def copy(tree):
    return jax.tree.map(np.array, tree)


# --- One step, and a whole schedule, by hand. -----------------------------------------------------


class Softmax:
    """Softmax regression with SGD, Nesterov momentum and L2 decay, in float64."""

    def __init__(self, params):
        self.params = {k: np.asarray(v, np.float64) for k, v in params["classifier"].items()}
        self.speed = {k: np.zeros_like(v) for k, v in self.params.items()}

    def loss_and_gradient(self, images, labels, weight):
        x = images.reshape(len(images), -1).astype(np.float64)
        p = oracle.softmax(x @ self.params["kernel"] + self.params["bias"])
        share = weight / weight.sum()
        loss = -np.sum(share * np.log(p[np.arange(len(x)), labels]))
        error = share[:, None] * (p - np.eye(CLASSES)[labels])
        accuracy = np.sum(share * (p.argmax(1) == labels))
        return loss, accuracy, {"kernel": x.T @ error, "bias": error.sum(0)}

    def step(self, images, labels, weight, *, rate, momentum, decay):
        loss, accuracy, gradient = self.loss_and_gradient(images, labels, weight)
        for name, g in gradient.items():
            g = g + decay * self.params[name]
            self.speed[name] = momentum * self.speed[name] + g
            self.params[name] -= rate * (g + momentum * self.speed[name])
        return loss, accuracy


def test_a_train_step_is_numpys():
    variables = models.init(KEY, LINEAR, SHAPE)
    rate, momentum, decay = 0.5, 0.8, 0.1
    optimiser = training.sgd(lambda _: rate, momentum=momentum, weight_decay=decay)
    step = jax.jit(training.train_step(training.standard(LINEAR), optimiser))
    state, by_hand = training.initial(variables, optimiser), Softmax(variables["params"])
    for index in range(4):
        weight = np.random.default_rng(index).uniform(0, 1, COUNT).astype(np.float32)
        weight[::3] = 0
        images = (IMAGES / 255).astype(np.float32)
        batch = {"image": images, "label": LABELS, "id": np.arange(COUNT), "weight": weight}
        state, metrics = step(KEY, state, batch)
        loss, accuracy = by_hand.step(
            images, LABELS, weight.astype(float), rate=rate, momentum=momentum, decay=decay
        )
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
        assert float(metrics["accuracy"]) == pytest.approx(accuracy, rel=1e-5)
        for name, wanted in by_hand.params.items():
            np.testing.assert_allclose(state.params["classifier"][name], wanted, atol=1e-5)
    assert int(state.step) == 4


RATES = {
    "constant": lambda t, n: 1.0,
    "cosine": lambda t, n: 0.5 * (1 + np.cos(np.pi * t / n)),
    "onecycle": lambda t, n: t / 2 if t < 2 else (n - t) / (n - 2),  # up over a fifth
    "multistep": lambda t, n: 0.1 ** ((t >= n // 2) + (t >= 3 * n // 4)),
}


@pytest.mark.parametrize("name", training.SCHEDULES)
def test_schedules(name):
    rate = training.schedule(name, learning_rate=0.3, steps=10)
    for t in range(11):
        assert float(rate(t)) == pytest.approx(0.3 * RATES[name](t, 10), abs=1e-6)
    for steps in (1, 2, 3):  # the shortest trainings have a rate too
        short = training.schedule(name, learning_rate=0.3, steps=steps)
        assert all(0 <= float(short(t)) <= 0.3 + 1e-6 for t in range(steps))


@pytest.mark.parametrize("schedule", ["onecycle", "multistep"])
def test_a_whole_fit_is_numpys(schedule):
    # One batch holds all, so that the order of the examples does not matter.
    config = training.TrainConfig(
        epochs=10,
        batch_size=999,
        learning_rate=0.4,
        schedule=schedule,
        momentum=0.7,
        weight_decay=0.01,
    )
    variables, seen = models.init(KEY, LINEAR, SHAPE), []
    by_hand = Softmax(variables["params"])
    state = training.fit(
        KEY,
        training.standard(LINEAR),
        variables,
        IMAGES,
        LABELS,
        config,
        num_classes=CLASSES,
        hooks=training.Hooks(
            on_epoch=lambda epoch, state, means: seen.append((epoch, means["loss"]))
        ),
    )
    for t in range(10):
        loss, _ = by_hand.step(
            IMAGES / 255,
            LABELS,
            np.ones(COUNT),
            rate=0.4 * RATES[schedule](t, 10),
            momentum=0.7,
            decay=0.01,
        )
        assert seen[t] == (t + 1, pytest.approx(loss, rel=1e-4))
    for name, wanted in by_hand.params.items():
        np.testing.assert_allclose(state.params["classifier"][name], wanted, atol=1e-5)
    # The caller's variables are still there.
    assert np.isfinite(np.asarray(variables["params"]["classifier"]["kernel"])).all()


# --- Resume. --------------------------------------------------------------------------------------

CONFIG = training.TrainConfig(epochs=3, batch_size=6, learning_rate=0.2, augment="flip_shift4")


def losses():
    attack = advfeat.pgd(advfeat.l2(0.3), steps=2, keep=None)
    return {
        "standard": training.standard(MLP),
        "adversarial": training.adversarial(MLP, advfeat.cross_entropy, attack),
    }


@pytest.mark.slow_for("adversarial")
@pytest.mark.parametrize("name", ["standard", "adversarial"])
def test_a_resumed_training_ends_as_the_unbroken_one(name, monkeypatch):
    variables, ids = models.init(KEY, MLP, SHAPE), np.arange(COUNT) + 7

    def run(**options):
        return training.fit(
            KEY,
            losses()[name],
            variables,
            IMAGES,
            LABELS,
            CONFIG,
            num_classes=CLASSES,
            ids=ids,
            **options,
        )

    monkeypatch.setattr(loop, "CHUNK", 2)  # 3 steps an epoch: chunks of 2 and 1
    kept, epochs = [], []
    told = {}
    unbroken = copy(
        run(
            hooks=training.Hooks(
                on_chunk=lambda s, seen: kept.append((copy(s), seen)),
                on_epoch=lambda epoch, s, means: told.update({epoch: means}),
            )
        )
    )
    found = [(int(s.step), len(seen["loss"])) for s, seen in kept]
    assert found == [(2, 2), (3, 3), (5, 2), (6, 3), (8, 2), (9, 3)]
    for state, seen in kept:
        resumed = run(
            resume=training.Saved(copy(state), seen),
            hooks=training.Hooks(on_epoch=lambda epoch, s, means: epochs.append((epoch, means))),
        )
        assert equal(resumed, unbroken), int(state.step)
    assert [epoch for epoch, _ in epochs] == [1, 2, 3, 2, 3, 2, 3, 3, 3]
    assert all(means == told[epoch] for epoch, means in epochs)
    monkeypatch.setattr(loop, "CHUNK", 50)
    assert equal(run(), unbroken)
    # What is equal is no accident: another key ends elsewhere.
    monkeypatch.setattr(loop, "CHUNK", 1)
    other = training.fit(
        jax.random.key(1),
        losses()[name],
        variables,
        IMAGES,
        LABELS,
        CONFIG,
        num_classes=CLASSES,
        ids=ids,
    )
    assert not equal(other.params, unbroken.params)


def test_the_blank_state_has_the_form_of_the_real_one():
    variables = models.init(KEY, MLP, SHAPE)
    blank = training.initial_state(variables, CONFIG)
    real = training.fit(
        KEY, losses()["standard"], variables, IMAGES, LABELS, CONFIG, num_classes=CLASSES
    )
    assert jax.tree.structure(blank) == jax.tree.structure(real)
    for a, b in zip(jax.tree.leaves(blank), jax.tree.leaves(real), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_an_epoch_takes_every_example_once_in_a_new_order():
    rows = [loop.epoch_rows(KEY, epoch, 20, 6) for epoch in range(2)]
    for epoch in rows:
        assert epoch.shape == (3, 6)
        assert len(set(epoch.ravel().tolist())) == 18
    assert not np.array_equal(*rows)
    np.testing.assert_array_equal(np.sort(loop.epoch_rows(KEY, 0, 5, 128)), [range(5)])


@pytest.mark.slow
def test_new_numbers_do_not_compile_again():
    variables = models.init(KEY, MLP, SHAPE)

    def run(rate, eps, seed):
        attack = advfeat.pgd(advfeat.l2(eps), steps=2, keep=None)
        training.fit(
            jax.random.key(seed),
            training.adversarial(MLP, advfeat.cross_entropy, attack),
            variables,
            IMAGES,
            LABELS,
            dataclasses.replace(CONFIG, learning_rate=rate, momentum=rate),
            num_classes=CLASSES,
        )

    run(0.1, 0.2, 0)
    size = training.train_update._cache_size()
    run(0.3, 0.4, 1)
    assert training.train_update._cache_size() == size


def test_a_training_can_be_stopped_after_any_step():
    variables = models.init(KEY, MLP, SHAPE)

    class Stop(Exception):
        pass

    def run(asked, **options):
        kept = []

        def stop():
            asked.append(None)
            return len(asked) >= 5

        def keep(state, seen):
            kept.append((copy(state), seen))
            if len(asked) >= 5:
                raise Stop

        try:
            state = training.fit(
                KEY,
                losses()["standard"],
                variables,
                IMAGES,
                LABELS,
                CONFIG,
                num_classes=CLASSES,
                hooks=training.Hooks(stop=stop, on_chunk=keep),
                **options,
            )
        except Stop:
            state = None
        return kept, state

    kept, _ = run([])  # 3 steps an epoch
    assert [int(state.step) for state, _ in kept] == [3, 5]
    state, seen = kept[-1]
    _, resumed = run([], resume=training.Saved(copy(state), seen))
    assert equal(
        resumed,
        training.fit(
            KEY,
            losses()["standard"],
            variables,
            IMAGES,
            LABELS,
            CONFIG,
            num_classes=CLASSES,
        ),
    )


# --- Losses that stop being numbers. --------------------------------------------------------------


@pytree
class BreaksAt:
    """A loss that is NaN at one step, and may show the batch it was given."""

    step: Any
    shows_batch: bool = static(default=False)

    def __call__(self, key, params, model_state, batch):
        del key
        count = model_state["count"]
        loss = jnp.where(count == self.step, jnp.nan, jnp.sum(params["w"] ** 2))
        shown = batch if self.shows_batch else {}
        return loss, ({"count": count + 1}, {"loss": loss, **shown})


@pytest.mark.parametrize("step", [0, 4, 8])
def test_a_loss_that_is_no_number_ends_the_training(step, monkeypatch):
    monkeypatch.setattr(loop, "CHUNK", 2)
    variables, reached = {"params": {"w": jnp.ones(2)}, "count": jnp.int32(0)}, []
    with pytest.raises(training.NotFinite, match=f"nan at step {step}:") as caught:
        training.fit(
            KEY,
            BreaksAt(jnp.int32(step)),
            variables,
            IMAGES,
            LABELS,
            CONFIG,
            num_classes=CLASSES,
            hooks=training.Hooks(on_chunk=lambda state, metrics: reached.append(int(state.step))),
        )
    assert caught.value.step == step
    # Nothing is kept of a chunk that holds it.
    assert all(done <= step for done in reached)


# --- Transforms. ----------------------------------------------------------------------------------


def draws(name, image, count=300):
    keys = jax.random.split(jax.random.key(3), count)
    return np.asarray(jax.vmap(lambda key: augmentation.TRANSFORMS[name](key, image))(keys))


def test_flip_is_a_mirror_half_of_the_time():
    image = jnp.float32(RNG.random((3, 4, 2)))
    found = draws("flip", image)
    mirrored = np.all(found == np.asarray(image)[:, ::-1], axis=(1, 2, 3))
    same = np.all(found == np.asarray(image), axis=(1, 2, 3))
    assert np.all(mirrored ^ same)
    assert 0.4 < mirrored.mean() < 0.6
    key = jax.random.key(0)
    np.testing.assert_array_equal(augmentation.flip(key, augmentation.flip(key, image)), image)


@pytest.mark.slow_for("shift1-1")
@pytest.mark.parametrize(
    ("name", "pixels"), [("shift1", 1), ("shift2", 2), ("flip_shift2", 2), ("flip_shift4", 4)]
)
def test_shifts_move_the_content_and_let_zeros_in(name, pixels):
    image = RNG.uniform(0.1, 1, (6, 5, 2)).astype(np.float32)
    padded = {}
    for flipped, content in enumerate([image, image[:, ::-1]] if "flip" in name else [image]):
        wide = np.pad(content, ((pixels, pixels), (pixels, pixels), (0, 0)))
        for i in range(2 * pixels + 1):
            for j in range(2 * pixels + 1):
                padded[wide[i : i + 6, j : j + 5].tobytes()] = (flipped, i, j)
    found = [padded[one.tobytes()] for one in draws(name, jnp.asarray(image), 800)]
    corners = {(i, j) for _, i, j in found}
    assert len(corners) == (2 * pixels + 1) ** 2  # every offset occurs, also none at all
    rows = np.bincount([i for i, _ in corners], minlength=2 * pixels + 1)
    assert rows.min() == rows.max()


def test_no_transform():
    np.testing.assert_array_equal(draws("none", jnp.ones((2, 2, 1)), 2), np.ones((2, 2, 2, 1)))


@pytest.mark.slow
def test_augmentation_belongs_to_the_example_and_the_step():
    data = (jnp.asarray(IMAGES), jnp.asarray(LABELS), jnp.arange(COUNT, dtype=jnp.int32) + 50)
    make = loop._optimiser_factory("constant", 9)
    hyper = loop._hyper(CONFIG)

    def batch_at(step, rows):
        variables = {"params": {"w": jnp.ones(2)}, "count": jnp.int32(0)}
        state = training.initial(variables, make(hyper))._replace(step=jnp.int32(step))
        _, seen = training.train_update(
            KEY,
            state,
            BreaksAt(jnp.int32(-1), True),
            data,
            jnp.asarray(rows, jnp.int32),
            hyper,
            make_optimiser=make,
            augment=augmentation.shift2,
        )
        return {
            int(i): (np.asarray(x), int(y))
            for i, x, y in zip(seen["id"], seen["image"], seen["label"], strict=True)
        }

    first, second = batch_at(0, [0, 1, 2, 3]), batch_at(0, [9, 3, 1, 5])
    later = batch_at(1, [0, 1, 2, 3])
    for example in (51, 53):
        np.testing.assert_array_equal(first[example][0], second[example][0])
        assert first[example][1] == LABELS[example - 50]
        assert first[example][0].max() <= 1.0
    assert any(not np.array_equal(first[i][0], later[i][0]) for i in first)


# --- The robust objective. ------------------------------------------------------------------------


class Normed(nn.Module):
    """A small network with batch statistics."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6)(x.reshape(x.shape[0], -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(CLASSES)(jnp.tanh(x))


@jax.jit
def value_and_gradient(loss_fn, variables, batch):
    rest = {"batch_stats": variables["batch_stats"]}
    call = jax.value_and_grad(loss_fn, argnums=1, has_aux=True)
    return call(KEY, variables["params"], rest, batch)


@pytest.mark.slow_for("0.0")
@pytest.mark.parametrize("eps", [0.0, 0.8])
def test_the_robust_loss_is_the_plain_loss_at_the_attacked_images(eps):
    model = Normed()
    variables = jax.jit(model.init)(KEY, jnp.zeros((1, *SHAPE)))
    batch = {
        "image": jnp.float32(IMAGES / 255),
        "label": jnp.asarray(LABELS),
        "id": jnp.arange(COUNT),
        "weight": jnp.ones(COUNT),
    }

    def run(loss_fn, batch):
        return value_and_gradient(loss_fn, variables, batch)

    attack = advfeat.pgd(advfeat.l2(eps), steps=3, random_start=False, keep=None)
    robust = run(training.adversarial(model, advfeat.cross_entropy, attack), batch)
    # The attack sees the network in evaluation mode, and leaves its statistics alone.
    frozen = models.model_fn(model, variables)
    found = advfeat.attack_batch(
        KEY, attack, frozen, batch["image"], batch["label"], ids=batch["id"]
    )
    attacked = {**batch, "image": found.last.x}
    plain = run(training.standard(model, advfeat.cross_entropy), attacked)
    for a, b in zip(jax.tree.leaves(robust), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    clean = run(training.standard(model, advfeat.cross_entropy), batch)
    if eps:
        assert float(robust[0][0]) > float(clean[0][0]) + 0.05
        before = variables["batch_stats"]["BatchNorm_0"]["mean"]
        after = robust[0][1][0]["batch_stats"]["BatchNorm_0"]["mean"]
        assert np.abs(np.asarray(after) - np.asarray(before)).max() > 1e-3
    else:
        assert equal(robust[0][1][0], clean[0][1][0])
        assert equal(robust[1], clean[1])


@pytest.mark.slow
def test_objectives_by_name():
    names = {"standard", "adversarial", "mixed", "trades", "mart", "fast", "free"}
    assert set(training.OBJECTIVES) == names
    assert training.standard(MLP) == training.standard(MLP)
