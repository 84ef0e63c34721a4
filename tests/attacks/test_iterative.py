"""The iterative kernel: each iterate against NumPy float64, and which iterate is kept."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

import advfeat
from advfeat.attacks import step_rules
from advfeat.attacks.iterative import IterativeAttack
from advfeat.attacks.keeping import by_distance, by_score, by_success, choose
from advfeat.images.augmentation import flip
from advfeat.objectives.classification import transformed
from advfeat.types import Best, Evaluation, pytree, static

SHAPE = (2, 3, 1)
STEPS = 6
RULES = {
    "steepest": (advfeat.steepest, oracle.Steepest),
    "momentum": (advfeat.momentum(oracle.Momentum.decay), oracle.Momentum),
    "annealed": (step_rules.annealed(advfeat.steepest, oracle.Annealed.steps), oracle.Annealed),
    "adam": (advfeat.from_optax(optax.adam), oracle.Adam),
}
NET = oracle.TanhNet(0, SHAPE)
WEIGHTS = (jnp.float32(NET.u), jnp.float32(NET.v))


def tanh_net(weights, x):
    return weights[1] @ jnp.tanh(weights[0] @ x.ravel())


MODEL = jax.tree_util.Partial(tanh_net, WEIGHTS)
# Some pixels at the box, so that it matters from the first step on.
X0 = np.array([0.0, 1.0, 0.5, 0.9, 0.02, 0.6]).reshape(SHAPE)
EPS = {"linf": 0.15, "l2": 0.4, "l1": 0.8}


@pytest.mark.parametrize(
    ("norm", "rule"),
    [
        *((norm, "steepest") for norm in oracle.NORMS),
        ("linf", "momentum"),
        ("l2", "momentum"),
        ("l2", "annealed"),
        ("l2", "adam"),
    ],
)
def test_every_iterate_is_that_of_numpy(norm, rule):
    eps, step_size = EPS[norm], EPS[norm] / 4
    make, reference = RULES[rule]
    wanted = oracle.ascent(NET, norm, eps, X0, 1, reference(norm, step_size), steps=STEPS)
    threat = advfeat.threat_model(norm, eps)
    attack = advfeat.pgd(threat, steps=STEPS, step_size=step_size, rule=make)
    white_box = attack.oracle(MODEL, jnp.int32(1))

    @jax.jit
    def move(state):
        seen = white_box(jax.random.key(0), state.x)
        return attack.update(state, seen), seen

    state = attack.first(jax.random.key(0), jnp.float32(X0), jnp.float32(X0))
    for index, point in enumerate(wanted):
        np.testing.assert_allclose(state.x, point, atol=3e-5, err_msg=f"iterate {index}")
        assert int(state.step) == index
        state, seen = move(state)
        assert float(seen.score) == pytest.approx(NET.loss(point, 1), abs=1e-4)
        np.testing.assert_allclose(seen.grad, NET.gradient(point, 1), atol=1e-4)
        assert bool(seen.success) == (NET.logits(point).argmax() != 1)


@pytest.mark.slow_for("l2")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_ends_where_numpy_ends_and_keeps_its_best(norm):
    eps = EPS[norm]
    trail = oracle.ascent(NET, norm, eps, X0, 1, oracle.Steepest(norm, eps / 4), steps=STEPS)
    attack = advfeat.pgd(
        advfeat.threat_model(norm, eps), steps=STEPS, step_size=eps / 4, random_start=False
    )
    result = jax.jit(attack)(jax.random.key(0), MODEL, jnp.float32(X0), jnp.int32(1))
    np.testing.assert_allclose(result.last.x, trail[-1], atol=3e-5)
    np.testing.assert_allclose(result.last.score, NET.loss(trail[-1], 1), atol=1e-4)
    far = oracle.length(norm, trail[-1] - X0)
    np.testing.assert_allclose(result.last.distance, far, rtol=1e-4)
    fooled = [NET.logits(x).argmax() != 1 for x in trail]
    best = max(range(STEPS + 1), key=lambda i: (fooled[i], NET.loss(trail[i], 1)))
    np.testing.assert_allclose(result.best.score, NET.loss(trail[best], 1), atol=1e-4)
    np.testing.assert_allclose(result.best.x, trail[best], atol=3e-5)
    assert bool(result.best.success) == fooled[best]


# --- Which iterate is kept: a walk over scripted scores. ------------------------------------------


class Place(NamedTuple):
    x: Any
    x0: Any
    step: Any


@pytree
class Walk(IterativeAttack):
    """Walks along x = 0, 1, 2 … and reads the answers of the oracle from two lists."""

    scores: Any
    successes: Any
    steps: int = static()
    keep: Any = static()

    def first(self, key, x0, start):
        return Place(start, x0, jnp.int32(0))

    def update(self, search, seen):
        return search._replace(x=search.x + 1, step=search.step + 1)

    def distance(self, x0, x):
        return jnp.abs(x - x0)

    def oracle(self, model_fn, aim):
        def read(key, x):
            at = x.astype(int)
            return Evaluation(self.scores[at], self.successes[at], jnp.ones(()))

        return read

    value_oracle = oracle


def walk(scores, successes, *, keep=by_success):
    return _walk(Walk(jnp.float32(scores), jnp.array(successes), len(scores) - 1, keep))


@jax.jit
def _walk(attack):
    state = attack.init(jax.random.key(0), jnp.sin, jnp.zeros(()), 0, jnp.int32(0))
    for _ in range(attack.steps):
        state = attack.step(jnp.sin, state)
    return attack.finish(jnp.sin, state)


YES, NO = True, False


@pytest.mark.parametrize(
    ("scores", "successes", "keep", "kept"),
    [
        ([1, 5, 3, 2], [NO, NO, YES, NO], by_success, 2),
        ([1, 5, 3, 2], [NO, NO, YES, NO], by_score, 1),
        ([1, 5, 3, 4], [NO, YES, YES, NO], by_distance, 1),
        ([1, 2, 3, 4], [NO, YES, YES, NO], by_success, 2),
        ([1, 2, 3, 4], [NO, YES, YES, NO], by_distance, 1),
        ([1, 2, 3, 4], [NO, NO, NO, NO], by_distance, 3),
        ([4, 2, 3, 1], [NO, NO, NO, NO], by_success, 0),
        ([1, 1, 1, 1], [NO, NO, NO, NO], by_success, 0),  # the first of equals
        ([9, 2, 3, 1], [YES, NO, NO, YES], by_success, 0),
        ([1, 2, 3, 9], [NO, NO, NO, NO], by_score, 3),  # the last is scored too
        ([1, np.nan, 3, 2], [NO, YES, NO, NO], by_success, 2),  # a NaN never wins
        ([np.nan, 2, np.nan, 1], [YES, NO, YES, NO], by_score, 1),
    ],
)
def test_the_preferred_iterate_is_kept(scores, successes, keep, kept):
    result = walk(scores, successes, keep=keep)
    assert float(result.best.x) == kept
    assert float(result.best.score) == scores[kept]
    assert bool(result.best.success) == successes[kept]
    assert float(result.best.distance) == kept
    assert float(result.last.x) == len(scores) - 1
    assert float(result.last.score) == pytest.approx(scores[-1], nan_ok=True)
    assert (int(result.queries), int(result.gradients)) == (len(scores), len(scores) - 1)


def test_who_keeps_nothing_gets_the_final_iterate_unscored():
    result = walk([9, 1, 1, 7], [YES, NO, NO, NO], keep=None)
    assert float(result.best.x) == float(result.last.x) == 3
    assert float(result.best.distance) == 3
    assert float(result.best.score) == -np.inf
    assert (int(result.queries), int(result.gradients)) == (3, 3)


def test_only_nan_scores_keep_the_start():
    result = walk([np.nan] * 4, [YES] * 4)
    assert float(result.best.x) == 0
    assert not bool(result.best.success)


@pytest.mark.slow
def test_the_oracle_sees_a_fresh_key_at_every_step():
    seen = []

    def note(key, model_fn, x, y):
        jax.debug.callback(lambda bits: seen.append(int(bits)), jax.random.bits(key))
        return x.sum(), x.sum() > 9

    attack = advfeat.pgd(advfeat.linf(1.0), steps=4, step_size=0.1, objective=note)
    jax.block_until_ready(attack(jax.random.key(1), lambda x: x, jnp.zeros(2), 0))
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 5


def test_a_transformed_objective_sees_the_transform_drawn_from_its_key():
    objective = advfeat.targeted(advfeat.margin)
    through = transformed(objective, lambda key, x: x + jax.random.normal(key, x.shape))
    x, keys = jnp.array([0.1, 0.4, 0.2]), [jax.random.key(seed) for seed in (0, 1)]
    scores, seen = [], []
    for key in keys:
        score, success = through(key, lambda z: seen.append(z) or z, x, 1)
        wanted = objective(key, lambda z: z, seen[-1], 1)
        assert (float(score), bool(success)) == (float(wanted[0]), bool(wanted[1]))
        scores.append(float(score))
    assert scores[0] != scores[1]
    assert transformed(objective, flip) == transformed(objective, flip)
    assert hash(transformed(objective, flip)) == hash(transformed(objective, flip))


@pytest.mark.slow
def test_a_filtered_rule_moves_within_the_filters_range():
    def first_only(gradient):
        return gradient * jnp.array([1.0, 0.0, 0.0])

    rule = step_rules.filtered(advfeat.momentum(), first_only)
    assert rule == step_rules.filtered(advfeat.momentum(), first_only)
    made, x = rule(advfeat.linf(1.0), jnp.float32(0.1)), jnp.full(3, 0.5)
    move, _ = made.update(jnp.array([-2.0, 5.0, 1.0]), made.init(x), x)
    np.testing.assert_allclose(move, [-0.1, 0.0, 0.0])


def test_choose_takes_whole_records():
    low, high = (
        Best(jnp.full(2, v), jnp.float32(v), jnp.array(False), jnp.float32(v)) for v in (1.0, 2.0)
    )
    for new, old in ((low, high), (high, low)):
        kept = choose(by_score, new, old)
        assert {float(np.mean(leaf)) for leaf in (kept.x, kept.score, kept.distance)} == {2.0}


@pytest.mark.parametrize("scale", [3e-25, 1e20])
def test_momentum_feels_no_scale(scale):
    threat, gradient = advfeat.linf(1.0), jnp.array([1.0, -2.0, 0.5])
    moves = []
    for factor in (1.0, scale):
        rule = advfeat.momentum()(threat, jnp.float32(0.1))
        state = rule.init(gradient)
        for sign in (1.0, -0.5):
            move, state = rule.update(sign * factor * gradient, state, gradient)
        moves.append(move)
        assert np.isfinite(state[1].trace).all()
    np.testing.assert_allclose(*moves, atol=1e-7)
    np.testing.assert_allclose(state[1].trace, np.zeros(3), atol=1e-6)


@pytest.mark.slow
def test_a_zero_gradient_leaves_every_rule_at_rest():
    x, zero = jnp.full(3, 0.5), jnp.zeros(3)
    for (make, _), norm in itertools.product(RULES.values(), oracle.NORMS):
        rule = make(advfeat.threat_model(norm, 0.3), jnp.float32(0.1))
        move, _ = jax.jit(rule.update)(zero, rule.init(x), x)
        np.testing.assert_array_equal(move, zero)


def test_initial_state_is_that_of_the_rule():
    threat, x0 = advfeat.l2(1.0), jnp.full(3, 0.25)
    for make, _ in RULES.values():
        found = step_rules.initial_state(make, threat, jnp.float32(0.1), x0)
        wanted = make(threat, jnp.float32(0.1)).init(x0)
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        assert all(
            a.dtype == b.dtype and bool(jnp.all(a == b))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        )


def test_equal_rules_are_equal():
    assert advfeat.from_optax(optax.adam) == advfeat.from_optax(optax.adam)
    assert advfeat.momentum(0.5) == advfeat.momentum(0.5) != advfeat.momentum(0.6)
    once = step_rules.annealed(advfeat.steepest, 5)
    assert (
        once == step_rules.annealed(advfeat.steepest, 5) != step_rules.annealed(advfeat.steepest, 6)
    )
