"""The primitives inside somebody else's JAX: vmap, grad, jit, checkpoint, shard_map, devices."""

import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import advfeat

KEY = jax.random.key(0)
SHAPE = (2, 3, 1)
X = np.random.default_rng(0).uniform(0.3, 0.7, SHAPE).astype(np.float32)
W = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
V = np.random.default_rng(2).normal(size=(2, 5)).astype(np.float32)
U = np.random.default_rng(3).normal(size=(5, 6)).astype(np.float32)


def linear(weights, x):
    return weights @ x.ravel()


def curved(weights, x):
    return weights[0] @ jnp.tanh(3 * weights[1] @ x.ravel())


def attack_of(norm, eps, **options):
    options = {"steps": 5, "step_size": 2 * eps, "random_start": False, **options}
    return advfeat.pgd(advfeat.threat_model(norm, eps), **options)


# --- vmap over eps. -------------------------------------------------------------------------------


@pytest.mark.slow
def test_vmap_over_eps_equals_a_loop():
    model, x, grid = jax.tree_util.Partial(linear, W), jnp.asarray(X), [0.0, 0.05, 0.1, 0.2]

    def worst(eps):
        return advfeat.pgd(advfeat.linf(eps), steps=3)(KEY, model, x, 0).best.score

    found = jax.vmap(worst)(jnp.float32(grid))
    logits = W.astype(np.float64) @ X.astype(np.float64).ravel()
    clean, slope = logits[1] - logits[0], np.abs(W[1] - W[0]).sum()
    wanted = np.log1p(np.exp(clean + np.array(grid) * slope))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.slow
def test_an_attack_is_a_pytree_to_vmap_over():
    attacks = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(attack_of("linf", eps) for eps in (0.1, 0.02))
    )
    model, x = jax.tree_util.Partial(linear, W), jnp.asarray(X)
    found = jax.vmap(lambda attack: attack(KEY, model, x, 0).best.distance)(attacks)
    np.testing.assert_allclose(found, [0.1, 0.02], rtol=1e-5)


# --- grad through a loss that contains an attack. -------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "style"),
    [("linf", "partial"), ("l2", "partial"), ("l1", "partial"), ("l2", "closure")],
)
def test_the_gradient_of_a_robust_loss_is_danskins(norm, style):
    attack, x, eps = attack_of(norm, 0.1), jnp.asarray(X), 0.1

    def robust_loss(weights):
        model = jax.tree_util.Partial(linear, weights)
        if style == "closure":

            def model(x):
                return weights @ x.ravel()

        return advfeat.cross_entropy(model(attack(KEY, model, x, 0).best.x), 0)

    def exact(weights):
        # The worst case of a linear network in closed form, in float64.
        slope = weights[1] - weights[0]
        worst = slope @ X.ravel().astype(float) + eps * oracle.dual_length(norm, slope)
        return np.log1p(np.exp(worst))

    value, found = jax.jit(jax.value_and_grad(robust_loss))(jnp.asarray(W))
    weights, h = W.astype(np.float64), 1e-6
    wanted = np.zeros_like(weights)
    for index in np.ndindex(weights.shape):
        bump = np.zeros_like(weights)
        bump[index] = h
        wanted[index] = (exact(weights + bump) - exact(weights - bump)) / (2 * h)
    assert float(value) == pytest.approx(exact(weights), rel=1e-5)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.slow_for("partial")
@pytest.mark.parametrize("style", ["partial", "closure"])
def test_weights_are_cut_off_from_the_attack(style):
    # On a curved network two steps do not reach the maximum, so the path's own derivative shows.
    attack, x = attack_of("l2", 0.3, steps=2, step_size=0.1, keep=None), jnp.asarray(X)

    def robust_loss(weights):
        model = jax.tree_util.Partial(curved, weights)
        if style == "closure":

            def model(x):
                return curved(weights, x)

        return advfeat.cross_entropy(curved(weights, attack(KEY, model, x, 0).best.x), 0)

    weights = (jnp.asarray(V), jnp.asarray(U))
    found = jax.jit(jax.grad(robust_loss))(weights)
    point = jax.jit(attack)(KEY, jax.tree_util.Partial(curved, weights), x, 0).best.x
    wanted = jax.jit(jax.grad(lambda w: advfeat.cross_entropy(curved(w, point), 0)))(weights)
    chex.assert_trees_all_close(found, wanted, atol=1e-5)


@pytest.mark.slow
def test_no_steps_activations_are_kept_for_the_backward_pass():
    x, weights = jnp.asarray(X), (jnp.asarray(V), jnp.asarray(U))

    def kept(steps):
        attack = attack_of("l2", 0.3, steps=steps, step_size=0.1)

        def robust_loss(weights):
            model = jax.tree_util.Partial(curved, weights)
            return advfeat.cross_entropy(model(attack(KEY, model, x, 0).best.x), 0)

        _, backward = jax.vjp(robust_loss, weights)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept(3) == kept(30)


