"""The journal of an evaluation: what it stores, resumes and refuses."""

import jax
import numpy as np
import pytest

import advfeat
from advfeat.evaluation.result import AttackChunk
from advfeat.runs import journal as journal_module
from advfeat.runs.directory import RunDirectory


def test_an_attacks_seconds_end_with_its_last_image(tmp_path, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(journal_module.time, "perf_counter", lambda: next(clock))
    part = AttackChunk(np.arange(3), *[np.zeros(3, bool)] * 6)
    with RunDirectory.open(tmp_path / "w", {}, name="evaluate") as run:
        with journal_module.Journal(run, "problem") as journal:
            journal.attack("pgd", 3)
            journal.part("pgd", part)
            taken = journal.seconds()
            for _ in range(50):
                journal_module.time.perf_counter()  # checks run
            journal.check("growth")
            assert journal.seconds() == taken
        with journal_module.Journal(run, "problem") as again:
            np.testing.assert_array_equal(again.done["pgd"].rows, part.rows)
            assert again.seconds() == taken


def test_an_attack_may_resume_on_more_images(tmp_path):
    """`quick` opens the gate of an attack that fools from more than half of it."""
    with RunDirectory.open(tmp_path / "w", {}, name="evaluate") as run:
        with journal_module.Journal(run, "problem") as journal:
            for rows in (np.arange(3), np.arange(3, 8)):
                journal.attack("square", rows[-1] + 1)
                journal.part("square", AttackChunk(rows, *[np.zeros(len(rows), bool)] * 6))
        with journal_module.Journal(run, "problem") as again:
            np.testing.assert_array_equal(again.done["square"].rows, np.arange(8))


@pytest.mark.slow
def test_a_killed_evaluation_resumes_by_two_lines(tmp_path):
    class Killed(BaseException):
        pass

    images = np.random.default_rng(0).random((12, 2, 2, 1)).astype(np.float32)
    labels = images.reshape(12, -1).argmax(1)
    network = advfeat.as_model_fn(lambda x: x.ravel())
    options = {"threat": advfeat.linf(0.1), "suite": ["fgsm", "pgd"], "batch_size": 4}

    def evaluate(**more):
        return advfeat.evaluate(jax.random.key(0), network, images, labels, **options, **more)

    def killed(name):
        raise Killed(name)

    whole = evaluate()
    with (
        pytest.raises(Killed),
        RunDirectory.open(tmp_path / "a", {}, name="mine") as run,
        journal_module.Journal(run, "problem") as journal,
    ):
        evaluate(**{**journal.hooks(), "on_check": killed})
    with (
        RunDirectory.open(tmp_path / "a", {}, name="mine") as run,
        journal_module.Journal(run, "problem") as journal,
    ):
        assert set(journal.done) == {"fgsm", "pgd"}
        again = evaluate(**journal.hooks())
    np.testing.assert_array_equal(again.fooled_by, whole.fooled_by)
    np.testing.assert_array_equal(again.adversarial, whole.adversarial)
    with (
        RunDirectory.open(tmp_path / "a", {}, name="mine") as run,
        pytest.raises(ValueError, match="verdicts on another network or other images"),
    ):
        journal_module.Journal(run, "another")
