"""A verdict is what the network says of a point: what a stranger computes from the images."""

import dataclasses
import functools
from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import advfeat
from advfeat.attacks import ATTACKS, norms_of
from advfeat.attacks.iterative import IterativeAttack
from advfeat.evaluation.prediction import shares
from advfeat.keys import stream
from advfeat.objectives.classification import Untargeted
from advfeat.types import AttackResult, Best, randomised

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
CLASSES, SHAPE, COUNT = 4, (2, 2, 3), 24
NETWORK = jax.tree_util.Partial(
    lambda w, x: 4 * w @ (x.ravel() - 0.5), jnp.asarray(RNG.normal(size=(CLASSES, 12)), jnp.float32)
)
X = RNG.uniform(size=(COUNT, *SHAPE)).astype(np.float32)
Y = advfeat.predict(NETWORK, X).argmax(1)
Y[:3] = (Y[:3] + 1) % CLASSES  # wrong without any attack


def claiming(attack, says):
    """An attack of the user's own, whose word for its success is `says`."""

    def attacked(key, model_fn, x, y):
        found = attack(key, model_fn, x, y)
        said = {"nothing": jnp.bool_(False), "everything": jnp.bool_(True)}.get(
            says, ~found.best.success
        )
        return found._replace(best=found.best._replace(success=said))

    return jax.tree_util.Partial(attacked)


@dataclasses.dataclass(frozen=True)
class Lying:
    """An objective whose word for success is `says`: the survivors engine stops where it claims."""

    says: str

    def __call__(self, key, model_fn, x, y):
        score, success = Untargeted()(key, model_fn, x, y)
        said = {"nothing": jnp.bool_(False), "everything": jnp.bool_(True)}
        return score, said.get(self.says, ~success)


SHORT = {"steps": 30, "binary_search_steps": 2}
EPS = {"linf": 0.1, "l2": 0.3, "l1": 1.0}


def catalogue():
    """Every attack in one norm, in the others as slow tests; and what makes attacks claim less."""
    for name, make in ATTACKS.items():
        options = {"targets": CLASSES - 1} if name.endswith("targeted") else {}
        options |= {key: most for key, most in SHORT.items() if key in signature(make).parameters}
        for place, norm in enumerate(norms_of(name)):
            yield pytest.param(
                make, norm, options, id=f"{name}-{norm}", marks=[pytest.mark.slow] if place else []
            )
    for name in ("pgd", "fgsm"):
        yield pytest.param(ATTACKS[name], "l2", {"keep": None}, id=f"{name}-unscored")
    for name in ("carlini_wagner", "elastic_net"):
        norm = norms_of(name)[0]
        yield pytest.param(
            ATTACKS[name], norm, {"confidence": 3.0, **SHORT}, id=f"{name}-confident"
        )


def stranger(x, threat):
    """Right without an attack, and not wrong at a point that is allowed."""
    weights = np.asarray(NETWORK.args[0], np.float64)
    logits = 4 * (x.reshape(COUNT, -1).astype(np.float64) - 0.5) @ weights.T
    wrong = logits.argmax(1) != Y
    moved = (x.astype(np.float64) - X).reshape(COUNT, -1)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[threat.norm.name]
    far = np.linalg.norm(moved, order, axis=1)
    inside = (
        (far <= float(threat.eps) * (1 + 1e-5)) & (x >= 0).all((1, 2, 3)) & (x <= 1).all((1, 2, 3))
    )
    return (advfeat.predict(NETWORK, X).argmax(1) == Y) & ~(wrong & inside)


@pytest.mark.slow_for(
    "apgd_ce-linf",
    "apgd_dlr-linf",
    "apgd_targeted-linf",
    "carlini_wagner-l2",
    "ddn-l2",
    "deepfool-linf",
    "elastic_net-confident",
    "elastic_net-l1",
    "fab-linf",
    "fab_targeted-linf",
    "fgsm-linf",
    "fgsm-unscored",
    "fmn-linf",
    "gaussian_noise-linf",
    "pgd-linf",
    "pgd-unscored",
    "pgd_adam-linf",
    "pgd_momentum-linf",
    "salt_and_pepper_noise-linf",
    "square-linf",
    "uniform_noise-linf",
)
@pytest.mark.parametrize(("make", "norm", "options"), list(catalogue()))
def test_robust_is_what_a_stranger_computes(make, norm, options):
    eps = EPS[norm]
    threat = advfeat.threat_model(norm, eps)
    attack = make(threat, **options)
    found = advfeat.evaluate(
        KEY, NETWORK, X, Y, threat=threat, suite={"one": attack}, checks=False, batch_size=COUNT
    )
    np.testing.assert_array_equal(found.robust, stranger(found.adversarial, threat))
    # And no point that the attack returns and that fools was left out.
    alone = advfeat.attack_dataset(stream(KEY, "one"), attack, NETWORK, X, Y, batch_size=COUNT)
    np.testing.assert_array_equal(found.robust, stranger(np.asarray(alone.best.x), threat))
    sweep = advfeat.evaluate_epsilons(
        stream(KEY, "one"), lambda _: attack, NETWORK, X, Y, [eps], norm=norm, batch_size=COUNT
    )
    np.testing.assert_array_equal(sweep.robust[0], found.robust)