@pytest.mark.slow_for("l1", "l2")
@pytest.mark.parametrize("norm", oracle.NORMS)
def test_derivatives_in_eps_and_image_are_finite_and_right(norm):
    model, x = jax.tree_util.Partial(linear, W), jnp.asarray(X)

    def worst(eps, x):
        attack = advfeat.pgd(
            advfeat.threat_model(norm, eps),
            steps=2,
            step_size=1.0,
            random_start=False,
            objective=advfeat.untargeted(advfeat.margin),
        )
        return attack(KEY, model, x, 0).last.score

    slope = jax.jit(jax.grad(worst, argnums=(0, 1)))
    by_eps, by_x = slope(jnp.float32(0.1), x)
    assert float(by_eps) == pytest.approx(oracle.dual_length(norm, W[1] - W[0]), rel=1e-3)
    if norm != "l1":  # which pixel is the steepest is no smooth choice, the rest is
        np.testing.assert_allclose(by_x.ravel(), W[1] - W[0], atol=2e-3)
    for eps in (0.0, 5.0):
        assert all(np.isfinite(leaf).all() for leaf in slope(jnp.float32(eps), x))


# --- jit, checkpoint and shard_map around user code. ----------------------------------------------


@pytest.mark.slow
def test_a_users_jit_may_make_the_attack_or_close_over_its_parts():
    threat, x = advfeat.linf(0.1), jnp.asarray(X)
    model = jax.tree_util.Partial(linear, W)

    @jax.jit
    def made_inside(x):
        return advfeat.pgd(threat, steps=3)(KEY, model, x, 0).best.score

    @jax.jit
    def eps_traced(x, eps):
        return advfeat.pgd(advfeat.linf(eps), steps=3)(KEY, model, x, 0).best.score

    direct = jax.jit(advfeat.pgd(threat, steps=3))(KEY, model, x, 0).best.score
    np.testing.assert_allclose(made_inside(x), direct, rtol=1e-6)
    np.testing.assert_allclose(eps_traced(x, 0.1), direct, rtol=1e-6)


@pytest.mark.slow
def test_checkpointing_changes_nothing():
    attack, x = attack_of("linf", 0.1), jnp.asarray(X)

    def robust_loss(weights):
        model = jax.tree_util.Partial(curved, weights)
        return advfeat.cross_entropy(model(attack(KEY, model, x, 0).best.x), 0)

    weights = (jnp.asarray(V), jnp.asarray(U))
    plain = jax.jit(jax.grad(robust_loss))(weights)
    saved = jax.jit(jax.grad(jax.checkpoint(robust_loss)))(weights)
    chex.assert_trees_all_close(plain, saved, atol=1e-6)


DEVICES = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
jax.config.update("jax_numpy_rank_promotion", "raise")
import advfeat
from advfeat.attacks import ATTACKS
assert len(jax.devices()) == 8
rng = np.random.default_rng(0)
x = rng.random((16, 2, 3, 1)).astype(np.float32)
y, ids = np.arange(16, dtype=np.int32) % 3, np.arange(16, dtype=np.int32)
weights = jnp.asarray(rng.normal(size=(3, 6)), jnp.float32)
model = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), weights)
key = jax.random.key(0)
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
attacks = {
    "pgd": advfeat.pgd(
        advfeat.l2(0.4), steps=3, restarts=2, rule=advfeat.from_optax(optax.adam)),
    "noise": advfeat.gaussian_noise(advfeat.linf(0.1), restarts=2),
}
for name, attack in attacks.items():
    alone = advfeat.attack_batch(key, attack, model, x, y, ids=ids)
    assert len(alone.best.x.sharding.device_set) == 1
    put = lambda tree, how: jax.tree.map(lambda leaf: jax.device_put(leaf, how), tree)
    shared = advfeat.attack_batch(
        put(key, whole), put(attack, whole), put(model, whole),
        put(x, split), put(y, split), ids=put(ids, split))
    assert len(shared.best.x.sharding.device_set) == 8, shared.best.x.sharding

    def local(attack, key, ids, model, x, y):
        return advfeat.attack_batch(key, attack, model, x, y, ids=ids)

    mapped = jax.jit(jax.shard_map(
        local, mesh=mesh, in_specs=(P(), P(), P("data"), P(), P("data"), P("data")),
        out_specs=P("data")))(attack, key, ids, model, x, y)
    for other in (shared, mapped):
        np.testing.assert_array_equal(other.best.success, alone.best.success)
        np.testing.assert_array_equal(other.queries, alone.queries)
        np.testing.assert_allclose(other.best.x, alone.best.x, atol=1e-5)
        np.testing.assert_allclose(other.last.x, alone.last.x, atol=1e-5)
    print("same", name)


def over_eps(grid, model):
    # Only eps is split over the devices: image, label and key are the same on all.
    def worst(eps):
        return advfeat.pgd(advfeat.linf(eps), steps=2)(key, model, x[0], 0).best.score
    return jax.vmap(worst)(grid)


for fn in (model, lambda x: weights @ x.ravel()):
    grid = jnp.linspace(0, 0.3, 8)
    mapped = jax.jit(jax.shard_map(
        lambda grid: over_eps(grid, fn), mesh=mesh, in_specs=P("data"), out_specs=P("data")))
    np.testing.assert_allclose(mapped(grid), jax.jit(over_eps)(grid, model), rtol=1e-5)
    print("same eps")
"""


@pytest.mark.slow
def test_eight_devices_give_the_verdicts_of_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", DEVICES],
        env={**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("same") == 4
