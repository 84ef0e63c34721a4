"""Attacks that leave an image when it is fooled: the verdicts of the whole attack, for less."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat.attacks import survivors

KEY = jax.random.key(0)


def tanh_net(weights, x):
    return weights[1] @ jnp.tanh(weights[0] @ x.ravel())


def network(seed=0, classes=3, size=12):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(16, size)), rng.normal(size=(classes, 16))
    return jax.tree_util.Partial(tanh_net, jax.tree.map(jnp.float32, weights))


def problem(count, seed=0):
    x = np.random.default_rng(seed).uniform(size=(count, 2, 2, 3)).astype(np.float32)
    return x, advfeat.predict(network(), x).argmax(1)


@pytest.mark.parametrize(
    ("restarts", "count", "batch_size", "chunk"),
    [
        (1, 7, 8, 1),
        (3, 41, 8, 3),
        *(
            pytest.param(restarts, *rest, marks=pytest.mark.slow)
            for restarts, *rest in [
                (1, 1, 8, 3),
                (1, 41, 8, 3),
                (1, 41, 64, 50),
                (3, 1, 8, 3),
                (3, 7, 8, 1),
                (3, 41, 64, 50),
            ]
        ),
    ],
)
def test_verdicts_and_untouched_images_are_those_of_the_whole_attack(
    count, batch_size, chunk, restarts
):
    x, y = problem(count)
    attack = advfeat.pgd(advfeat.l2(0.25), steps=10, restarts=restarts)
    whole = advfeat.attack_dataset(KEY, attack, network(), x, y)
    if count > 7:
        assert 0.1 < whole.best.success.mean() < 0.9
    left = advfeat.attack_survivors(
        KEY, attack, network(), x, y, batch_size=batch_size, chunk=chunk
    )
    np.testing.assert_array_equal(left.best.success, whole.best.success)
    stood = ~whole.best.success
    for field in ("x", "score", "distance"):
        a, b = getattr(left.best, field)[stood], getattr(whole.best, field)[stood]
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_array_equal(left.queries[stood], whole.queries[stood])
    np.testing.assert_array_equal(left.gradients[stood], whole.gradients[stood])
    assert np.all(left.gradients <= whole.gradients)
    predicted = advfeat.predict(network(), left.best.x).argmax(1)
    np.testing.assert_array_equal(predicted != y, left.best.success)


@pytest.mark.slow
def test_a_fooled_image_costs_no_more_than_until_it_was_fooled():
    x, y = problem(64)
    attack = advfeat.pgd(advfeat.l2(0.4), steps=40)
    left = advfeat.attack_survivors(KEY, attack, network(), x, y, chunk=4, batch_size=16)
    fooled = left.best.success
    assert fooled.mean() > 0.3
    assert np.median(left.gradients[fooled]) < 20
    # The first evaluation that succeeded is the last one counted: an attack with a step less than
    # it took gradients succeeds there. One program for every image that took as many.
    for count in np.unique(left.gradients[np.flatnonzero(fooled)[:5]]):
        if count == 1:
            continue  # no attack has no steps
        rows = np.flatnonzero(fooled & (left.gradients == count))
        short = advfeat.pgd(advfeat.l2(0.4), steps=int(count) - 1, step_size=0.4 * 2.5 / 40)
        again = advfeat.attack_batch(KEY, short, network(), x[rows], y[rows], ids=rows)
        assert again.best.success.all()
        np.testing.assert_array_equal(again.queries, left.queries[rows])


@pytest.mark.slow
def test_new_numbers_do_not_compile_again():
    x, y = problem(20)
    sizes = []
    for eps, seed in ((0.1, 0), (0.3, 1), (0.5, 2)):
        attack = advfeat.pgd(advfeat.l2(eps), steps=6, restarts=2)
        advfeat.attack_survivors(jax.random.key(seed), attack, network(seed), x, y, batch_size=8)
        cached = (survivors._begin, survivors._chunk, survivors._resume)
        sizes.append([fn._cache_size() for fn in cached])
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.slow
def test_every_row_is_reported_once_with_its_result():
    x, y = problem(23)
    seen = {}

    def note(rows, result):
        for place, row in enumerate(rows):
            assert row not in seen
            seen[int(row)] = result.best.x[place]

    attack = advfeat.pgd(advfeat.l2(0.3), steps=5)
    run = functools.partial(advfeat.attack_survivors, KEY, attack, network())
    whole = run(x, y, batch_size=4, finished=note)
    assert sorted(seen) == list(range(23))
    for row, point in seen.items():
        np.testing.assert_array_equal(point, whole.best.x[row])
    # What is left after a kill, attacked alone, ends as it would have.
    rest = np.arange(9, 23)
    again = run(x[rest], y[rest], ids=rest, batch_size=4)
    np.testing.assert_array_equal(again.best.success, whole.best.success[rest])
    np.testing.assert_allclose(again.best.x, whole.best.x[rest], atol=1e-6)


@pytest.mark.slow_for("change2-ids must hold 3 entries")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"chunk": 0}, "chunk must be a whole number >= 1, got 0"),
        ({"ids": np.arange(2)}, "ids must hold 3 entries"),
    ],
)
def test_bad_input(change, message):
    x, y = problem(3)
    with pytest.raises(ValueError, match=message):
        advfeat.attack_survivors(KEY, advfeat.pgd(advfeat.l2(0.3)), network(), x, y, **change)
    with pytest.raises(ValueError, match="must lie in"):
        advfeat.attack_survivors(KEY, advfeat.pgd(advfeat.l2(0.3)), network(), x, y + 3)
