"""The mislabelled-data experiment, whole, in its smallest form; and the same with a kill inside."""

import json

import numpy as np
import pytest
from estimates import assert_claims, revived
from killed import assert_refused, killed_at_call, result_of

from advfeat import data, stats
from advfeat.runs.checkpoints import load_network
from experiments.mislabeled import (
    colour_example,
    flags as mislabeled_flags,
    fresh as mislabeled_fresh,
    report as mislabeled_report,
    summary as mislabeled_summary,
    work as mislabeled_work,
)

RATE = {"mean", "low", "high", "n"}


def config(path, **options):
    return mislabeled_flags.Config(workdir=str(path), **{"dry_run": True, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    return path, mislabeled_work.run(config(path))


def assert_rate(value):
    assert set(value) >= RATE
    assert 0 <= value["low"] <= value["mean"] <= value["high"] <= 1


def test_summary_has_the_keys_that_its_readers_rely_on(finished):
    path, summary = finished
    assert json.loads((path / "summary.json").read_text()) == summary
    assert {"dataset", "norm", "eps", "wall_seconds", "peak_memory_bytes"} <= set(summary)
    for network in ("standard", "robust"):
        assert_rate(summary[network]["clean_accuracy"])
        assert_rate(summary[network]["robust_accuracy"])
    for variant in ("d_rand", "d_other", "d_det"):
        part = summary[variant]
        assert_rate(part["test_accuracy"])
        assert_rate(part["source_fooled"])
        assert_rate(part["robust_network"]["keeps_original_label"])
        assert_rate(part["robust_network"]["says_new_label"])
        assert_rate(part["robust_network_held_out"]["keeps_original_label"])
        assert set(part["controls"]) == set(mislabeled_flags.CONTROLS)
        for control in part["controls"].values():
            assert_rate(control)
            assert control["n"] == 445
    assert_claims(summary["claims"])
    assert len(summary["claims"]) == 9


def test_sets_are_saved_with_what_the_experiment_says_of_them(finished):
    path, summary = finished
    with np.load(path / "d_det.npz", allow_pickle=False) as saved:
        images, labels, before = saved["image"], saved["label"], saved["original_label"]
        ids, fooled = saved["id"], saved["fooled"]
    np.testing.assert_array_equal(labels, (before + 1) % 10)
    originals = data.load("digits").train
    place = {int(example): row for row, example in enumerate(originals.id)}
    rows = [place[int(example)] for example in ids]
    np.testing.assert_array_equal(originals.label[rows], before)
    lengths = np.sqrt(((images - data.unit(originals.image[rows])) ** 2).sum(axis=(1, 2, 3)))
    assert lengths.max() <= summary["eps"] * (1 + 1e-5)
    assert lengths.min() > 0
    assert summary["d_det"]["source_fooled"]["mean"] == pytest.approx(fooled.mean())
    record = json.loads((path / "d_det.json").read_text())
    assert record["threat"] == {"norm": "l2", "eps": summary["eps"]}
    assert record["targets"] == "t = (y + 1) mod C"
    assert {"seed", "source_network", "source_fooled", "revision"} <= set(record)


def test_d_other_is_d_rand_without_t_equal_y(finished):
    path, _ = finished
    with np.load(path / "d_rand.npz") as whole, np.load(path / "d_other.npz") as part:
        rows = whole["label"] != whole["original_label"]
        assert 0 < rows.sum() < len(rows)
        np.testing.assert_array_equal(part["image"], whole["image"][rows])
        np.testing.assert_array_equal(part["label"], whole["label"][rows])


def test_a_constructed_set_is_a_data_set(finished):
    path, _ = finished
    loaded = data.load(str(path / "d_det.npz"))
    digits = data.load("digits")
    np.testing.assert_array_equal(loaded.test.image, digits.test.image)
    np.testing.assert_array_equal(loaded.test.label, digits.test.label)
    assert loaded.class_names == digits.class_names


def test_networks_of_the_run_serve_as_checkpoints(finished):
    path, summary = finished
    standard = load_network(f"{path}:standard")
    test = data.load("digits").test
    import advfeat

    hits = advfeat.correct(standard.model_fn(), data.unit(test.image), test.label)
    assert hits.mean() == pytest.approx(summary["standard"]["clean_accuracy"]["mean"])
    with pytest.raises(ValueError, match="the run holds det_itself_0"):
        load_network(str(path))


def test_report_and_figures_are_there(finished):
    path, _ = finished
    page = (path / "report.html").read_text()
    for words in (
        "D_rand",
        "D_other",
        "D_det",
        "robust network",
        "experiments.mislabeled",
        "Recipe",
        "whose labels all look wrong",
        "<dfn>controls</dfn>",
        "CIFAR-10",
        "<title>Dry run: ",
    ):
        assert words in page
    assert page.index("Can a network learn") < page.index("<img") < page.index("would be said")
    assert page.count("data:image/png") == len(list((path / "figures").glob("*.png")))
    names = {figure.stem for figure in (path / "figures").glob("*.png")}
    assert {"examples", "accuracy", "epsilons", "learning", "turned_into_standard"} <= names


def test_the_same_command_on_a_finished_run_says_so(finished, capsys):
    path, summary = finished
    before = (path / "summary.json").stat().st_mtime_ns
    assert mislabeled_work.run(config(path)) == summary
    assert (path / "summary.json").stat().st_mtime_ns == before
    out = capsys.readouterr().out
    assert "finished" in out
    assert str(path / "report.html") in out


def test_other_flags_are_refused_by_name(finished):
    path, _ = finished
    with pytest.raises(ValueError, match=r"--eps=none, not --eps=0\.5"):
        mislabeled_work.run(config(path, eps=0.5))


@pytest.mark.slow
def test_a_run_killed_in_the_middle_ends_as_an_unbroken_one(finished, tmp_path, monkeypatch):
    _, whole = finished
    broken = config(tmp_path / "broken")
    with monkeypatch.context() as patch:
        killed_at_call(
            patch, mislabeled_fresh.networks, "train", 6, lambda: mislabeled_work.run(broken)
        )
    assert not (tmp_path / "broken" / "summary.json").exists()
    again = mislabeled_work.run(broken)
    assert result_of(again) == result_of(whole)


def test_nothing_is_said_twice(finished):
    """D_rand without t = y is D_other: one reading, one row, one claim, one correction."""
    path, summary = finished
    told = revived(summary)
    claims = [(each.effect, each.control, each.difference) for each in told["claims"]]
    assert all(claims.count(each) == 1 for each in claims)
    reading = [each.claim for each in told["claims"] if "misleading" in each.claim]
    assert [words.split(" are ")[0].split(" of ")[1] for words in reading] == [
        "D_rand and D_other (t ≠ y)",
        "D_det",
    ]
    rows = mislabeled_report._reading_table(config(path), told).rows
    assert len(rows) == len({row[0] for row in rows}) == 4
    lines = mislabeled_summary.findings(config(path), told, 0.1)
    assert len([line for line in lines if "predicts the original label" in line]) == 2
    assert mislabeled_summary.read_apart(("other", "det")) == {"other": "D_other", "det": "D_det"}
    assert mislabeled_summary.read_apart(("rand",)) == {"rand": "D_rand"}


def test_learning_curves_have_intervals_and_gaps():
    curve = np.array([[0.5, 0.9, np.nan], [0.7, 0.9, 0.9]], np.float32)
    first, second, gap = mislabeled_summary.by_epoch(curve, 40)
    assert first.mean == pytest.approx(0.6)
    assert second == stats.counted([36, 36], 40)
    assert (first.n, first.seeds, gap) == (40, 2, None)


def test_what_the_controls_explain_is_said_by_the_verdict():
    rates = {name: stats.rate(np.arange(50) < n) for name, n in (("unperturbed", 5), ("noise", 7))}
    words = [mislabeled_summary._beside_controls(rates, v) for v in (None, "holds", stats.OPEN)]
    assert words[0] == words[1]
    assert words[2].endswith(f"not shown to explain it ({stats.OPEN})")
    low, high = (100 * end for end in rates["noise"].at(1 - 0.05 / 2))
    said = words[0].replace("\u00a0", " ")
    assert f"same norm, gives 14.0 % [{low:.1f}, {high:.1f}]" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset=digitz"], "digitz"),
        (["--classes=3"], "at least 2"),
        (["--classes=3,cat"], "cat"),
        (["--eps=-1"], "--eps=-1"),
        (["--eps=nan"], "--eps=nan"),
        (["--eps=0"], "--eps"),
        (["--norm=linf", "--eps=8", "--robust_eps=0.1"], "8/255"),
        (["--norm=linf", "--eps=0.1", "--robust_eps=0.1", "--eps_grid=0,8"], "8/255"),
        (["--norm=l3"], "--norm=l3"),
        (["--norm=linf"], "--norm=linf"),
        (["--robust_eps=inf"], "--robust_eps=inf"),
        (["--train_examples=3"], "--train_examples"),
        (["--held_out=1"], "--held_out"),
        (["--model=resnet7"], "resnet7"),
        (["--model=resnet50", "--width=0"], "--width=0"),
        (["--variants=det,det"], "--variants"),
        (["--source_checkpoint=/no/such/run"], "/no/such/run"),
        (["--seeds=0"], "--seeds=0"),
        (["--dataset=mnist", "--data_dir=/no/such/dir"], "/no/such/dir"),
        (["--dataset=/no/such.npz"], "such.npz"),
    ],
)
def test_bad_flags_end_with_one_line_and_nothing_written(arguments, words, tmp_path, capsys):
    assert_refused(
        mislabeled_work.run, mislabeled_flags.Config, arguments, words, tmp_path / "run", capsys
    )


