"""Which epoch's weights are kept: best, patience, overfitting, and kills in between."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from killed import Killed

import advfeat
from advfeat import data, models, stats, training
from advfeat.data import Split
from advfeat.models.network import Network, NetworkSpec
from advfeat.runs import checkpoints, selection
from advfeat.runs.directory import RunDirectory
from advfeat.runs.selection import Watch
from advfeat.training.selection import Selection
from experiments.shared import networks, progress
from experiments.shared.recipes import Recipe

SHAPE, COUNT = (2, 3, 1), 12
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 1, (COUNT, *SHAPE)).astype(np.float32)
LABELS = (np.arange(COUNT) % 3).astype(np.int32)
SPEC = NetworkSpec(model="linear", class_names=("a", "b", "c"), input_shape=SHAPE)
EPS = 0.05
THREAT = advfeat.linf(EPS)


def watch(path, rule):
    return Watch(path / "watch", rule, SPEC, THREAT, (IMAGES, LABELS))


def weights(value):
    drawn = models.init(KEY, SPEC.build(), SHAPE)
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, value), dict(drawn))


def told(monkeypatch, *accuracies):
    """Makes the accuracy after epoch n the n-th of a list; returns what was measured."""
    seen = []

    def accuracy(self, variables):
        seen.append(jax.tree.map(np.array, variables))
        return accuracies[len(self.history)]

    monkeypatch.setattr(Watch, "accuracy", accuracy)
    return seen


def go(there, count):
    """Tells epochs until the training is to end; returns what was answered."""
    answers = []
    for epoch in range(len(there.history) + 1, count + 1):
        answers.append(there.epoch(epoch, weights(float(epoch))))
        if answers[-1][1]:
            break
    return answers


def first_weight(variables):
    return float(jax.tree.leaves(variables)[0].ravel()[0])


def test_the_best_epoch_is_kept(monkeypatch, tmp_path):
    told(monkeypatch, 0.3, 0.6, 0.5, 0.6)
    there = watch(tmp_path, Selection(select="best"))
    assert go(there, 4) == [(0.3, False), (0.6, False), (0.5, False), (0.6, False)]
    assert first_weight(there.chosen(weights(4.0))) == 2.0  # the first of two equal ones
    assert [path.name for path in (tmp_path / "watch").glob("epoch_*")] == ["epoch_2"]
    found = there.summary()
    assert (found["epoch"], found["epochs"], found["ended_by"]) == (2, 4, None)
    kept = found["held_out_robust_accuracy"]
    assert kept["mean"] == pytest.approx(0.6, abs=0.5 / COUNT)
    # It was chosen of four: its interval is wider than that of the same number not chosen.
    plain = stats.counted(round(0.6 * COUNT), COUNT)
    assert (kept["low"], kept["high"]) == plain.at(1 - 0.05 / 4)
    assert kept["low"] < plain.low
    json.dumps(found)
    last = watch(tmp_path / "other", Selection(select="last"))
    go(last, 4)
    assert last.summary()["held_out_robust_accuracy"]["low"] == plain.low  # the last was not chosen
    assert first_weight(last.chosen(weights(4.0))) == 4.0
    assert not list((tmp_path / "other").glob("watch/epoch_*"))  # nobody will ask for them
    there.close()
    assert not (tmp_path / "watch").exists()


def test_patience(monkeypatch, tmp_path):
    told(monkeypatch, 0.3, 0.6, 0.6, 0.5, 0.9)
    there = watch(tmp_path, Selection(select="best", patience=2))
    assert [end for _, end in go(there, 5)] == [False, False, False, True]
    assert there.summary()["ended_by"] == "patience"
    assert first_weight(there.chosen(None)) == 2.0


@pytest.mark.parametrize("select", ["last", "best"])
def test_catastrophic_overfitting_goes_back(monkeypatch, tmp_path, capsys, select):
    told(monkeypatch, 0.5, 0.7, 0.51, 0.4, 0.9)
    there = watch(tmp_path, Selection(select=select, max_drop=0.2))
    assert [end for _, end in go(there, 5)] == [False, False, False, True]
    assert "fell from 70.0% (epoch 2) to 40.0% (epoch 4)" in capsys.readouterr().out
    assert there.summary()["catastrophic_overfitting"]
    assert first_weight(there.chosen(weights(4.0))) == 2.0


def test_it_goes_on_where_a_process_left_it(monkeypatch, tmp_path):
    rule = Selection(select="best", patience=2)
    seen = told(monkeypatch, 0.3, 0.6, 0.5, 0.5)
    go(watch(tmp_path, rule), 3)
    again = watch(tmp_path, rule)
    # The saved state lies before the last epochs: they are told once more, and known.
    assert again.epoch(2, weights(2.0)) == (0.6, False)
    assert again.epoch(3, weights(3.0)) == (0.5, False)
    assert len(seen) == 3
    assert again.epoch(4, weights(4.0)) == (0.5, True)
    ended = watch(tmp_path, rule)
    assert ended.ended == "patience"
    assert ended.epoch(3, weights(3.0)) == (0.5, False)
    assert ended.epoch(4, weights(4.0)) == (0.5, True)
    assert first_weight(ended.chosen(None)) == 2.0


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("where", ["save_network", "write_json", "rmtree"])
def test_a_kill_while_an_epoch_is_noted(monkeypatch, tmp_path, where, epoch):
    told(monkeypatch, 0.3, 0.6, 0.7)
    rule = Selection(select="best")
    first = watch(tmp_path, rule)
    go(first, epoch - 1)
    place = {"save_network": checkpoints, "write_json": selection, "rmtree": selection.shutil}
    real = getattr(place[where], where)

    def dying(*arguments, **options):
        if where == "save_network":
            real(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(place[where], where, dying)
        try:
            first.epoch(epoch, weights(float(epoch)))
        except Killed:
            pass
        else:
            assert (where, epoch) == ("rmtree", 1)  # nothing to remove
    second = watch(tmp_path, rule)
    if second.history:
        assert checkpoints.is_saved(tmp_path / "watch" / f"epoch_{second.best['epoch']}")
    go(second, 3)
    assert [line["accuracy"] for line in second.history] == [0.3, 0.6, 0.7]
    assert first_weight(second.chosen(weights(3.0))) == 3.0
    kept = [path.name for path in (tmp_path / "watch").glob("epoch_*")]
    assert "epoch_3" in kept


@pytest.mark.slow
def test_the_accuracy_is_that_under_pgd_on_held_out_images(tmp_path):
    drawn = dict(models.init(KEY, SPEC.build(), SHAPE))
    there = watch(tmp_path, Selection(steps=3, examples=10))
    rows = data.draw_rows(LABELS, 10, seed=selection.KEY_SEED)
    sweep = advfeat.evaluate_epsilons(
        jax.random.key(selection.KEY_SEED),
        lambda eps: advfeat.pgd(advfeat.linf(eps), steps=3),
        models.model_fn(SPEC.build(), drawn),
        IMAGES[rows],
        LABELS[rows],
        [0.0, 0.05],
    )
    assert there.accuracy(drawn) == pytest.approx(sweep.robust[1].mean())


# --- Inside a training. ---------------------------------------------------------------------------


def recipe(**options):
    return Recipe(
        spec=SPEC,
        config=training.TrainConfig(epochs=4, batch_size=4, learning_rate=0.1),
        norm=THREAT.norm.name,
        eps=EPS,
        attack_steps=1,
        **options,
    )


def trained(path, **options):
    with RunDirectory.open(path, {}, name="test", overwrite=False) as run:
        return networks.train(
            run,
            "model",
            KEY,
            recipe(**options),
            Split(IMAGES, LABELS, np.arange(COUNT)),
            held_out=(IMAGES, LABELS),
            advance=lambda count: None,
        )


def equal(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_training_keeps_its_best_epoch(monkeypatch, tmp_path):
    seen = told(monkeypatch, 0.1, 0.6, 0.5, 0.6)
    found = trained(tmp_path / "a", selection=Selection(select="best"), ema=0.5)
    equal(found.variables, seen[1])
    assert found.record["selection"]["epoch"] == 2
    lines = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert [line["held_out_robust_accuracy"] for line in lines] == [0.1, 0.6, 0.5, 0.6]
    assert not list((tmp_path / "a" / "checkpoints").iterdir())
    # What is measured and kept is the average, not the weights that are descended.
    last = trained(tmp_path / "b", ema=0.5)
    equal(last.variables, seen[3])
    plain = trained(tmp_path / "c")
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), plain.variables, last.variables)
    assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.slow_for("accuracies0-1")
@pytest.mark.parametrize("chunks", [1, 4, 5, 6])
@pytest.mark.parametrize("accuracies", [(0.1, 0.6, 0.5, 0.55), (0.1, 0.6, 0.1)])
def test_a_killed_training_ends_as_an_unbroken_one(monkeypatch, tmp_path, accuracies, chunks):
    told(monkeypatch, *accuracies)
    rule = {"selection": Selection(select="best", max_drop=0.4), "swa": 0.5}
    unbroken = trained(tmp_path / "unbroken", **rule)
    assert unbroken.record["selection"]["epoch"] == 2
    monkeypatch.setattr(progress, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr("advfeat.training.loop.CHUNK", 2)  # two an epoch
    real, count = progress.Progress.chunk, []

    def dying(self, state, metrics):
        real(self, state, metrics)
        count.append(1)
        if len(count) == chunks:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "chunk", dying)
        with pytest.raises(Killed):
            trained(tmp_path / "broken", **rule)
    resumed = trained(tmp_path / "broken", **rule)
    equal(resumed.variables, unbroken.variables)
    assert resumed.record == unbroken.record


@pytest.mark.slow
def test_an_ended_training_is_not_begun_again(monkeypatch, tmp_path):
    told(monkeypatch, 0.6, 0.1)
    rule = {"selection": Selection(max_drop=0.4)}
    unbroken = trained(tmp_path / "unbroken", **rule)

    def dying(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "chosen", dying)
        with pytest.raises(Killed):
            trained(tmp_path / "broken", **rule)
        patch.undo()
        patch.setattr(training, "fit", dying)
        resumed = trained(tmp_path / "broken", **rule)
    equal(resumed.variables, unbroken.variables)
    assert isinstance(resumed, Network)
