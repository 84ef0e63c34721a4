"""Rows of weight 0 count for nothing: whatever they hold, all is as it is without them."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import models, training
from advfeat.models.statistics import statistics_of
from advfeat.training import padding

SHAPE, CLASSES, REAL, COUNT = (8, 8, 1), 3, 3, 8
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ROWS = {
    "image": RNG.random((REAL, *SHAPE)).astype(np.float32),
    "label": np.arange(REAL, dtype=np.int32),
    "id": np.arange(REAL, dtype=np.int32) + 5,
}
RUBBISH = {"image": np.nan, "label": 99, "id": -1}
THREAT, BALL = advfeat.linf(0.1), advfeat.l2(0.5)
ATTACK = advfeat.pgd(THREAT, steps=2, random_start=True, keep=None)


class Normed(nn.Module):
    """A small network with batch statistics."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(5)(x.reshape(x.shape[0], -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(CLASSES)(jnp.tanh(x))


def padded(weight=(1, 1, 1)):
    """The three rows, and behind them rubbish of weight 0."""
    batch = {
        name: np.concatenate(
            [rows, np.full((COUNT - REAL, *rows.shape[1:]), RUBBISH[name], rows.dtype)]
        )
        for name, rows in ROWS.items()
    }
    return {**batch, "weight": np.float32([*weight, *[0] * (COUNT - REAL)])}


def objectives(model):
    loss = advfeat.cross_entropy
    return {
        "standard": training.standard(model),
        "adversarial": training.adversarial(model, loss, ATTACK),
        "mixed": training.mixed(model, loss, ATTACK),
        "trades": training.trades(model, loss, ATTACK),
        "mart": training.mart(model, attack=ATTACK),
        "fast": training.fast(model, loss, THREAT, grad_align=0.3),
    }


@jax.jit
def with_weights(loss_fn, variables, batch):
    rest = {"batch_stats": variables["batch_stats"]}
    call = jax.value_and_grad(loss_fn, argnums=1, has_aux=True)
    return call(KEY, variables["params"], rest, batch)


def alone(loss_fn, variables):
    # Weights that are known to be 1 while tracing: nothing is masked.
    run = jax.jit(
        lambda v, rows: with_weights.__wrapped__(
            loss_fn, v, {**rows, "weight": np.ones(REAL, np.float32)}
        )
    )
    return run(variables, ROWS)


def drawn(model):
    variables = jax.jit(model.init)(KEY, jnp.zeros((1, *SHAPE)))
    # Running statistics that a wrong update would change.
    return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.ones_like(leaf), variables)


def close(found, wanted, atol=3e-6):
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_close(found, wanted, atol=atol, rtol=2e-4)


@pytest.mark.slow_for("fast", "mart", "mixed", "standard", "trades")
@pytest.mark.parametrize("name", objectives(Normed()))
def test_loss_gradients_and_statistics_are_those_of_the_real_rows(name):
    loss_fn, variables = objectives(Normed())[name], drawn(Normed())
    # An attack magnifies the rounding of its batch: 7e-6 on some processors, of gradients of 0.05.
    # A padded row that counted would make them NaN.
    close(with_weights(loss_fn, variables, padded()), alone(loss_fn, variables), atol=2e-5)


@pytest.mark.slow
def test_a_residual_networks_too():
    model = models.create("resnet9", num_classes=CLASSES, width=4)
    variables = drawn(model)
    loss_fn = training.standard(model)
    found = with_weights(loss_fn, variables, padded())
    wanted = alone(loss_fn, variables)
    close(found, wanted)
    before = variables["batch_stats"]["stem_norm"]["BatchNorm_0"]["var"]
    after = wanted[0][1][0]["batch_stats"]["stem_norm"]["BatchNorm_0"]["var"]
    assert np.abs(np.asarray(after - before)).max() > 1e-3


PROCEDURES = {
    "plain": (training.plain(), training.plain()),
    # A part of one row each; one of the four is padding alone.
    "parts": (training.plain(accumulate=4), training.plain(accumulate=REAL)),
    "awp": (training.awp(), training.awp()),
    "ema": (training.ema(decay=0.5), training.ema(decay=0.5)),
    # L2: where a gradient is nearly zero, rounding would turn its sign.
    "free": (training.free(BALL, replays=2), training.free(BALL, replays=2)),
}


@pytest.mark.slow_for("awp", "ema", "free", "plain")
@pytest.mark.parametrize("name", PROCEDURES)
def test_every_procedure_steps_as_on_the_real_rows(name):
    model = Normed()
    loss_fn, variables = training.standard(model), drawn(model)
    optimiser = training.sgd(lambda count: 0.1, momentum=0.9, weight_decay=0.0)

    def run(procedure, count, weight):
        step = training.train_step(loss_fn, optimiser, procedure)
        state = training.initial(variables, optimiser, procedure, shape=(count, *SHAPE))

        @jax.jit
        def two(state, batch, given):
            batch = {**batch, "weight": weight if given is None else given}
            state, _ = step(KEY, state, batch)
            return step(KEY, state, batch)

        batch = padded() if weight is None else ROWS
        return two(state, batch, batch.get("weight"))

    some, all_of_them = PROCEDURES[name]
    found, metrics = run(some, COUNT, None)
    wanted, wanted_metrics = run(all_of_them, REAL, np.ones(REAL, np.float32))
    if name == "free":
        assert np.all(np.asarray(found.extra[REAL:]) == 0)
        found = found._replace(extra=found.extra[:REAL])
    close((found, metrics), (wanted, wanted_metrics), atol=2e-5)  # up to four updates


def test_a_batch_of_padding_alone_changes_nothing():
    model = Normed()
    loss_fn, variables = training.standard(model), drawn(model)
    (loss, (state, _)), gradient = with_weights(loss_fn, variables, padded(weight=(0, 0, 0)))
    assert float(loss) == 0
    chex.assert_trees_all_equal(state["batch_stats"], variables["batch_stats"])
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradient))


def test_weights_that_are_known_to_be_one_mask_nothing():
    loss_fn, variables = training.standard(Normed()), drawn(Normed())
    ones = np.ones(REAL, np.float32)
    assert padding.real_rows({"weight": ones}) is None
    batch = {**ROWS, "weight": ones}
    assert padding.filled(batch) is batch

    def program(weight):
        return str(
            jax.make_jaxpr(
                lambda rows: with_weights.__wrapped__(
                    loss_fn, variables, {**rows, "weight": weight(rows)}
                )
            )(ROWS)
        )

    traced = program(lambda rows: jnp.ones(REAL) * rows["image"][0, 0, 0, 0])
    assert traced.count("argmax") > program(lambda rows: ones).count("argmax")


def test_a_normalisation_that_does_not_see_the_rows_is_told():
    class Patches(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(x.reshape(-1, 4))

    x = jnp.ones((2, 8))
    variables = Patches().init(KEY, x)
    with (
        pytest.raises(ValueError, match="BatchNorm_0 sees 4 rows of a batch of 2"),
        statistics_of(jnp.array([True, False])),
    ):
        Patches().apply(variables, x, mutable=["batch_stats"])
