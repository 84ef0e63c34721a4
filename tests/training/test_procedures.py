"""Procedures: train steps against NumPy, composition, exact resume, what compiles again."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import advfeat
from advfeat import models, training
from advfeat.runs.train_states import TrainingCheckpoints
from advfeat.training import loop
from advfeat.training.procedures.averaging import Average
from advfeat.training.procedures.weight_perturbation import perturbation
from advfeat.types import pytree

SHAPE, COUNT, CLASSES, EPS = (2, 3, 1), 12, 3, 0.1
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 1, (COUNT, *SHAPE)).astype(np.float32)
LABELS = (np.arange(COUNT) % CLASSES).astype(np.int32)
LINEAR = models.create("linear", num_classes=CLASSES)
MLP = models.create("mlp", num_classes=CLASSES, width=8, depth=1)
FGSM = advfeat.fgsm(advfeat.linf(EPS), keep=None)
STANDARD = training.standard(LINEAR)
ADVERSARIAL = training.adversarial(LINEAR, advfeat.cross_entropy, FGSM)
RATE = 0.5


class Normed(nn.Module):
    """A small network with batch statistics."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4)(x.reshape(x.shape[0], -1))
        return nn.Dense(CLASSES)(nn.BatchNorm(use_running_average=not train)(x))


def batch_of(rows, weight=None):
    return {
        "image": jnp.asarray(IMAGES[rows]),
        "label": jnp.asarray(LABELS[rows]),
        "id": jnp.asarray(rows, jnp.int32),
        "weight": jnp.ones(len(rows)) if weight is None else jnp.float32(weight),
    }


def steps(procedure, loss_fn, batches, *, model=LINEAR, shares=None, rate=RATE):
    """The states after each batch, by plain SGD."""
    optimiser = training.sgd(lambda count: rate, momentum=0.0, weight_decay=0.0)
    step = jax.jit(training.train_step(loss_fn, optimiser, procedure))
    variables = models.init(KEY, model, SHAPE)
    shape = batches[0]["image"].shape
    state, states = training.initial(variables, optimiser, procedure, shape=shape), []
    for index, batch in enumerate(batches):
        share = 1.0 if shares is None else shares[index]
        state, metrics = step(KEY, state, batch, share)
        states.append(jax.tree.map(np.array, state))
    return states, metrics


class Softmax:
    """Softmax regression in float64."""

    def __init__(self):
        params = models.init(KEY, LINEAR, SHAPE)["params"]["classifier"]
        self.kernel = np.asarray(params["kernel"], np.float64)
        self.bias = np.asarray(params["bias"], np.float64)

    def gradients(self, images, labels, kernel=None):
        kernel = self.kernel if kernel is None else kernel
        x = np.asarray(images, np.float64).reshape(len(images), -1)
        error = oracle.softmax(x @ kernel + self.bias) - np.eye(CLASSES)[labels]
        by_image = (error @ kernel.T).reshape(images.shape)
        return x.T @ error / len(x), error.mean(0), by_image

    def move(self, kernel, bias):
        self.kernel, self.bias = self.kernel - RATE * kernel, self.bias - RATE * bias

    def same(self, params, atol=1e-5):
        np.testing.assert_allclose(params["classifier"]["kernel"], self.kernel, atol=atol)
        np.testing.assert_allclose(params["classifier"]["bias"], self.bias, atol=atol)


ROWS = (np.arange(6), np.arange(6, 12), np.arange(3, 9))
BATCHES = [batch_of(rows) for rows in ROWS]


