"""Attacks: closed forms on linear models, threat models kept, true counts, one compilation.

One shape, one model function and the same static options everywhere, so that few are compiled.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import passes
import pytest

import advfeat
from advfeat.attacks import ATTACKS, keeping, norms_of
from advfeat.attacks.batch import _attack_batch

SHAPE = (2, 3, 1)
BATCH = 8
KEY = jax.random.key(0)
EPS = {"linf": 0.1, "l2": 0.3, "l1": 0.5}
every_norm = pytest.mark.parametrize("norm", oracle.NORMS)
# Each compiles for seconds: the default run has one norm of each attack, now this one, now that.
EVERYWHERE = [
    pytest.param(name, norm, marks=() if turn == place % len(norms_of(name)) else pytest.mark.slow)
    for place, name in enumerate(ATTACKS)
    for turn, norm in enumerate(norms_of(name))
]
# What is not defined for the two classes here.
TWO_CLASSES = {
    "apgd_dlr": {"loss": "margin"},
    "apgd_targeted": {"loss": "margin", "targets": 1},
    "fab_targeted": {"targets": 1},
}


def affine(params, x):
    weights, bias = params
    return weights @ x.ravel() + bias


def linear_model(seed=0):
    rng = np.random.default_rng(seed)
    params = (jnp.float32(rng.normal(size=(2, 6))), jnp.float32(rng.normal(size=2)))
    return jax.tree_util.Partial(affine, params)


def lead(model, x, y):
    """In float64: how far the other class lies above y, and the slope of that."""
    weights, bias = (np.asarray(leaf, np.float64) for leaf in model.args[0])
    slope = (weights[1 - y] - weights[y]).reshape(SHAPE)
    return np.sum(slope * np.asarray(x, np.float64)) + bias[1 - y] - bias[y], slope


def examples(seed, count=BATCH, low=0.0, high=1.0):
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, (count, *SHAPE)).astype(np.float32)


def attacked(attack, model, x, y, *, key=KEY, **options):
    return advfeat.attack_dataset(key, attack, model, x, y, batch_size=BATCH, **options)


LABELS = np.arange(BATCH) % 2


# --- Closed forms. --------------------------------------------------------------------------------


@pytest.mark.slow_for("l1", "l2")
@every_norm
def test_pgd_finds_the_worst_point_of_a_linear_model(norm):
    model, eps = linear_model(), EPS[norm]
    x = np.full((BATCH, *SHAPE), 0.5, np.float32)
    attack = advfeat.pgd(advfeat.threat_model(norm, eps), step_size=3 * eps)
    found = attacked(attack, model, x, LABELS).best
    for i, y in enumerate(LABELS):
        clean, slope = lead(model, x[i], y)
        worst = clean + eps * oracle.dual_length(norm, slope)
        assert lead(model, found.x[i], y)[0] == pytest.approx(worst, abs=1e-4)
        # With two classes cross-entropy is the softplus of the lead.
        assert float(found.score[i]) == pytest.approx(np.log1p(np.exp(worst)), abs=1e-4)
        assert bool(found.success[i]) == (worst > 0)


@pytest.mark.slow_for("l1", "l2")
@every_norm
def test_pgd_finds_the_worst_point_in_a_corner_of_the_box(norm):
    model, eps = linear_model(), 3 * EPS[norm]
    x = (np.round(examples(1) * 4) / 4).astype(np.float32)
    size = eps if norm == "l1" else 3 * eps
    attack = advfeat.pgd(advfeat.threat_model(norm, eps), step_size=size)
    found = attacked(attack, model, x, LABELS).best
    for i, y in enumerate(LABELS):
        clean, slope = lead(model, x[i], y)
        worst, _ = lead(model, oracle.project(norm, eps, x[i], x[i] + 1e7 * slope), y)
        error = worst - lead(model, found.x[i], y)[0]
        # Sparse L1 steps fill one pixel after the other, slowly; stalling leaves a quarter.
        assert -1e-5 < error < (0.1 * (worst - clean) if norm == "l1" else 1e-4)


def test_a_targeted_attack_reaches_the_other_end():
    model, eps, x = linear_model(3), 0.1, np.full((BATCH, *SHAPE), 0.5, np.float32)
    attack = advfeat.pgd(advfeat.linf(eps), step_size=1.0, objective=advfeat.targeted())
    found = attacked(attack, model, x, LABELS).best
    for i, target in enumerate(LABELS):
        clean, slope = lead(model, x[i], 1 - target)
        wanted = clean + eps * oracle.dual_length("linf", slope)
        assert lead(model, found.x[i], 1 - target)[0] == pytest.approx(wanted, abs=1e-4)
        assert float(found.score[i]) == pytest.approx(-np.log1p(np.exp(-wanted)), abs=1e-4)
        assert bool(found.success[i]) == (wanted > 0)


@every_norm
def test_fgsm_is_one_projected_step(norm):
    model, eps = linear_model(4), 2 * EPS[norm]
    x = (np.round(examples(3) * 4) / 4).astype(np.float32)
    found = attacked(advfeat.fgsm(advfeat.threat_model(norm, eps)), model, x, LABELS).last
    for i, y in enumerate(LABELS):
        step = eps * oracle.direction(norm, x[i], lead(model, x[i], y)[1])
        np.testing.assert_allclose(
            found.x[i], oracle.project(norm, eps, x[i], x[i] + step), atol=2e-5
        )


@every_norm
def test_infinite_eps_allows_any_image(norm):
    model, x = linear_model(6), examples(5)
    corners = np.float32([lead(model, x[i], y)[1] > 0 for i, y in enumerate(LABELS)])
    threat = advfeat.threat_model(norm, np.inf)
    found = attacked(advfeat.pgd(threat, step_size=5.0), model, x, LABELS).best
    np.testing.assert_allclose(found.x, corners, atol=2e-3)
    # The default step is made for the box; pixels that matter little may not get there.
    found = attacked(advfeat.pgd(threat), model, x, LABELS).best
    for i, y in enumerate(LABELS):
        start, reached, worst = (lead(model, at, y)[0] for at in (x[i], found.x[i], corners[i]))
        assert reached > start + 0.8 * (worst - start)


def test_what_is_misclassified_already_counts_as_fooled():
    model, x = linear_model(5), examples(4)
    wrong = np.array([int(lead(model, image, 0)[0] < 0) for image in x])
    still = advfeat.pgd(advfeat.l2(0.01), step_size=0.0)
    assert attacked(still, model, x, wrong).best.success.all()
    nearest = advfeat.pgd(advfeat.linf(0.2), random_start=False, keep=keeping.by_distance, steps=2)
    found = attacked(nearest, model, x, wrong).best
    np.testing.assert_array_equal(found.distance, np.zeros(BATCH))
    np.testing.assert_array_equal(found.x, x)


# --- Restarts and starts. -------------------------------------------------------------------------


@pytest.mark.slow
def test_restarts_keep_the_worst_of_each_example():
    model, x, y = linear_model(1), examples(6, 24), np.arange(24) % 2
    one, many = (
        attacked(advfeat.pgd(advfeat.linf(0.3), step_size=1e-4, restarts=n), model, x, y)
        for n in (1, 4)
    )
    assert np.all(many.best.success >= one.best.success)
    same = many.best.success == one.best.success
    assert np.all(many.best.score[same] >= one.best.score[same] - 1e-6)
    # The first restart is the single run; each of four starts is the worst as often as another.
    assert 0.5 < np.mean(many.best.score > one.best.score + 1e-6) < 0.95
    assert set(many.queries) == {4 * 41}
    assert set(many.gradients) == {4 * 40}
    # What is kept is a whole record: the image has the score that is claimed for it.
    for i, label in enumerate(y):
        wanted = np.log1p(np.exp(lead(model, many.best.x[i], label)[0]))
        assert float(many.best.score[i]) == pytest.approx(wanted, abs=1e-5)


def test_starts_fill_the_ball():
    x = np.full((400, *SHAPE), 0.5, np.float32)
    attack = advfeat.pgd(advfeat.l2(0.4), step_size=0.0)
    found = attacked(attack, linear_model(), x, np.zeros(400, int)).last
    assert np.mean((found.distance / 0.4) ** 6) == pytest.approx(0.5, abs=0.06)
    mean = (found.x - 0.5).mean(0)
    np.testing.assert_allclose(mean, np.zeros(SHAPE), atol=0.03)


# --- Threat models, for every attack of the registry. ---------------------------------------------


@functools.cache
def contains(norm):
    del norm
    return jax.jit(jax.vmap(lambda threat, x0, x: threat.contains(x0, x), (None, 0, 0)))


def test_every_attack_has_norms():
    for name in ATTACKS:
        defined = norms_of(name)
        assert set(defined) <= set(oracle.NORMS)
        for norm in set(oracle.NORMS) - set(defined):
            with pytest.raises(ValueError, match=f"threat must measure in .* got {norm}"):
                ATTACKS[name](advfeat.threat_model(norm, 0.1))


@pytest.mark.slow_for(
    "apgd_ce-l2",
    "apgd_dlr-l1",
    "apgd_targeted-linf",
    "carlini_wagner-l2",
    "ddn-l2",
    "elastic_net-l1",
    "fab-l1",
    "fab_targeted-linf",
    "pgd_adam-l2",
    "square-l1",
)
@pytest.mark.parametrize(("name", "norm"), EVERYWHERE)
def test_results_lie_in_the_threat_model(name, norm):
    x = examples(0)
    x[:4] = np.round(x[:4])  # black and white: every pixel in a corner of the box
    for eps in (0.0, 1e-3, 8 / 255, 0.7, 5.0):
        threat = advfeat.threat_model(norm, eps)
        attack = ATTACKS[name](threat, **TWO_CLASSES.get(name, {}))
        result = attacked(attack, linear_model(), x, LABELS)
        for point in (result.best, result.last):
            assert point.x.dtype == np.float32
            assert point.x.min() >= 0
            assert point.x.max() <= 1
            for i in range(BATCH):
                far = oracle.length(norm, point.x[i].astype(np.float64) - x[i])
                assert far <= eps + oracle.tolerance(norm, eps, 6)
                assert float(point.distance[i]) == pytest.approx(far, rel=1e-5, abs=1e-6)
            assert contains(norm)(threat, x, point.x).all()
        if eps == 0:
            np.testing.assert_array_equal(result.best.x, x)


def test_linf_results_survive_rounding_to_8_bits():
    x = np.float32(np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE)) / 255)
    result = attacked(advfeat.pgd(advfeat.linf(8 / 255)), linear_model(), x, LABELS)
    moved = np.round(result.best.x * 255) - np.round(x * 255)
    assert np.abs(moved).max() == 8


@pytest.mark.slow
def test_contains_refuses_what_is_outside():
    x0 = jnp.full(4, 0.5)
    for norm in oracle.NORMS:
        threat = advfeat.threat_model(norm, 0.2)
        edge = 0.5 + 0.2 * oracle.direction(norm, np.asarray(x0), np.array([4.0, 1.0, 0.5, 0.2]))
        points = jnp.float32([edge, 0.5 + 1.001 * (edge - 0.5)])
        inside = jax.vmap(threat.contains, (None, 0))(x0, points)
        np.testing.assert_array_equal(inside, [True, False])
        whole = advfeat.threat_model(norm, 9.0)
        assert not whole.contains(x0, jnp.array([0.5, 0.5, 0.5, 1.001]))


@every_norm
def test_a_network_of_nan_leaves_a_feasible_result(norm):
    model = jax.tree_util.Partial(affine, (jnp.full((2, 6), jnp.nan, jnp.float32), jnp.zeros(2)))
    x, threat = examples(9), advfeat.threat_model(norm, 0.2)
    best = attacked(advfeat.pgd(threat), model, x, LABELS).best
    assert np.isfinite(best.x).all()
    assert contains(norm)(threat, x, best.x).all()


# --- Counts. --------------------------------------------------------------------------------------


@pytest.mark.slow_for("attack0-8-6")
@pytest.mark.parametrize(
    ("attack", "queries", "gradients"),
    [
        (advfeat.pgd(advfeat.linf(0.1), steps=3, restarts=2), 8, 6),
        (advfeat.pgd(advfeat.linf(0.1), steps=3, keep=None), 3, 3),
        (advfeat.uniform_noise(advfeat.linf(0.1), restarts=4), 4, 0),
    ],
)
def test_counts_are_those_of_the_passes_really_made(attack, queries, gradients):
    made, said = passes.made_and_said(
        attack, KEY, lambda x: jnp.stack([jnp.sum(x), 0.0]), jnp.full(SHAPE, 0.5)
    )
    assert made == said == (queries, gradients)


# --- The compiled batch. --------------------------------------------------------------------------


@pytest.mark.slow_for("apgd_dlr", "apgd_targeted", "fab", "fab_targeted", "square", "uniform_noise")
@pytest.mark.parametrize("name", ATTACKS)
def test_a_second_call_does_not_compile_again(name):
    norm = "l2" if "l2" in norms_of(name) else norms_of(name)[0]
    steps = "step_size" in inspect.signature(ATTACKS[name]).parameters

    def attack(eps, scale, seed, first):
        step = {"step_size": scale * eps} if steps else {}
        options = TWO_CLASSES.get(name, {}) | step
        made = ATTACKS[name](advfeat.threat_model(norm, eps), **options)
        ids = np.arange(first, first + BATCH, dtype=np.int32)
        key = jax.random.key(seed)
        return advfeat.attack_batch(key, made, linear_model(seed), examples(seed), LABELS, ids=ids)

    attack(0.5, 0.2, 0, 0)
    size = _attack_batch._cache_size()
    attack(0.1, 0.3, 1, 9)
    attack(np.float32(2), np.float32(0.1), 2, 4)
    attack(jnp.float32(0.7), jnp.float32(0.1), 3, 0)
    assert _attack_batch._cache_size() == size


def test_a_plain_function_compiles_once_too():
    traces = []

    def model(x):
        traces.append(x)
        return jnp.stack([x.sum(), -x.sum()])

    counts = []
    for eps in (0.1, 0.2):
        attacked(advfeat.fgsm(advfeat.linf(eps)), model, examples(0), LABELS)
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


@pytest.mark.slow_for("pgd")
@pytest.mark.parametrize("name", ["pgd", "gaussian_noise"])
def test_draws_do_not_depend_on_batches_order_or_padding(name):
    model, x, y = linear_model(7), examples(7, 11), np.arange(11) % 2
    options = {"step_size": 1e-3} if name == "pgd" else {}
    attack = ATTACKS[name](advfeat.linf(0.2), **options)
    run = functools.partial(advfeat.attack_dataset, KEY, attack, model)
    whole = run(x, y, batch_size=BATCH)
    order = np.random.default_rng(0).permutation(11)
    for size in (3, BATCH):
        mixed = run(x[order], y[order], ids=order, batch_size=size)
        for field in ("x", "score", "success", "distance"):
            wanted = getattr(whole.best, field)[order]
            np.testing.assert_allclose(getattr(mixed.best, field), wanted, atol=1e-6)
    other = advfeat.attack_dataset(jax.random.key(1), attack, model, x, y, batch_size=BATCH)
    assert np.abs(other.last.x - whole.last.x).max() > 1e-3
    if name == "pgd":
        one = jax.jit(attack)(jax.random.fold_in(KEY, 5), model, jnp.asarray(x[5]), y[5])
        np.testing.assert_allclose(one.best.x, whole.best.x[5], atol=1e-6)


def test_progress_and_other_kinds_of_arrays():
    seen = []
    attack = advfeat.fgsm(advfeat.linf(0.1))
    x, y = examples(0, 11), [0, 1] * 5 + [0]
    first = attacked(attack, linear_model(), jnp.asarray(x), y, advance=seen.append)
    second = attacked(attack, linear_model(), x.astype(np.float64), np.array(y, np.uint8))
    assert seen == [8, 3]
    np.testing.assert_array_equal(first.best.x, second.best.x)


# --- Noise. ---------------------------------------------------------------------------------------


@pytest.mark.slow_for("uniform_noise-l1", "uniform_noise-l2")
@every_norm
@pytest.mark.parametrize("kind", ["uniform_noise", "gaussian_noise"])
def test_noise_has_exactly_the_norm(kind, norm):
    x = examples(0, 64, 0.3, 0.7)
    x[::8] = np.round(x[::8])
    eps = {"linf": 0.25, "l2": 0.3, "l1": 0.6}[norm]
    attack = ATTACKS[kind](advfeat.threat_model(norm, eps))
    found = attacked(attack, linear_model(), x, np.zeros(64, int)).best
    noise = (found.x - x).reshape(64, 6)
    room = np.where(noise > 0, 1 - x.reshape(64, 6), x.reshape(64, 6))
    stuck = np.all((np.abs(noise) >= room - 1e-6) | (noise == 0), axis=1)
    np.testing.assert_allclose(found.distance[~stuck], eps, rtol=1e-5)
    assert np.mean(stuck) < 0.05
    assert len({row.tobytes() for row in noise}) == 64
    assert 0.4 < np.mean(noise[noise != 0] > 0) < 0.6
    inner = noise[(found.x > 0).reshape(64, -1).all(1) & (found.x < 1).reshape(64, -1).all(1)]
    # A uniform draw has a flat tail: over the largest of six, its second moment is larger.
    ratio = np.mean((inner / np.abs(inner).max(1, keepdims=True)) ** 2)
    uniform = {"uniform_noise": (0.40, 0.54), "gaussian_noise": (0.28, 0.42)}[kind]
    assert uniform[0] < ratio < uniform[1]


@pytest.mark.slow
def test_salt_and_pepper_changes_a_tenth_of_the_pixels():
    x = np.full((BATCH, 16, 16, 3), 0.5, np.float32)
    attack = advfeat.salt_and_pepper_noise(advfeat.linf())
    model = jax.tree_util.Partial(lambda x: x[0, :2, 0])
    found = attacked(attack, model, x, LABELS).best.x
    changed = found != 0.5
    np.testing.assert_array_equal(changed.all(-1), changed.any(-1))
    assert changed.mean() == pytest.approx(0.1, abs=0.033)  # five standard deviations
    assert set(np.unique(found)) == {0.0, 0.5, 1.0}
    assert (found == 1).sum() / changed.sum() == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_repeats_keep_the_worst_draw():
    model, x, y = linear_model(8), examples(8, 32), np.arange(32) % 2
    once, often = (
        attacked(advfeat.gaussian_noise(advfeat.linf(0.2), restarts=n), model, x, y) for n in (1, 6)
    )
    assert np.all(often.best.success >= once.best.success)
    assert np.all(often.best.score >= once.best.score - 1e-6)
    assert np.mean(often.best.score > once.best.score) == pytest.approx(5 / 6, abs=0.25)
