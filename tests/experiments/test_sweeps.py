"""What the experiments that train many small networks share: their run on disk, and bad flags."""

import json

import pytest
from estimates import assert_claims
from killed import assert_refused, killed_at_call, result_of
from sweep_runs import SWEEPS

from experiments.shared import sweeps

each = pytest.mark.parametrize("name", SWEEPS)


@pytest.mark.slow
@each
def test_the_summary_is_what_lies_on_disk_and_its_claims_are_complete(finished_sweep, name):
    path, summary = finished_sweep(name)
    assert json.loads((path / "summary.json").read_text()) == summary
    assert {"attack", "recipe", "seeds", "wall_seconds"} <= set(summary)
    assert len(summary["claims"]) == 4
    assert_claims(summary["claims"])


@pytest.mark.slow
@each
def test_report_and_figures_are_there(finished_sweep, name):
    path, _ = finished_sweep(name)
    page = (path / "report.html").read_text()
    for words in SWEEPS[name].words:
        assert words in page
    names = {figure.stem for figure in (path / "figures").glob("*.png")}
    assert names == SWEEPS[name].figures


@pytest.mark.slow
@each
def test_the_same_command_on_a_finished_run_says_so(finished_sweep, name, capsys):
    (path, summary), sweep = finished_sweep(name), SWEEPS[name]
    assert sweep.run(sweep.config(path)) == summary
    assert "finished" in capsys.readouterr().out
    with pytest.raises(ValueError, match=sweep.refusal):
        sweep.run(sweep.config(path, **sweep.other))


@pytest.mark.slow
@each
def test_a_killed_run_goes_on_with_what_was_not_measured(
    finished_sweep, name, tmp_path, monkeypatch
):
    (_, whole), sweep = finished_sweep(name), SWEEPS[name]
    broken = sweep.config(tmp_path / "broken")
    calls = killed_at_call(monkeypatch, sweeps.networks, "train", 4, lambda: sweep.run(broken))
    assert not (tmp_path / "broken" / "summary.json").exists()
    again = sweep.run(broken)
    assert len(calls) == sweep.networks + 1  # three were measured, the fourth was begun twice
    assert result_of(again) == result_of(whole)


BOTH = {
    "--model=resnet7": "resnet7",
    "--dataset=digitz": "digitz",
    "--dataset=mnist --data_dir=/no/such/dir": "/no/such/dir",
    "--seeds=0": "--seeds=0",
    "--attack=pgd,pgd": "--attack=pgd,pgd: names one twice",
    "--attack=standard,pgd": "the suite standard stands alone",
    "--attack=best": "--attack=best",
}
OWN = {
    "sample_complexity": {
        "--sizes=100": "--sizes=100: must be at least 2 sizes",
        "--sizes=100,50": "--sizes=100,50",
        "--sizes=5,100": "--sizes=5: must be at least 10",
        "--sizes=50,2000": "--sizes=2000: there are 1352",
        "--sizes=50,200 --train_examples=100": "--sizes=200: there are 100",
        "--train_examples=15": "--train_examples=15",
        "--train_examples=30": "too few to halve",
        "--eps=0": "--eps=0: must be above 0",
        "--eps=inf --norm=l2": "--eps=inf",
        "--eps=8": "8/255",
        "--norm=l1": "--norm=l1: give --eps",
        "--norm=l3": "--norm=l3",
        "--share=1": "--share=1",
        "--dim=1": "--dim=1",
        "--model_eps=inf": "--model_eps=inf",
        "--noise=0": "--noise=0",
        "--draws=9": "--draws=9: must be at least 10",
        "--attack=ddn --norm=linf": "threat must measure in l2 for ddn",
    },
    "tradeoff": {
        "--norms=l2,l2": "--norms=l2,l2: names one twice",
        "--norms=l3": "--norms=l3",
        "--norms=l1,l2": "give --eval_l1",
        "--eval_l2=0": "--eval_l2=0: must be above 0",
        "--eval_l2=inf": "--eval_l2=inf",
        "--eval_linf=8": "8/255",
        "--train_linf=0,8": "8/255",
        "--train_l2=0": "--train_l2=0: must be",
        "--train_l2=1,1": "--train_l2=1,1",
        "--train_l2=1,inf": "--train_l2=1,inf",
        "--norms=l2 --eval_linf=0.1": "--eval_linf: linf is not among --norms",
        "--norms=linf --train_l2=0.1": "--train_l2: l2 is not among --norms",
        "--train_examples=3": "--train_examples",
        "--attack=ddn": "threat must measure in l2 for ddn",
    },
}
REFUSED = [(name, given) for name in SWEEPS for given in (*OWN[name], *BOTH)]


@pytest.mark.parametrize(("name", "given"), REFUSED)
def test_bad_flags_end_with_one_line_and_nothing_written(name, given, tmp_path, capsys):
    sweep, words = SWEEPS[name], {**BOTH, **OWN[name]}[given]
    assert_refused(sweep.run, sweep.flags, given.split(), words, tmp_path / "run", capsys)