# --- Free. ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_free_training_is_numpys():
    """Algorithm 1 of the paper, with the perturbation kept inside the box as well."""
    procedure = training.free(advfeat.linf(EPS), replays=3, step_size=0.06)
    states, metrics = steps(procedure, STANDARD, BATCHES)
    by_hand, delta = Softmax(), np.zeros((6, *SHAPE))
    for state, rows in zip(states, ROWS, strict=True):
        image = IMAGES[rows].astype(np.float64)
        for _ in range(3):
            x = np.clip(image + delta, 0, 1)
            kernel, bias, by_image = by_hand.gradients(x, LABELS[rows])
            moved = np.clip(x + 0.06 * np.sign(by_image), image - EPS, image + EPS)
            delta = np.clip(moved, 0, 1) - image
            by_hand.move(kernel, bias)
        by_hand.same(state.params)
        np.testing.assert_allclose(state.extra, delta, atol=1e-6)
        assert np.abs(delta).max() > 0.9 * EPS
    assert int(states[-1].step) == 3
    assert {"loss", "accuracy"} == set(metrics)


@pytest.mark.slow
def test_free_training_has_one_backward_pass():
    passes = []

    @jax.custom_vjp
    def dense(x, kernel):
        return x @ kernel

    def backward(saved, upstream):
        passes.append(1)  # once for every backward pass in the program; the replays are a loop
        x, kernel = saved
        return upstream @ kernel.T, x.T @ upstream

    dense.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), backward)

    def loss_fn(key, params, model_state, batch):
        del key
        flat = batch["image"].reshape(len(batch["image"]), -1)
        logits = dense(flat, params["classifier"]["kernel"])
        loss = jnp.mean(jax.vmap(advfeat.cross_entropy)(logits, batch["label"]))
        return loss, (model_state, {"loss": loss})

    states, _ = steps(training.free(advfeat.linf(EPS), replays=3), loss_fn, BATCHES[:1])
    assert len(passes) == 1
    assert np.abs(states[0].extra).max() > 0


@pytest.mark.slow
def test_the_schedule_of_free_training_counts_updates():
    procedure = training.free(advfeat.linf(EPS), replays=4)
    config = training.TrainConfig(epochs=2, batch_size=6, schedule="onecycle", learning_rate=0.3)
    state = fit(procedure, training.standard(MLP), config)
    counts = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.int32]
    assert [int(count) for count in counts] == [16]
    assert int(state.step) == 4
    make = loop._optimiser_factory("onecycle", 16)
    assert make is loop._optimiser_factory("onecycle", config.epochs * 2 * procedure.updates)


def test_free_training_takes_no_objective_with_an_attack():
    procedure = training.free(advfeat.linf(EPS))
    with pytest.raises(ValueError, match=r"makes its own perturbation.*got Adversarial"):
        training.train_step(ADVERSARIAL, training.sgd(lambda _: 0.1), procedure)
    with pytest.raises(ValueError, match="makes its own perturbation"):
        training.train_step(
            ADVERSARIAL, training.sgd(lambda _: 0.1), training.ema(procedure, decay=0.5)
        )


# --- Weight perturbation. -------------------------------------------------------------------------


def test_weight_perturbation_is_numpys():
    """Equations 7 to 9: the attack at w, the gradient at w + v, the update of w."""
    states, _ = steps(training.awp(gamma=0.3), ADVERSARIAL, BATCHES)
    by_hand = Softmax()
    for state, rows in zip(states, ROWS, strict=True):
        image = IMAGES[rows].astype(np.float64)
        _, _, by_image = by_hand.gradients(image, LABELS[rows])
        x = np.clip(image + EPS * np.sign(by_image), 0, 1)
        uphill, _, _ = by_hand.gradients(x, LABELS[rows])
        v = 0.3 * np.linalg.norm(by_hand.kernel) * uphill / np.linalg.norm(uphill)
        kernel, bias, _ = by_hand.gradients(x, LABELS[rows], by_hand.kernel + v)
        by_hand.move(kernel, bias)
        by_hand.same(state.params)


def test_weight_perturbation_attacks_once():
    calls = []

    def attack(key, model_fn, x, y):
        calls.append(1)
        return FGSM(key, model_fn, x, y)

    objective = training.adversarial(LINEAR, advfeat.cross_entropy, jax.tree_util.Partial(attack))
    steps(training.awp(gamma=0.3), objective, BATCHES[:1])
    assert len(calls) == 1


