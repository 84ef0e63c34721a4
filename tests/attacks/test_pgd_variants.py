"""MI-FGSM and PGD with Adam against NumPy, and what they do to a linear model."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import advfeat
from advfeat.attacks.pgd_variants import AnnealedAdam

SHAPE = (3, 2, 2)
KEY = jax.random.key(0)
EPS = {"linf": 0.2, "l2": 0.5, "l1": 1.0}
NET = oracle.TanhNet(0, SHAPE)
NETWORK = jax.tree_util.Partial(
    lambda weights, x: weights[1] @ jnp.tanh(weights[0] @ x.ravel()),
    (jnp.asarray(NET.u, jnp.float32), jnp.asarray(NET.v, jnp.float32)),
)
X = np.random.default_rng(1).uniform(0.1, 0.9, SHAPE).astype(np.float32)
every_norm = pytest.mark.parametrize("norm", oracle.NORMS)


@jax.jit
def attacked(attack, model, x, y, key=KEY):
    return attack(key, model, x, y)


class MarginNet(oracle.TanhNet):
    """The same network; what is ascended is how far the best other class lies above y."""

    def loss(self, x, y):
        return float(self._away(x, y) @ self.logits(x))

    def gradient(self, x, y):
        h = np.tanh(self.u @ np.asarray(x, np.float64).ravel())
        return (self.u.T @ ((self.v.T @ self._away(x, y)) * (1 - h**2))).reshape(SHAPE)

    def _away(self, x, y):
        logits = self.logits(x)
        away = np.zeros(len(logits))
        away[np.argmax(np.where(np.arange(len(logits)) == y, -np.inf, logits))] = 1
        away[y] -= 1
        return away


class PaperMomentum(oracle.Momentum):
    decay = 1.0


class PaperAdam(oracle.Adam):
    """Adam whose step is a tenth from halfway on, sized by the norm of a move of all values."""

    steps = 8

    def __call__(self, x, gradient):
        later = 0.1 if self.count >= self.steps / 2 else 1.0
        return later * super().__call__(x, gradient) / oracle.length(self.norm, np.ones(SHAPE))


@pytest.mark.slow_for("l1")
@every_norm
def test_momentum_takes_the_papers_ten_steps(norm):
    eps, y = EPS[norm], int(np.argmax(NET.logits(X)))
    attack = advfeat.pgd_momentum(advfeat.threat_model(norm, eps))
    found = attacked(attack, NETWORK, X, y)
    trail = oracle.ascent(NET, norm, eps, X, y, PaperMomentum(norm, eps / 10), steps=10)
    np.testing.assert_allclose(found.last.x, trail[-1], atol=2e-5)
    assert (int(found.queries), int(found.gradients)) == (11, 10)
    losses = [NET.loss(x, y) for x in trail]
    wrong = [np.argmax(NET.logits(x)) != y for x in trail]
    assert float(found.best.score) == pytest.approx(
        max(loss for loss, is_wrong in zip(losses, wrong, strict=True) if is_wrong == max(wrong)),
        abs=1e-4,
    )


@pytest.mark.slow_for("l2-5")
@pytest.mark.parametrize(("norm", "steps"), [("linf", 8), ("l2", 8), ("l2", 5)])
def test_adam_takes_adams_steps(norm, steps):
    eps, y = EPS[norm], int(np.argmax(NET.logits(X)))
    threat = advfeat.threat_model(norm, eps)
    attack = advfeat.pgd_adam(threat, steps=steps, step_size=0.3 * eps, random_start=False)
    found = attacked(attack, NETWORK, X, y)
    rule = PaperAdam(norm, 0.3 * eps)
    rule.steps = steps
    trail = oracle.ascent(MarginNet(0, SHAPE), norm, eps, X, y, rule, steps=steps)
    np.testing.assert_allclose(found.last.x, trail[-1], atol=2e-5)
    wanted = MarginNet(0, SHAPE).loss(trail[-1], y)
    assert float(found.last.score) == pytest.approx(wanted, abs=1e-4)


def test_the_defaults():
    made = advfeat.pgd_momentum(advfeat.linf(0.3))
    assert (made.steps, made.rounds, made.random_start, made.rule.decay) == (10, 1, False, 1.0)
    assert float(made.step_size) == pytest.approx(0.03)
    assert made.objective == advfeat.untargeted()
    made = advfeat.pgd_adam(advfeat.linf(0.3), restarts=2)
    assert (made.steps, made.rounds, made.random_start) == (40, 2, True)
    assert float(made.step_size) == pytest.approx(0.9)
    assert made.objective == advfeat.untargeted(advfeat.margin)
    assert made.rule == AnnealedAdam(40) != AnnealedAdam(39)


@pytest.mark.slow_for("pgd_adam-l2", "pgd_momentum-l1")
@pytest.mark.parametrize(
    ("make", "norm"),
    [(advfeat.pgd_momentum, norm) for norm in oracle.NORMS]
    + [(advfeat.pgd_adam, "linf"), (advfeat.pgd_adam, "l2")],
)
def test_they_find_the_worst_point_of_a_linear_model(make, norm):
    slope = np.random.default_rng(2).normal(size=SHAPE)
    grey = np.full(SHAPE, 0.5, np.float32)
    weights = jnp.asarray(np.stack([np.zeros(12), slope.ravel()]), jnp.float32)
    model = jax.tree_util.Partial(lambda w, x: w @ x.ravel(), weights)
    eps = EPS[norm] / 4
    found = attacked(make(advfeat.threat_model(norm, eps)), model, grey, 0).best.x
    gained = np.sum(slope * (np.asarray(found, np.float64) - 0.5))
    # Adam's moves have no norm's direction; only the projection brings it there.
    share = 0.75 if make is advfeat.pgd_adam and norm == "l2" else 1 - 1e-4
    assert gained > share * eps * oracle.dual_length(norm, slope)


@pytest.mark.parametrize("make", [advfeat.pgd_momentum, advfeat.pgd_adam])
def test_no_gradient_is_no_move_and_no_nan(make):
    flat = jax.tree_util.Partial(lambda x: jnp.array([1.0, 0.0]) + 0.0 * x[0, 0, 0])
    options = {} if make is advfeat.pgd_momentum else {"random_start": False}
    found = attacked(make(advfeat.l2(0.5), **options), flat, X, 0)
    np.testing.assert_array_equal(found.last.x, X)
    assert np.isfinite(found.best.score)


def test_adam_is_not_for_l1():
    with pytest.raises(ValueError, match="threat must measure in linf or l2 for pgd_adam, got l1"):
        advfeat.pgd_adam(advfeat.l1(1.0))


def test_what_is_wrong_already_is_fooled_at_distance_0():
    y = int(np.argmin(NET.logits(X)))
    for made in (
        advfeat.pgd_momentum(advfeat.linf(0.0)),
        advfeat.pgd_adam(advfeat.linf(0.0), random_start=False),
    ):
        found = attacked(made, NETWORK, X, y).best
        assert bool(found.success)
        assert float(found.distance) == 0


@pytest.mark.slow
def test_new_numbers_do_not_trace_again():
    @jax.jit
    @chex.assert_max_traces(n=2)  # two attacks
    def run(attack):
        return attack(KEY, NETWORK, X, 0).best.x

    for eps in (0.1, np.float32(0.2), jnp.float32(0.3)):  # each way of writing a number
        run(advfeat.pgd_adam(advfeat.linf(eps), steps=2))
        run(advfeat.pgd_momentum(advfeat.linf(eps), steps=2))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (advfeat.pgd_momentum, {"steps": 0}, "steps must be a whole number >= 1, got 0"),
        (advfeat.pgd_momentum, {"decay": 1.5}, r"decay must lie in \[0, 1\], got 1.5"),
        (advfeat.pgd_momentum, {"step_size": -1.0}, "step_size must be >= 0, got -1"),
        (advfeat.pgd_adam, {"steps": 0}, "steps must be a whole number >= 1, got 0"),
        (advfeat.pgd_adam, {"restarts": 0}, "restarts must be a whole number >= 1, got 0"),
        (
            advfeat.pgd_adam,
            {"restarts": 2, "random_start": False},
            "restarts must be 1 without a random start, got 2",
        ),
    ],
)
def test_bad_options_are_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(advfeat.linf(0.1), **options)
