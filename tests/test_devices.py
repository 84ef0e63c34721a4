"""Sharing a batch: any number of devices gives the verdicts of one, in parts or whole."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import devices

HELPERS = pathlib.Path(__file__).parent / "helpers"


SLOW = ("survivors", "predictions", "placed", "trainings", "streams")


@pytest.mark.slow_for(*SLOW)
@pytest.mark.parametrize("part", ["batches", "training", *SLOW])
def test_three_devices_give_the_verdicts_of_one(part):
    done = subprocess.run(
        [sys.executable, HELPERS / "shared_by_three.py", part],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "3", "JAX_PLATFORMS": "cpu"},
        cwd=HELPERS.parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all the same\n")


def test_activations_are_counted_in_closed_form():
    weights = jnp.ones((3, 4))
    # The flattened image, the product, the maximum.
    network = jax.tree_util.Partial(lambda w, x: jnp.maximum(w @ x.ravel(), 0.0), weights)
    assert devices.activation_bytes(network, (2, 2, 1)) == 4 * (4 + 3 + 3)
    # What a network calls is counted like its own.
    inner = jax.tree_util.Partial(lambda w, x: jax.jit(jnp.dot)(w, x.ravel()), weights)
    assert devices.activation_bytes(inner, (2, 2, 1)) == 4 * (4 + 3)


def test_parts_fit_the_caches_and_never_exceed_what_was_asked():
    small, large = (2, 2, 1), (512, 512, 3)
    assert devices.rows_at_once(jnp.ravel, small, 300) == 300
    each = devices.rows_at_once(jnp.ravel, large, 300)
    assert each * devices.activation_bytes(jnp.ravel, large) <= devices.CACHED
    assert devices.rows_at_once(jnp.sin, (2048, 2048, 3), 300) == devices.FEWEST
    assert devices.rows_at_once(jnp.sin, (2048, 2048, 3), 3) == 3


def test_a_large_batch_in_parts_is_the_batch(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((21, 3, 3, 1), np.float32), np.arange(21) % 4
    network = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), rng.normal(size=(4, 9)))
    attack = advfeat.pgd(advfeat.l2(0.5), steps=5, random_start=True)
    given = jax.random.key(0), attack, network, x, y
    whole = advfeat.attack_batch(*given)
    monkeypatch.setattr(devices, "rows_at_once", lambda *_: 8)
    parts = advfeat.attack_batch(*given)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert isinstance(b, jax.Array)
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_parts_are_told_in_order_and_padding_is_left_out():
    told = []

    def doubled(rows):
        return {"rows": rows, "double": jnp.asarray(2 * rows)}

    found = devices.in_parts(doubled, 10, 4, told.append)
    assert told == [4, 4, 2]
    np.testing.assert_array_equal(found["double"], 2 * np.arange(10))


def test_a_function_of_rows_is_jit_within_jit_and_grad():
    @devices.shared("x", static=("times",))
    def scaled(weight, x, times):
        return weight * x * times

    x = jnp.arange(3.0)
    assert float(jax.grad(lambda w: scaled(w, x, times=2).sum())(jnp.float32(1.0))) == 6.0
    np.testing.assert_array_equal(jax.jit(lambda x: scaled(2.0, x, 1))(x), 2 * x)
    np.testing.assert_array_equal(scaled(2.0, x, 3), 6 * x)
    assert scaled.__name__ == "scaled"


def test_a_batch_goes_to_as_many_devices_as_divide_it():
    assert devices.training_mesh(7).size == 1 == devices.data_mesh(jax.devices()[:1]).size