@pytest.mark.slow
def test_an_npz_of_a_constructed_set_can_be_trained_on_by_every_experiment(finished, tmp_path):
    path, _ = finished
    from experiments.train import flags as train_flags, work as train_work

    summary = train_work.run(
        train_flags.Config(
            workdir=str(tmp_path / "t"), dataset=str(path / "d_rand.npz"), dry_run=True
        )
    )
    assert_rate(summary["clean_accuracy"])


def test_the_cells_of_a_matrix_are_counted_with_their_intervals():
    sources, targets = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 0])
    found = mislabeled_report._turned_into(sources, targets, np.array([1, 0, 1, 0], bool), 2)
    shares, counts, intervals = found
    np.testing.assert_allclose(shares, [[np.nan, 2 / 3], [0, np.nan]])
    np.testing.assert_array_equal(counts, [[0, 3], [1, 0]])
    assert np.isnan(intervals[[0, 1], [0, 1]]).all()
    assert (intervals[0, 1] > shares[0, 1]).tolist() == [False, True]


@pytest.mark.slow
def test_photographs_are_turned_within_eps_and_counted():
    turned = colour_example.turn(seed=1, shown=3, steps=2, most=10)
    assert turned.sure <= turned.turned <= turned.tried <= turned.samples == 10
    assert len(turned.examples) == min(3, turned.turned or turned.tried)
    for row in turned.examples:
        size = np.linalg.norm(row.perturbed - row.original)
        assert 0 < size <= colour_example.EPS * (1 + 1e-5)
        assert row.smooth
        before, after = row.networks["standard"]
        assert before[0] == row.label != row.new_label
        assert after[0] == row.new_label or turned.turned == 0
    for number in (turned.samples, turned.tried, turned.turned, turned.sure):
        assert f" {number}" in turned.words()