@pytest.mark.slow
def test_no_weight_perturbation_before_its_time():
    plain, _ = steps(training.plain(), ADVERSARIAL, BATCHES)
    shares = [0.0, 0.19, 0.2]
    waiting, _ = steps(training.awp(gamma=0.3, warmup=0.2), ADVERSARIAL, BATCHES, shares=shares)
    none, _ = steps(training.awp(gamma=0.0), ADVERSARIAL, BATCHES)
    close(none[2].params, plain[2].params)
    close(waiting[1].params, plain[1].params)
    moved = waiting[2].params["classifier"]["kernel"] - plain[2].params["classifier"]["kernel"]
    assert np.abs(moved).max() > 1e-3


def test_only_kernels_are_perturbed_and_zero_gradients_are_safe():
    ones = jnp.ones((2, 3))
    np.testing.assert_allclose(perturbation(0.5, 2 * ones, ones), ones)
    assert float(jnp.abs(perturbation(0.5, ones, 0 * ones)).max()) == 0.0
    assert float(jnp.abs(perturbation(0.5, ones[0], ones[0])).max()) == 0.0


# --- Accumulation. --------------------------------------------------------------------------------

PROCEDURES = {
    "plain": lambda **o: training.plain(**o),
    "awp": lambda **o: training.awp(gamma=0.2, **o),
    "free": lambda **o: training.free(advfeat.linf(EPS), replays=2, **o),
    "swa": lambda **o: training.swa(training.awp(gamma=0.2, **o), start=0.4),
    "ema_free": lambda **o: training.ema(
        training.free(advfeat.linf(EPS), replays=2, **o), decay=0.7
    ),
}
each = pytest.mark.parametrize("name", ["free", "swa", "ema_free"])  # plain: test_training.py


def objective_for(name, model=MLP, eps=EPS):
    if "free" in name:
        return training.standard(model)
    attack = advfeat.pgd(advfeat.linf(eps), steps=2, keep=None)
    return training.adversarial(model, advfeat.cross_entropy, attack)


def close(first, second, atol=2e-6):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.slow_for("awp", "plain")
@pytest.mark.parametrize("name", ["plain", "awp", "ema_free"])
def test_a_batch_in_parts_is_the_whole_batch(name):
    weights = [RNG.uniform(0, 2, 6) for _ in ROWS]
    weights[0][::2] = 0
    batches = [batch_of(rows, w) for rows, w in zip(ROWS, weights, strict=True)]
    whole, means = steps(PROCEDURES[name](), objective_for(name), batches, model=MLP)
    parts, same = steps(PROCEDURES[name](accumulate=3), objective_for(name), batches, model=MLP)
    close(whole, parts, atol=1e-5)
    close(means, same, atol=1e-5)


def test_parts_have_to_divide_the_batch():
    with pytest.raises(ValueError, match="accumulate=4 does not divide the batch of 6"):
        steps(training.plain(accumulate=4), ADVERSARIAL, BATCHES)


# --- Averages. ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_exponential_average_by_hand():
    plain, _ = steps(training.plain(), STANDARD, BATCHES)
    averaged, _ = steps(training.ema(decay=0.7), STANDARD, BATCHES)
    close(averaged[2].params, plain[2].params)
    for count in (1, 2, 3):
        weights = 0.3 * 0.7 ** np.arange(count)[::-1]
        weights /= weights.sum()
        wanted = jax.tree.map(
            lambda *leaves, w=weights: sum(a * b for a, b in zip(w, leaves, strict=True)),
            *[state.params for state in plain[:count]],
        )
        close(averaged[count - 1].extra.params, wanted)
    none, _ = steps(training.ema(decay=0.0), STANDARD, BATCHES)
    close(none[2].extra.params, plain[2].params)


