"""The catalogue where JAX is set otherwise: 64 bits, strict promotion, other keys, threads."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat import saliency

ROOT = pathlib.Path(__file__).parents[1]
MODES = {
    "64 bits": {"JAX_ENABLE_X64": "1"},
    "strict promotion": {"JAX_NUMPY_DTYPE_PROMOTION": "strict"},
    "as it is": {},
}
KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(0.3, 0.7, (4, 2, 3, 1)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0])


def linear(x):
    return jnp.stack([x.sum(), x.max(), 1 - x.min()])


def ran(code, **env):
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, *code],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


# --- Precision. -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "parts"),
    [
        ("64 bits", ["attacks", "maps", "networks"]),
        ("strict promotion", ["attacks", "maps", "lossy", "trainings"]),
    ],
)
def test_the_catalogue_takes_every_precision(mode, parts):
    said = ran(
        ["tests/helpers/precisions.py", *parts], JAX_NUMPY_RANK_PROMOTION="raise", **MODES[mode]
    )
    assert said.endswith(" 0 failed\n"), said


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_attack_takes_every_precision_in_every_norm(mode):
    env, parts = {"JAX_NUMPY_RANK_PROMOTION": "raise", **MODES[mode]}, ["networks", "lossy"]
    parts += ["everywhere", "maps", "pictures", "trainings"]
    said = ran(["tests/helpers/precisions.py", *parts], **env)
    assert said.endswith(" 0 failed\n"), said


EVALUATED = """
import jax, jax.numpy as jnp, numpy as np, advfeat
rng = np.random.default_rng(0)
network = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), jnp.asarray(rng.normal(size=(4, 12))))
x = rng.uniform(0.2, 0.8, (6, 2, 3, 2))
y = np.asarray(jax.vmap(network)(x).argmax(1))
assert network.args[0].dtype == jnp.float64
found = advfeat.evaluate(jax.random.key(0), network, x, y, threat=advfeat.l2(0.1), suite=["fgsm"])
print(found.robust_accuracy.n)
"""


@pytest.mark.slow
def test_an_evaluation_in_64_bits_ends_with_its_checks():
    assert ran(["-c", EVALUATED], JAX_ENABLE_X64="1").strip() == "6"


@pytest.mark.slow_for("l1-bfloat16", "l2-bfloat16", "linf-bfloat16")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_an_attack_on_half_precision_is_that_on_the_same_image_in_float32(norm, dtype):
    threat = advfeat.threat_model(norm, 0.0301)
    x = jnp.asarray(IMAGES[0], dtype)
    attack = advfeat.pgd(threat, steps=2)
    found, wanted = (attack(KEY, linear, at, 0).best for at in (x, x.astype(jnp.float32)))
    np.testing.assert_array_equal(found.x, wanted.x)
    assert bool(threat.contains(x.astype(jnp.float32), found.x))
    # In half precision the step alone would be wrong by more than this.
    assert float(wanted.distance) == pytest.approx(0.0301, rel=1e-4)


@pytest.mark.slow
def test_an_eager_image_of_float64_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = advfeat.fgsm(advfeat.linf(0.1))(KEY, linear, IMAGES[0].astype(np.float64), 0)
        saliency.gradient()(KEY, linear, IMAGES[0].astype(np.float64), 0)
    assert found.best.x.dtype == jnp.float32


# --- Keys. ----------------------------------------------------------------------------------------


@pytest.mark.slow_for(
    "False-rbg",
    "False-threefry2x32",
    "False-unsafe_rbg",
    "True-rbg",
    "True-threefry2x32",
)
@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "threefry2x32"])
@pytest.mark.parametrize("raw", [False, True])
def test_draws_depend_on_key_and_id_alone(impl, raw):
    make = jax.random.PRNGKey if raw else jax.random.key
    key, other, ids = make(3, impl=impl), make(4, impl=impl), np.arange(4)
    noise, method = advfeat.uniform_noise(advfeat.linf(0.1)), saliency.smoothgrad(samples=2)

    def drawn(key, rows):
        given = (key, noise, linear, IMAGES[rows], LABELS[rows])
        return advfeat.attack_batch(*given, ids=ids[rows]).best.x

    whole = drawn(key, slice(None))
    for i in range(4):
        alone = drawn(key, slice(i, i + 1))
        np.testing.assert_array_equal(alone[0], whole[i])
    assert not np.array_equal(whole, drawn(other, slice(None)))
    # The same by anybody's vmap, and of the maps.
    typed = jax.random.wrap_key_data(key, impl=impl) if raw else key
    keys = jax.vmap(jax.random.fold_in, (None, 0))(typed, ids)
    for run in (noise, method):
        batch = (keys, advfeat.as_model_fn(linear), IMAGES, LABELS)
        many = jax.jit(jax.vmap(run, (0, None, 0, 0)))(*batch)
        one = run(keys[2], linear, IMAGES[2], 2)
        for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a[2], b, atol=1e-6)


def test_a_raw_key_is_the_typed_one():
    attack = advfeat.uniform_noise(advfeat.linf(0.1))
    one, other = (attack(key, linear, IMAGES[0], 0) for key in (jax.random.PRNGKey(0), KEY))
    np.testing.assert_array_equal(one.best.x, other.best.x)


# --- Threads. -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_find_what_one_alone_finds():
    attack, ids = advfeat.pgd(advfeat.linf(0.1), steps=3), np.arange(4)

    def found(seed):
        key = jax.random.key(seed)
        batch = advfeat.attack_batch(key, attack, linear, IMAGES, LABELS, ids=ids)
        whole = advfeat.attack_dataset(key, attack, linear, IMAGES, LABELS, batch_size=3)
        return np.asarray(batch.best.x), whole.best.x

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(found, range(8)))
    for seed, (batch, whole) in enumerate(together):
        alone = found(seed)
        np.testing.assert_array_equal(batch, alone[0])
        np.testing.assert_array_equal(whole, alone[1])
