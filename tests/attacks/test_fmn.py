"""FMN: each iterate against NumPy float64, exact distances on linear models in every norm."""

import nearest
import numpy as np
import oracle
import pytest
from hypothesis import given, settings, strategies as st

import advfeat
from advfeat.objectives import losses

every_norm = pytest.mark.parametrize("norm", oracle.NORMS)


def reference(norm, x0, y, *, steps, step_size, last_step_size, gamma, last_gamma):
    """Algorithm 1 on NET, its radius a share gamma beyond the linear guess."""
    x0 = np.asarray(x0, np.float64)
    trail, radius, closest = [x0], np.inf, np.inf
    for k in range(steps):
        x = trail[-1]
        lead, gradient = nearest.margin_and_gradient(x, y)
        share = nearest.cosine(gamma, last_gamma, k / steps)
        far = oracle.length(norm, x - x0)
        if lead > 0:
            closest = min(closest, far)
            radius = min(radius * (1 - share), closest)
        elif np.isfinite(closest):
            radius *= 1 + share
        else:
            radius = (far - lead / oracle.dual_length(norm, gradient)) * (1 + share)
        step = nearest.cosine(step_size, last_step_size, k / steps)
        step = step * gradient / np.linalg.norm(gradient)
        trail.append(oracle.project(norm, radius, x0, x + step))
    return trail


@pytest.mark.slow_for("l1", "l2")
@every_norm
def test_every_iterate_is_that_of_numpy(norm):
    options = {
        "steps": 12,
        "step_size": 0.5,
        "last_step_size": 0.1,
        "gamma": 0.2,
        "last_gamma": 0.02,
    }
    attack = advfeat.fmn(advfeat.threat_model(norm, np.inf), **options)
    fooled = [
        nearest.check_iterates(norm, attack, x, y, reference(norm, x, y, **options))
        for x, y in zip(*nearest.smooth_images(), strict=True)
    ]
    assert any(fooled)


@pytest.mark.slow_for("False-0.1-l1", "False-0.1-l2")
@every_norm
@pytest.mark.parametrize("scale", [0.1, 20.0])
@pytest.mark.parametrize("corners", [False, True])
def test_it_finds_the_nearest_point_of_linear_models(norm, corners, scale):
    model, x, y = nearest.problem(2, scale=scale, corners=corners)
    attack = advfeat.fmn(advfeat.threat_model(norm, np.inf))
    found = nearest.attacked(attack, model, x, y)
    nearest.check_record(norm, np.inf, found, model, x, y)
    assert found.best.success.all()
    np.testing.assert_allclose(
        found.best.distance / nearest.nearest(norm, model, x, y), 1, atol=0.01
    )


@pytest.mark.slow_for("l1", "l2")
@every_norm
def test_a_targeted_attack_finds_the_nearest_point_of_its_class(norm):
    model, x, y = nearest.problem(3)
    targets = (y + 1) % nearest.CLASSES
    attack = advfeat.fmn(
        advfeat.threat_model(norm, np.inf), objective=advfeat.targeted(losses.margin)
    )
    best = nearest.attacked(attack, model, x, targets).best
    np.testing.assert_array_equal(np.argmax(nearest.logits_of(model, best.x), -1), targets)
    wanted = nearest.nearest_of_class(norm, model, x, targets)
    assert np.all(best.distance >= wanted * (1 - 1e-4))
    # Where two classes meet, a step along one's margin leads away from the other's.
    assert np.median(best.distance / wanted) < 1.05


@pytest.mark.slow_for("l2")
@every_norm
def test_the_contract_of_minimum_norm_attacks(norm):
    nearest.check_contract(norm, advfeat.fmn)


@every_norm
@given(seed=st.integers(0, 99), eps=st.sampled_from([0.0, 0.05, 0.3, 2.0, np.inf]))
@settings(max_examples=5, deadline=None, derandomize=True)
def test_what_it_claims_is_true(norm, seed, eps):
    found = nearest.check_claims(norm, advfeat.fmn(advfeat.threat_model(norm, eps)), seed)
    assert set(found.queries) == {101}
    assert set(found.gradients) == {100}


def test_the_last_step_is_a_hundredth_of_the_first_by_default():
    attack = advfeat.fmn(advfeat.l2(1.0), step_size=0.3)
    assert float(attack.last_step_size) == pytest.approx(0.003)
    assert float(advfeat.fmn(advfeat.l2(1.0), last_step_size=0.2).last_step_size) == np.float32(0.2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gamma": 1.5}, r"gamma must lie in \[0, 1\), got 1.5"),
        ({"last_gamma": -1.0}, "last_gamma must be >= 0, got -1"),
        ({"step_size": -1.0}, "step_size must be >= 0, got -1"),
        ({"last_step_size": np.nan}, "last_step_size must be >= 0, got NaN"),
    ],
)
def test_bad_options_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        advfeat.fmn(advfeat.l2(1.0), **options)