@pytest.mark.slow
def test_the_uniform_average_by_hand():
    batches = [*BATCHES, BATCHES[0]]
    shares = [0.0, 0.25, 0.5, 0.75]
    plain, _ = steps(training.plain(), STANDARD, batches)
    averaged, _ = steps(training.swa(start=0.5), STANDARD, batches, shares=shares)
    close(averaged[1].extra.params, plain[1].params)  # so far, simply the newest
    close(averaged[2].extra.params, plain[2].params)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, plain[2].params, plain[3].params)
    close(averaged[3].extra.params, mean)
    assert int(averaged[3].extra.terms) == 2
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), mean, plain[3].params)
    assert max(jax.tree.leaves(moved)) > 1e-3


@pytree
class Walk(training.Procedure):
    """Weights that go from 0 to 1 in a thousand steps."""

    def finish(self, key, loss_fn, optimiser, state, batch, share):
        params = jax.tree.map(lambda w: jnp.full_like(w, state.step / 1000), state.params)
        return state._replace(params=params, step=state.step + 1), {}


def test_an_average_of_half_precision_weights_keeps_its_digits():
    procedure = training.swa(Walk(), start=0.0)
    optimiser = training.sgd(lambda count: 0.1, momentum=0.0, weight_decay=0.0)
    state = training.initial({"params": jnp.zeros(2, jnp.bfloat16)}, optimiser, procedure)

    def one(state, _):
        return procedure.step(KEY, None, optimiser, state, {}, jnp.float32(1.0))[0], None

    state = jax.lax.scan(one, state, None, length=1001)[0]
    found = procedure.variables(state)["params"]
    assert found.dtype == jnp.bfloat16  # in which alone it comes to rest below 0.3
    np.testing.assert_allclose(np.asarray(found, np.float32), 0.5, atol=2e-3)


@pytest.mark.slow
def test_batch_statistics_are_averaged_too():
    procedure = training.ema(decay=0.5)
    (first, second), _ = steps(procedure, training.standard(Normed()), BATCHES[:2], model=Normed())
    wanted = jax.tree.map(lambda a, b: a / 3 + 2 * b / 3, first.model_state, second.model_state)
    found = procedure.variables(second)
    close(found["batch_stats"], wanted["batch_stats"], atol=1e-6)
    assert set(found) == {"params", "batch_stats"}


# --- A whole training. ----------------------------------------------------------------------------

CONFIG = training.TrainConfig(epochs=2, batch_size=4, learning_rate=0.2, eps_warmup=0.5)


def fit(procedure, loss_fn, config=CONFIG, *, model=MLP, **options):
    return training.fit(
        KEY,
        loss_fn,
        models.init(KEY, model, SHAPE),
        IMAGES,
        LABELS,
        config,
        num_classes=CLASSES,
        procedure=procedure,
        **options,
    )


@pytest.mark.slow_for("swa")
@each
def test_a_resumed_training_ends_as_the_unbroken_one(name, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "CHUNK", 2)
    procedure, kept = PROCEDURES[name](), []
    loss_fn = objective_for(name)
    unbroken = jax.tree.map(
        np.array,
        fit(
            procedure,
            loss_fn,
            hooks=training.Hooks(on_chunk=lambda s, m: kept.append(jax.tree.map(np.array, s))),
        ),
    )
    blank = training.initial_state(
        models.init(KEY, MLP, SHAPE), CONFIG, procedure, shape=IMAGES.shape
    )
    assert jax.tree.structure(blank) == jax.tree.structure(unbroken)
    store = TrainingCheckpoints(tmp_path / "states")
    store.save(kept[1])
    store.close()
    store = TrainingCheckpoints(tmp_path / "states")
    saved = store.latest(blank).state
    store.close()
    assert int(saved.step) == 3
    for state in (saved, kept[0]):
        resumed = fit(procedure, loss_fn, resume=training.Saved(jax.tree.map(jnp.array, state)))
        for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(unbroken), strict=True):
            np.testing.assert_array_equal(a, b)
    found = procedure.variables(unbroken)["params"]
    assert isinstance(unbroken.extra, Average) == (found is not unbroken.params)


