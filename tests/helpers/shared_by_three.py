"""Whatever loops over a batch, on three CPU devices and on one: the same verdicts.

JAX_NUM_CPU_DEVICES=3 python tests/helpers/shared_by_three.py
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import attacks, devices, models, saliency, training
from advfeat.evaluation.prediction import best_score_curve
from advfeat.types import randomised

jax.config.update("jax_numpy_rank_promotion", "raise")
KEY, COUNT, CLASSES = jax.random.key(0), 26, 3
RNG = np.random.default_rng(0)
X = RNG.random((COUNT, 6, 6, 1)).astype(np.float32)
Y = (np.arange(COUNT) % CLASSES).astype(np.int32)
MODEL = models.create("mlp", num_classes=CLASSES)
VARIABLES = models.init(KEY, MODEL, (6, 6, 1))
NETWORK = models.model_fn(MODEL, VARIABLES)
L2 = advfeat.l2(0.6)
ATTACKS = {
    "pgd": advfeat.pgd(L2, steps=4, restarts=2, random_start=True),
    "square": advfeat.square(L2, steps=30),
    "noise": advfeat.gaussian_noise(L2, restarts=2),
}


def alone():
    return jax.default_device(jax.devices()[0])


def same(one, other, what):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, atol=2e-5, err_msg=what)
        else:
            np.testing.assert_array_equal(a, b, err_msg=what)
    print("same", what)


def batches():
    for name in ("pgd", "square"):
        attack = ATTACKS[name]
        run = partial(advfeat.attack_batch, KEY, attack, NETWORK, X, Y, ids=np.arange(COUNT))
        shared = run()
        assert len(shared.best.x.sharding.device_set) == 1
        assert not shared.best.x.committed
        with alone():
            single = run()
        same(single, shared, f"attack_batch {name}")
        whole = advfeat.attack_dataset(KEY, attack, NETWORK, X, Y, batch_size=7)
        same(single, whole, f"attack_dataset {name}")
    size = attacks.batch._attack_batch._cache_size()
    weaker = advfeat.pgd(advfeat.l2(0.1), steps=4, restarts=2, random_start=True)
    advfeat.attack_batch(KEY, weaker, NETWORK, X, Y, ids=np.arange(COUNT))
    assert attacks.batch._attack_batch._cache_size() == size, "compiled again"


def verdicts(result):
    stood = ~result.best.success
    return result.best.success, result.queries[stood], result.best.x[stood]


def survivors():
    for name in ("pgd", "square"):
        run = partial(advfeat.attack_survivors, KEY, ATTACKS[name], NETWORK, X, Y)
        with alone():
            single = verdicts(run(batch_size=10))
        for size in (2, 8):
            same(single, verdicts(run(batch_size=size)), f"survivors {name} {size}")


def predictions():
    noisy = randomised(lambda key, x: NETWORK(x) + jax.random.normal(key, (CLASSES,)))
    runs = {
        "predict": lambda: advfeat.predict(NETWORK, X, batch_size=8),
        "draws": lambda: advfeat.predict(noisy, X, batch_size=8, key=KEY),
        "curve": lambda: best_score_curve(KEY, ATTACKS["pgd"], NETWORK, X, Y, batch_size=9),
        "map": lambda: advfeat.attack_dataset(
            KEY, saliency.gradient(), NETWORK, X, Y, batch_size=9
        ),
    }
    for name, run in runs.items():
        with alone():
            single = run()
        same(single, run(), name)


def placed():
    """Who says where rows are computed is obeyed; weights on one device say nothing."""
    last = jax.devices()[-1]
    there = jax.device_put(X, last)
    result = advfeat.attack_batch(KEY, ATTACKS["pgd"], NETWORK, there, Y, ids=np.arange(COUNT))
    assert result.best.x.devices() == {last}
    held = models.model_fn(MODEL, jax.device_put(VARIABLES, last))
    same(advfeat.predict(NETWORK, X), advfeat.predict(held, X), "weights on one device")
    few = advfeat.attack_batch(KEY, ATTACKS["pgd"], NETWORK, X[:2], Y[:2], ids=np.arange(2))
    assert few.best.success.shape == (2,)


CONFIG = training.TrainConfig(
    epochs=2, batch_size=8, learning_rate=0.05, augment="flip_shift4", eps_warmup=0.5
)


def training_of_statistics():
    """A network with batch statistics: the attack on three devices, the update on one."""
    trained("batch statistics")


def trainings():
    for name in ("adversarial", "trades", "fast"):
        trained(name)


def trained(name):
    loss = advfeat.cross_entropy
    attack = advfeat.pgd(L2, steps=2, keep=None, random_start=True)
    normed = models.create("resnet9", num_classes=CLASSES, width=4)
    # Far from the example: next to it, rounding turns the direction of a gradient of nearly zero.
    trades = training.trades(MODEL, loss, attack, spread=0.3)
    cases = {
        "adversarial": (training.adversarial(MODEL, loss, attack), training.plain()),
        "batch statistics": (training.adversarial(normed, loss, attack), training.plain()),
        "trades": (trades, training.ema(training.awp())),
        "fast": (training.fast(MODEL, loss, L2, grad_align=0.1), training.plain(accumulate=2)),
    }
    assert devices.training_mesh(8).size == 1  # on CPU
    loss_fn, procedure = cases[name]
    variables = models.init(KEY, loss_fn.model, (6, 6, 1))
    given = KEY, loss_fn, variables, X, Y, CONFIG
    run = partial(training.fit, *given, num_classes=CLASSES, procedure=procedure)
    with alone():
        single = run()
    shared = run()
    assert all(len(leaf.sharding.device_set) == 1 for leaf in jax.tree.leaves(shared))
    same(single, shared, name)
    if name == "adversarial":
        sharded = devices.home(run(mesh=devices.data_mesh(jax.devices()[:2])))
        jax.tree.map(jnp.sum, sharded.params)
        same(single, sharded, f"{name}, sharded")


def streams():
    loss_fn = training.adversarial(MODEL, advfeat.cross_entropy, ATTACKS["pgd"])
    run = partial(training.fit_stream, KEY, loss_fn, VARIABLES, Padded(), CONFIG)
    with alone():
        single = run()
    same(single, run(), "a stream with padded rows")


class Padded:
    """Batches of eight rows, of which the last are padding that must not count."""

    steps_per_epoch, input_shape, batch_size = 3, (6, 6, 1), 8

    def after(self, steps):
        for step in range(steps, 6):
            rows = (8 * step + np.arange(8)) % COUNT
            weight = np.where(np.arange(8) < 8 - step, 1.0, 0.0).astype(np.float32)
            image = np.where(weight[:, None, None, None] > 0, X[rows], np.nan)
            yield {"image": image, "label": Y[rows], "id": rows.astype(np.int32), "weight": weight}


if __name__ == "__main__":
    assert len(jax.devices()) == 3
    parts = {f.__name__: f for f in (batches, survivors, predictions, placed, trainings, streams)}
    {**parts, "training": training_of_statistics}[sys.argv[1]]()
    print("all the same")
