"""Simulations of sample complexity: how far they run, and that they lie between the bounds."""

import jax
import pytest

from advfeat.theory import simulation


def test_the_gaussian_model_runs_to_where_the_paper_promises():
    model = simulation.gaussian_model(dim=10_000, noise=6.5, eps=0.6, draws=3)
    assert model.counts[0] == 1
    assert model.counts[-1] == 4096
    hopeless = simulation.gaussian_model(dim=10, noise=6.5, eps=0.6, draws=3)
    assert hopeless.counts[-1] == 2**13


def test_the_simulated_gaussian_errors_lie_between_the_bounds():
    model = simulation.Model(dim=100, scale=2.0, eps=0.3, counts=(1, 8), draws=20)
    found = simulation.simulate_gaussian(jax.random.key(0), model)
    for part in found["by_count"]:
        assert part["lower_bound"] <= part["least"].high
        assert part["standard"].mean <= part["robust"].mean


def test_one_example_gives_the_bernoulli_model_about_the_goal():
    model = simulation.bernoulli_model(dim=400, counts=(1,), draws=10)
    (part,) = simulation.simulate_bernoulli(jax.random.key(0), model)["by_count"]
    assert part["standard"].mean == pytest.approx(simulation.GOAL, rel=1.0)
    assert part["robust"].mean > 10 * part["standard"].mean
    assert part["threshold"].mean < part["robust"].mean


def test_errors_that_were_drawn_before_give_the_same_numbers():
    key = jax.random.key(3)
    model = simulation.Model(dim=50, scale=1.0, eps=0.2, counts=(1, 4), draws=12)
    errors = simulation.gaussian_errors(key, model)
    assert simulation.simulate_gaussian(key, model, errors=errors) == simulation.simulate_gaussian(
        key, model
    )
    few = simulation.bernoulli_model(dim=40, counts=(1, 2), draws=10)
    errors = simulation.bernoulli_errors(key, few)
    assert simulation.simulate_bernoulli(key, few, errors=errors) == simulation.simulate_bernoulli(
        key, few
    )