@pytest.mark.slow
def test_new_numbers_do_not_compile_again():
    def run(gamma, decay, eps, warmup):
        procedure = training.ema(training.awp(gamma=gamma, warmup=gamma), decay=decay)
        config = dataclasses.replace(CONFIG, eps_warmup=warmup)
        fit(procedure, objective_for("awp", eps=eps), config)

    run(0.1, 0.5, 0.1, 0.5)
    size = training.train_update._cache_size()
    run(0.2, 0.6, 0.2, 0.3)
    assert training.train_update._cache_size() == size


@pytree
class ShowsEps:
    """A loss that shows the eps it was scaled to."""

    threat: advfeat.ThreatModel

    def __call__(self, key, params, model_state, batch):
        del key, batch
        loss = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return loss, (model_state, {"loss": loss, "eps": self.threat.eps})


def test_eps_rises_linearly_from_zero():
    seen = []
    fit(
        training.plain(),
        ShowsEps(advfeat.l2(0.8)),
        dataclasses.replace(CONFIG, eps_warmup=2 / 3, learning_rate=0.01),
        hooks=training.Hooks(on_chunk=lambda state, metrics: seen.extend(metrics["eps"])),
    )
    np.testing.assert_allclose(seen, [0.0, 0.2, 0.4, 0.6, 0.8, 0.8], atol=1e-6)


@pytest.mark.slow
def test_the_eps_of_free_training_rises_too():
    procedure = training.free(advfeat.linf(0.2), replays=2)
    reached = []
    fit(
        procedure,
        training.standard(MLP),
        dataclasses.replace(CONFIG, batch_size=12, epochs=5),
        hooks=training.Hooks(
            on_chunk=lambda state, metrics: reached.append(float(jnp.abs(state.extra).max()))
        ),
    )
    np.testing.assert_allclose(reached, [0.0, 0.08, 0.16, 0.2, 0.2], atol=1e-6)


def test_a_warm_up_needs_an_attack_that_can_be_scaled():
    def loss_fn(key, params, model_state, batch):
        raise AssertionError

    with pytest.raises(ValueError, match="needs an attack with a threat model, got function"):
        fit(training.plain(), loss_fn)


@pytest.mark.slow
def test_a_training_may_end_early():
    told = []
    state = fit(
        training.plain(),
        objective_for("plain"),
        dataclasses.replace(CONFIG, epochs=5),
        hooks=training.Hooks(on_epoch=lambda epoch, state, means: told.append(epoch) or epoch == 2),
    )
    assert told == [1, 2]
    assert int(state.step) == 6


# --- Bad input. -----------------------------------------------------------------------------------

BAD = {
    "replays must be a whole number >= 1, got 0": lambda: training.free(
        advfeat.linf(EPS), replays=0
    ),
    "eps must be finite, got inf": lambda: training.free(advfeat.l2()),
    "step_size must be >= 0, got -1": lambda: training.free(advfeat.l2(1.0), step_size=-1.0),
    "accumulate must be a whole number >= 1, got 0": lambda: training.plain(accumulate=0),
    "gamma must be >= 0, got -1": lambda: training.awp(gamma=-1.0),
    "warmup must lie in [0, 1], got 2": lambda: training.awp(warmup=2.0),
    "decay must lie in [0, 1), got 1": lambda: training.ema(decay=1.0),
    "start must lie in [0, 1), got 1.5": lambda: training.swa(start=1.5),
    "inner must be a procedure without an average": lambda: training.ema(training.swa()),
    "eps_warmup must lie in [0, 1], got 2": lambda: training.TrainConfig(eps_warmup=2.0),
    "free training carries a perturbation": lambda: training.initial(
        {"params": {}}, training.sgd(lambda _: 0.1), training.free(advfeat.linf(EPS))
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        BAD[message]()
    assert str(error.value).startswith(message)
