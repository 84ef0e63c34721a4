"""Accuracy, clean and over a list of eps, against the exact curve of a linear network."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import advfeat

SHAPE = (2, 3, 1)
COUNT = 60
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(2, 6)).astype(np.float32)
IMAGES = RNG.uniform(0.4, 0.6, (COUNT, *SHAPE)).astype(np.float32)
MODEL = jax.tree_util.Partial(lambda w, x: w @ (x.ravel() - 0.5), jnp.asarray(WEIGHTS))
SLOPE = (WEIGHTS[0] - WEIGHTS[1]).astype(np.float64)
MARGIN = (IMAGES.reshape(COUNT, 6).astype(np.float64) - 0.5) @ SLOPE
LABELS = np.less(MARGIN, np.quantile(MARGIN, 0.4)).astype(np.int32)  # some of them are wrong


def exact(norm, eps):
    """Whether a linear network stays right everywhere in the ball: its margin over the slope."""
    signed = np.where(LABELS == 0, MARGIN, -MARGIN)
    return signed > eps * oracle.dual_length(norm, SLOPE)


def sweep(norm, epsilons, **options):
    return advfeat.evaluate_epsilons(
        KEY,
        lambda eps: advfeat.pgd(advfeat.threat_model(norm, eps), steps=5, step_size=4 * eps),
        MODEL,
        IMAGES,
        LABELS,
        epsilons,
        batch_size=25,
        **options,
    )


def test_clean_accuracy():
    right = advfeat.correct(MODEL, IMAGES, LABELS)
    np.testing.assert_array_equal(right, exact("l2", 0.0))
    assert 0.3 < right.mean() < 0.95
    wanted = (IMAGES.reshape(COUNT, 6) - 0.5) @ WEIGHTS.T
    for size in (1, 7, 60, 1000):
        logits = advfeat.predict(MODEL, IMAGES, batch_size=size)
        np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-6)
        assert logits.shape == (COUNT, 2)
    by_list = advfeat.correct(MODEL, jnp.asarray(IMAGES), LABELS.tolist())
    np.testing.assert_array_equal(by_list, right)


@pytest.mark.slow_for("l1", "l2")
@pytest.mark.parametrize("norm", oracle.NORMS)
def test_the_robust_accuracy_of_a_linear_network_is_exact(norm):
    largest = 0.1 if norm == "linf" else 0.3
    grid = [0.0, *np.linspace(0.003, largest, 6)]
    found = sweep(norm, grid)
    wanted = np.stack([exact(norm, eps) for eps in grid])
    reach = np.array(grid)[:, None] * oracle.dual_length(norm, SLOPE)
    blurred = np.abs(np.abs(MARGIN) - reach) < 1e-5  # float32 cannot tell these
    assert blurred.mean() < 0.05
    np.testing.assert_array_equal(found.robust | blurred, wanted | blurred)
    accuracy = found.robust.mean(axis=1)
    assert accuracy[0] > accuracy[3] > accuracy[-1]


def test_the_order_given_is_the_order_returned():
    grid = [0.02, 0.0, 0.1, 0.005, 0.02]
    found = sweep("linf", grid)
    np.testing.assert_array_equal(found.epsilons, grid)
    in_order = sweep("linf", sorted(grid))
    np.testing.assert_array_equal(found.robust[np.argsort(grid, kind="stable")], in_order.robust)
    np.testing.assert_array_equal(found.robust[0], found.robust[4])
    np.testing.assert_array_equal(found.robust[1], advfeat.correct(MODEL, IMAGES, LABELS))


def test_what_fell_stays_fallen():
    # An attack that succeeds at small eps only: the larger eps allows the same image.
    def attack_for(eps):
        step = jnp.where(eps < 0.1, 4 * eps, 0.0)
        return advfeat.pgd(advfeat.linf(eps), steps=5, step_size=step, random_start=False)

    found = advfeat.evaluate_epsilons(
        KEY, attack_for, MODEL, IMAGES, LABELS, [0.5, 0.05, 0.0], batch_size=25
    )
    assert found.robust[1].sum() < found.robust[2].sum()
    np.testing.assert_array_equal(found.robust[0], found.robust[1])


def test_eps_zero_asks_no_attack_and_infinity_is_an_eps():
    def never(eps):
        raise AssertionError("eps 0 is the clean accuracy")

    clean = advfeat.evaluate_epsilons(KEY, never, MODEL, IMAGES, LABELS, [0, 0.0])
    assert clean.robust.shape == (2, COUNT)
    found = advfeat.evaluate_epsilons(
        KEY,
        lambda eps: advfeat.pgd(advfeat.linf(eps), steps=5, step_size=1.0),
        MODEL,
        IMAGES,
        LABELS,
        [np.inf],
        batch_size=25,
    )
    # Some corner of the box is always on the other side of this network's boundary.
    assert not found.robust.any()


@pytest.mark.slow
def test_one_compilation_serves_every_eps_and_every_batch():
    traces, seen = [], []

    def counted(weights, x):
        traces.append(1)
        return weights @ x.ravel()

    def attack_for(eps):
        return advfeat.pgd(advfeat.linf(eps), steps=2)

    model = jax.tree_util.Partial(counted, jnp.asarray(WEIGHTS))
    options = {"batch_size": 25, "advance": seen.append}
    advfeat.evaluate_epsilons(KEY, attack_for, model, IMAGES, LABELS, [0.1], **options)
    before = len(traces)
    grid = [0.0, 0.2, 1, np.float32(0.3)]
    advfeat.evaluate_epsilons(KEY, attack_for, model, IMAGES, LABELS, grid, **options)
    assert len(traces) == before
    assert seen == [25, 25, 10] * 4


@pytest.mark.slow
def test_the_best_score_curve_is_what_attacks_of_so_many_steps_reach():
    threat = advfeat.l2(0.2)

    def attack(steps):
        return advfeat.pgd(threat, steps=steps, step_size=0.05)

    found = advfeat.best_score_curve(KEY, attack(4), MODEL, IMAGES, LABELS, batch_size=25)
    assert found.shape == (COUNT, 5)
    whole = advfeat.attack_dataset(KEY, attack(4), MODEL, IMAGES, LABELS)
    np.testing.assert_allclose(found[:, -1], whole.best.score, rtol=1e-5, atol=1e-6)
    for steps in (1, 3):
        short = advfeat.attack_dataset(KEY, attack(steps), MODEL, IMAGES, LABELS)
        np.testing.assert_allclose(found[:, steps], short.best.score, rtol=1e-5, atol=1e-6)