@pytest.mark.slow_for("everything", "nothing")
@pytest.mark.parametrize("says", ["nothing", "everything", "the contrary"])
def test_what_an_attack_says_of_itself_changes_nothing(says):
    threat = advfeat.l2(0.3)
    attack = advfeat.pgd(threat, steps=5)
    honest, other = (
        advfeat.evaluate(KEY, NETWORK, X, Y, threat=threat, suite={"a": each}, checks=False)
        for each in (jax.tree_util.Partial(attack), claiming(attack, says))
    )
    np.testing.assert_array_equal(other.robust, honest.robust)
    assert 0 < honest.robust.mean() < honest.clean.mean()
    sweeps = [
        advfeat.evaluate_epsilons(KEY, lambda _, a=each: a, NETWORK, X, Y, [0.3], norm="l2").robust
        for each in (attack, claiming(attack, says))
    ]
    np.testing.assert_array_equal(*sweeps)


@pytest.mark.slow_for("nothing", "the contrary")
@pytest.mark.parametrize("says", ["nothing", "everything", "the contrary"])
def test_what_an_objective_claims_changes_no_verdict(says):
    """An iterative attack goes through the survivors engine, which stops at the first claim."""
    threat = advfeat.l2(0.3)
    attack = advfeat.pgd(threat, steps=5, objective=Lying(says))
    assert isinstance(attack, IterativeAttack)
    found = advfeat.evaluate(
        KEY, NETWORK, X, Y, threat=threat, suite={"a": attack}, checks=False, batch_size=COUNT
    )
    np.testing.assert_array_equal(found.robust, stranger(found.adversarial, threat))
    (part,) = found.attacks
    tried, fooled = part.tried.sum(), part.fooled.sum()
    wrong = tried - fooled
    claims = {"nothing": (0, 0), "everything": (tried, wrong), "the contrary": (wrong, wrong)}
    assert (part.claims, part.unconfirmed) == claims[says]
    if says == "nothing":  # it went on to the end, and the highest score fools
        assert fooled > 0
    sweep = advfeat.evaluate_epsilons(KEY, lambda _: attack, NETWORK, X, Y, [0.3], norm="l2")
    alone = advfeat.attack_dataset(KEY, attack, NETWORK, X, Y, batch_size=COUNT)
    np.testing.assert_array_equal(sweep.robust[0], stranger(np.asarray(alone.best.x), threat))


def plane(x):
    z = (x - 0.5).sum()
    return jnp.stack([z, -z])


def near_the_plane(count):
    x = RNG.uniform(0.3, 0.7, size=(count, 4, 4, 1)).astype(np.float32)
    return x, advfeat.predict(plane, x).argmax(1)


@pytest.mark.slow_for("pgd")
@pytest.mark.parametrize("name", ["pgd", "fgsm"])
def test_iterates_that_are_not_scored_fool_all_the_same(name):
    x, y = near_the_plane(300)
    threat = advfeat.linf(0.3)
    make = functools.partial(ATTACKS[name], keep=None)
    suite = {name: make(threat)}
    found = advfeat.evaluate(KEY, plane, x, y, threat=threat, suite=suite, checks=False)
    assert found.robust.sum() == 0
    sweep = advfeat.evaluate_epsilons(KEY, lambda e: make(advfeat.linf(e)), plane, x, y, [0.3])
    assert sweep.robust.sum() == 0


@pytest.mark.slow_for("0.0", "2.0")
@pytest.mark.parametrize("confidence", [0.0, 2.0, 6.0])
def test_a_confidence_that_is_not_reached_fools_all_the_same(confidence):
    x, y = near_the_plane(60)
    threat = advfeat.l2(1.0)
    suite = {
        "cw": ATTACKS["carlini_wagner"](
            threat, confidence=confidence, steps=100, binary_search_steps=3
        )
    }
    found = advfeat.evaluate(KEY, plane, x, y, threat=threat, suite=suite, checks=False)
    assert found.robust.sum() == 0


def outside(key, model_fn, x, y):
    """Fools, by a point that is not allowed, and says nothing of it."""
    far = Best(1 - x, jnp.float32(0), jnp.bool_(False), jnp.float32(0))
    return AttackResult(far, far, jnp.int32(1), jnp.int32(0))


def test_a_point_that_is_not_allowed_never_counts():
    x, y = near_the_plane(20)
    found = advfeat.evaluate(
        KEY, plane, x, y, threat=advfeat.linf(0.01), suite={"far": outside}, checks=False
    )
    assert found.robust.all()
    sweep = advfeat.evaluate_epsilons(KEY, lambda _: outside, plane, x, y, [0.01], norm="linf")
    assert sweep.robust.all()


