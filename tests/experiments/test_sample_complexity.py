"""`experiments.sample_complexity`: what the smallest run measures, and what a run finds."""

import numpy as np
import pytest
from sweep_runs import SWEEPS

import advfeat
from advfeat import data, stats
from advfeat.theory import simulation
from experiments.sample_complexity import (
    plan as sample_complexity_plan,
    work as sample_complexity_work,
)
from experiments.sample_complexity.summary import (
    CLEAN,
    NOISE,
    ROBUST,
    Curves,
    _count,
    needed,
    reached,
)
from experiments.shared import sweeps

config = SWEEPS["sample_complexity"].config


def assert_rate(value, low=0.0, high=1.0):
    assert low <= value["low"] <= value["mean"] + 1e-9
    assert value["mean"] - 1e-9 <= value["high"] <= high


@pytest.mark.slow
def test_summary_has_every_rate_with_its_interval(finished_sweep):
    _, summary = finished_sweep("sample_complexity")
    assert summary["sizes"] == [30, 60, 120]
    assert summary["seeds"] == 2
    assert [part["size"] for part in summary["by_size"]] == [30, 60, 120]
    for part in summary["by_size"]:
        for kind in ("standard", "adversarial"):
            for where in ("test", "train"):
                rates = part[kind][where]
                assert set(rates) == {"clean", "robust", "noise"}
                for rate in rates.values():
                    assert_rate(rate)
                    assert rate["n"] == (50 if where == "test" else min(50, part["size"]))
                    assert rate["seeds"] == 2
                assert rates["robust"]["mean"] <= rates["clean"]["mean"]
        assert_rate(part["clean_minus_robust"], -1)
        gap = part["train_minus_test"]
        assert gap["difference"]["mean"] == pytest.approx(
            gap["adversarial_robust"]["mean"] - gap["standard_clean"]["mean"]
        )
        clean = part["standard"]
        assert gap["standard_clean"]["mean"] == pytest.approx(
            clean["train"]["clean"]["mean"] - clean["test"]["clean"]["mean"]
        )
    assert {"eps", "norm"} <= set(summary)
    for part in summary["gaussian"]["by_count"]:
        for name in ("standard", "robust", "least"):
            assert_rate(part[name])
        assert part["lower_bound"] <= part["least"]["high"]
        assert part["least"]["mean"] <= part["robust"]["high"]
    for part in summary["bernoulli"]["by_count"]:
        assert part["threshold"] == part["standard"]
        assert part["robust"]["mean"] >= part["standard"]["mean"]


@pytest.mark.slow
def test_more_images_help_and_help_robust_accuracy_later(tmp_path):
    found = sample_complexity_work.run(
        config(
            tmp_path,
            dry_run=False,
            seeds=1,
            sizes=(40, 160, 1352),
            epochs=15,
            eps=0.1,
            width=64,
            eval_steps=10,
            restarts=1,
            eval_examples=200,
            dim=1000,
            draws=30,
        )
    )
    first, *_, last = found["by_size"]

    def mean(part, kind, name):
        return part[kind]["test"][name]["mean"]

    assert mean(last, "standard", "clean") > 0.93
    assert mean(last, "standard", "clean") > mean(first, "standard", "clean") + 0.1
    assert mean(last, "adversarial", "robust") > mean(first, "adversarial", "robust") + 0.3
    assert mean(last, "adversarial", "robust") > mean(last, "standard", "robust") + 0.3
    assert mean(last, "adversarial", "noise") > mean(last, "adversarial", "robust") + 0.05
    assert last["standard"]["train"]["clean"]["mean"] > 0.98
    assert [claim["verdict"] for claim in found["claims"][:2]] == ["holds", "holds"]
    assert found["size_for_share"]["times_as_many"]["mean"] > 1.5
    counts = found["gaussian"]["count_for_goal"]
    for end in ("earliest", "latest"):
        assert counts["standard"][end] < counts["least"][end] <= counts["robust"][end]


def prepared(**options):
    settings = config("unused", dry_run=False, **options)
    return settings, sample_complexity_plan.prepare(settings)


def test_training_sets_are_nested_and_get_as_many_updates():
    settings, plan = prepared(sizes=(50, 100, 1000), seeds=2)
    todo = sample_complexity_work.jobs(settings, plan)
    assert len(todo) == 12
    test_ids = set(plan.dataset.test.id.tolist())
    for seed in (0, 1):
        before = np.zeros((0, 64))
        for size in plan.sizes:
            job = todo["adversarial", size, seed]
            images = job.train.image.reshape(len(job.train), -1)
            different, times = np.unique(images, axis=0, return_counts=True)
            assert len(job.train) == 1000
            assert len(different) == pytest.approx(size, abs=1)  # digits that are equal
            assert times.max() - times.min() <= 1 + times.min()
            assert set(map(bytes, before)) <= set(map(bytes, different))
            before = different
            np.testing.assert_array_equal(
                np.unique(data.unit(images), axis=0),
                np.unique(job.points["train"].image.reshape(-1, 64), axis=0),
            )
            # The standard networks have the same images and no threat model.
            other = todo["standard", size, seed]
            np.testing.assert_array_equal(other.train.image, job.train.image)
            assert other.recipe.threat is None
            assert float(job.recipe.threat.eps) == pytest.approx(plan.eps)
    one, two = (todo["standard", 50, seed].train.image for seed in (0, 1))
    assert not np.array_equal(one, two)
    assert test_ids  # the test split is not empty, and was not touched above


