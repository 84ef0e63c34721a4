"""bfloat16 is for the network's arithmetic: weights, optimiser and attack stay float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import models, training

SHAPE, CLASSES, EPS = (8, 8, 1), 3, 0.0301  # no sum of pixel and eps is a bfloat16 number
RNG = np.random.default_rng(0)
LABELS = (np.arange(96) % CLASSES).astype(np.int32)
IMAGES = 0.2 + 0.3 * RNG.random((96, *SHAPE), np.float32)
IMAGES += np.float32(0.2) * LABELS[:, None, None, None]
BATCH = {"image": IMAGES, "label": LABELS, "id": np.arange(96), "weight": np.ones(96, np.float32)}
ATTACK = advfeat.pgd(advfeat.linf(EPS), steps=3, random_start=True, keep=None)


def made(name, dtype):
    model = models.create(name, num_classes=CLASSES, width=8, dtype=dtype)
    loss_fn = training.adversarial(model, advfeat.cross_entropy, ATTACK)
    return loss_fn, models.init(jax.random.key(0), model, SHAPE)


@pytest.mark.slow_for("resnet9")
@pytest.mark.parametrize("name", ["cnn", "resnet9"])
def test_the_network_computes_in_bfloat16_and_the_attack_does_not(name):
    loss_fn, variables = made(name, jnp.bfloat16)
    params = variables["params"]
    state = {k: v for k, v in variables.items() if k != "params"}
    program = str(jax.make_jaxpr(loss_fn)(jax.random.key(1), params, state, BATCH))
    assert "bf16" in program
    found = jax.jit(loss_fn.prepare)(jax.random.key(1), params, state, BATCH)["attacked"]
    assert found.dtype == jnp.float32
    moved = np.abs(np.asarray(found, np.float64) - IMAGES)
    assert moved.max() <= EPS * (1 + 1e-5)
    # Rounded to bfloat16, images near 0.5 would miss the ball's surface by up to 1e-3.
    assert np.quantile(moved, 0.9) == pytest.approx(EPS, rel=1e-5)


@pytest.mark.slow
def test_training_in_bfloat16_keeps_float32_and_learns_as_well():
    ends = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        loss_fn, variables = made("cnn", dtype)
        told = []
        state = training.fit(
            jax.random.key(1),
            loss_fn,
            variables,
            IMAGES,
            LABELS,
            training.TrainConfig(epochs=30, batch_size=32, learning_rate=0.02),
            num_classes=CLASSES,
            hooks=training.Hooks(on_epoch=lambda _, state, means, told=told: told.append(means)),
        )
        kept = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state))}
        assert {d for d in kept if jnp.issubdtype(d, jnp.floating)} == {jnp.dtype("float32")}
        ends[dtype] = told[-1]
    one, other = (end["loss"] for end in ends.values())
    assert one < 0.6 < np.log(CLASSES) - 0.4
    assert other == pytest.approx(one, abs=0.05)