# --- Networks that draw. --------------------------------------------------------------------------


def coin(key, x, *, right=0.7):
    """Right in so many of its draws, everywhere."""
    return jnp.where(jax.random.bernoulli(key, right), 1.0, -1.0) * jnp.stack([x.sum(), -x.sum()])


def held(seed):
    return advfeat.types.with_key(randomised(coin), jax.random.key(seed))


FULL = RNG.uniform(0.3, 0.7, size=(200, 2, 2, 1)).astype(np.float32)
ZEROS = np.zeros(200, int)


@pytest.fixture(scope="module")
def by_held_key():
    threat = advfeat.linf(0.05)
    suite = {"rand": ATTACKS["apgd_ce"](threat, steps=5, eot=2)}
    return {
        seed: advfeat.evaluate(
            KEY, held(seed), FULL, ZEROS, threat=threat, suite=suite, checks=False
        )
        for seed in (0, 1, 2, 3)
    }


def test_a_random_network_is_judged_by_many_draws():
    """The default run's own: forty images, one step of one attack, checks that cost nothing."""
    images = np.random.default_rng(1).uniform(0.3, 0.7, size=(40, 2, 2, 1)).astype(np.float32)
    found = advfeat.evaluate(
        KEY, held(0), images, ZEROS[-40:], threat=advfeat.linf(0.05), suite=["fgsm"], checks=False
    )
    error = np.sqrt(0.7 * 0.3 / (40 * found.looks))
    for estimate in (found.clean_accuracy, found.robust_accuracy):
        assert abs(estimate.mean - 0.7) < 4 * error
        assert estimate.low < 0.7 < estimate.high
    assert found.looks == 20
    assert found.robust.mean() > 0.8  # what a majority of draws would be
    assert found.trusted is False


@pytest.mark.slow
def test_a_random_network_is_judged_by_its_expectation(by_held_key):
    # 0.7 everywhere, attack or none: 200 images of 20 draws each have a standard error of 0.0072.
    for found in by_held_key.values():
        for estimate in (found.clean_accuracy, found.robust_accuracy):
            assert abs(estimate.mean - 0.7) < 4 * 0.0072
            assert estimate.low < 0.7 < estimate.high
        assert found.looks == 20
        assert "20 draws an image" in str(found)
        assert {warned.code for warned in found.warnings} >= {"randomised"}
        assert found.trusted is False
    means = [found.robust_accuracy.mean for found in by_held_key.values()]
    assert np.ptp(means) < 0.01  # the key that a network holds is none of its properties


@pytest.mark.slow
def test_the_least_of_many_noisy_shares_is_not_what_is_reported(by_held_key):
    # Chosen and reported by the same draws, the worst of two points would be at 0.64.
    assert by_held_key[0].robust_accuracy.mean > 0.67


@pytest.mark.slow
def test_what_sees_randomness_runs_where_nothing_is_right_and_without_checks():
    wrong = np.ones(200, int)
    never = randomised(lambda key, x: jnp.stack([9.0 + jax.random.normal(key, ()), 0.0]))
    for checks in (False, True):
        found = advfeat.evaluate(
            KEY, never, FULL, wrong, threat=advfeat.linf(0.05), suite=["fgsm"], checks=checks
        )
        assert found.robust.sum() == 0
        assert "randomised" in {warned.code for warned in found.warnings}


def test_shares_of_a_network_without_randomness_are_whole():
    found = shares(KEY, plane, FULL, ZEROS)
    assert set(np.unique(found)) <= {0.0, 1.0}
    np.testing.assert_array_equal(found == 1, advfeat.correct(plane, FULL, ZEROS))


@pytest.mark.slow
def test_accuracy_and_sweeps_of_a_random_network_are_expectations():
    for seed in (0, 3):
        found = advfeat.correct(held(seed), FULL, ZEROS)
        assert found.shape == (200,)
        assert abs(found.mean() - 0.7) < 4 * 0.0072
        sweep = advfeat.evaluate_epsilons(
            KEY, lambda e: advfeat.pgd(advfeat.linf(e), steps=2), held(seed), FULL, ZEROS, [0, 0.05]
        )
        assert np.abs(sweep.robust.mean(axis=1) - 0.7).max() < 4 * 0.0072


# --- What may be trusted. -------------------------------------------------------------------------


def test_trusted_says_yes_no_or_not_checked():
    x, y = near_the_plane(60)
    given = {"threat": advfeat.linf(0.01), "suite": ["pgd"]}
    unchecked = advfeat.evaluate(KEY, plane, x, y, checks=False, **given)
    assert unchecked.trusted is None
    assert "NOT CHECKED" in str(unchecked)
    scaled = advfeat.evaluate(
        KEY, plane, x, y, checks=False, threat=advfeat.linf(8.0), suite=["uniform_noise"]
    )
    assert scaled.trusted is False  # what costs nothing is looked at in any case