def curves(standard, robust, noise, points=400):
    """Curves whose accuracies at each size are exactly these."""
    sizes = (10, 40, 160)

    def hits(rates):
        rows = [np.arange(points) < rate * points for rate in rates]
        return np.stack([np.stack(rows)] * 2)

    test = {CLEAN: hits(standard), ROBUST: hits(robust), NOISE: hits(noise)}
    return sizes, test


def test_shares_and_sizes_by_hand():
    sizes, test = curves([0.4, 0.6, 0.8], [0.1, 0.2, 0.8], [0.8, 0.8, 0.8])
    assert reached(test[CLEAN]) == pytest.approx((0.5 + 0.75) / 2)
    assert reached(test[ROBUST]) == pytest.approx((0.125 + 0.25) / 2)
    assert reached(test[NOISE]) == 1
    # 0.7 lies half way from 0.6 to 0.8, so half way from 40 to 160 on the logarithm.
    assert 2 ** needed(test[CLEAN], sizes, 0.875) == pytest.approx(80)
    assert 2 ** needed(test[ROBUST], sizes, 0.875) == pytest.approx(40 * 4 ** (0.5 / 0.6))
    assert 2 ** needed(test[NOISE], sizes, 0.875) == pytest.approx(10)
    assert needed(test[CLEAN], sizes, 1.0) == np.log2(160)


def test_a_plateau_is_not_reached_sooner_by_luck():
    """Over many sizes that are equally good, the first that lies high is found early by chance."""
    sizes, rng = tuple(10 * 2**k for k in range(9)), np.random.default_rng(0)
    rates = np.array([0.5, *[0.705] * 7, 0.8])  # 0.9 of the last, 0.72, is reached only at the end
    exact = float(np.log2(sizes[-2]) + (0.72 - 0.705) / (0.8 - 0.705))
    found = [
        needed(rng.random((1, len(sizes), 100)) < rates[:, None], sizes, 0.9) for _ in range(300)
    ]
    curves = [(rng.random((len(sizes), 100)) < rates[:, None]).mean(1) for _ in range(300)]
    naive = [np.log2(sizes[int(np.argmax(curve >= 0.9 * curve[-1]))]) for curve in curves]
    assert np.mean(naive) < exact - 3.5  # doublings too few
    assert np.mean(found) > np.mean(naive) + 1.2
    # 0.2, 0.6, 0.2, 0.9 rises as 0.2, 0.4, 0.4, 0.9: a tenth of the way from 0.4 to 0.9.
    dip = np.array([[np.arange(10) < count for count in (2, 6, 2, 9)]])
    assert needed(dip, (1, 2, 4, 8), 0.5) == pytest.approx(2.1)


def test_how_many_examples_the_goal_takes_is_a_range():
    parts = [
        {"count": count, "robust": stats.Estimate(mean, mean - 0.004, mean + 0.004, 20)}
        for count, mean in ((1, 0.02), (2, 0.012), (4, 0.008), (8, 0.005))
    ]
    found = simulation._first(parts, "robust")
    assert found == {"earliest": 2, "latest": 8}
    model = {"by_count": parts}
    assert _count(found, model) == "2 to 8"
    assert _count({"earliest": 4, "latest": 4}, model) == "4"
    assert _count({"earliest": 8, "latest": None}, model) == "8 to more than 8"


def test_hits_become_curves():
    rng = np.random.default_rng(0)
    hits = {
        (kind, size, seed): {
            f"{where}_{name}": rng.random(7 if where == "test" else size) < 0.5
            for where in ("test", "train")
            for name in ("clean", "robust", "robust_noise")
        }
        for kind in ("standard", "adversarial")
        for size in (3, 6)
        for seed in (0, 1)
    }
    found = Curves.of((3, 6), hits)
    assert found.test[ROBUST].shape == (2, 2, 7)
    few = hits["adversarial", 3, 1]
    np.testing.assert_array_equal(found.test[ROBUST][1, 0], few["test_robust"])
    np.testing.assert_array_equal(
        found.test[NOISE][0, 1], hits["adversarial", 6, 0]["test_robust_noise"]
    )
    np.testing.assert_array_equal(found.train[CLEAN][1][0], hits["standard", 6, 0]["train_clean"])


def test_the_measurement_is_what_the_flags_say():
    settings = config("unused", dry_run=False, attack=("fgsm", "pgd"), eval_steps=7, restarts=3)
    found = sweeps.attacks(settings, advfeat.linf(0.1), 10)
    assert list(found) == ["fgsm", "pgd"]
    assert (found["pgd"].steps, found["pgd"].rounds) == (7, 3)
    assert float(found["pgd"].threat.eps) == pytest.approx(0.1)
    assert sweeps.attack_words(settings) == "fgsm, PGD with 7 steps and the worst of 3 starts"
    suite = config("unused", dry_run=False, attack=("autoattack",))
    assert len(sweeps.attacks(suite, advfeat.linf(0.1), 10)) == 4
    assert sweeps.attack_words(suite) == "autoattack"
