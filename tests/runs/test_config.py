"""Flags: what the command line takes, and the one line it answers otherwise."""

from __future__ import annotations

import dataclasses
import math
import shlex

import pytest
from hypothesis import given, strategies as st

from advfeat.runs import config as config_lib, runner
from advfeat.runs.config import HelpRequested, UsageError, flag, parse
from advfeat.runs.kinds import format_eps, parse_eps
from experiments.shared import flag_checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Everything(config_lib.Config):
    """A flag of every type."""

    eps: float = flag(8 / 255, "Radius.", kind="eps")
    eps_grid: tuple[float, ...] = flag((0.0, 0.5), "Radii.", kind="eps_list")
    norm: str = flag("l2", "Norm.", choices=("linf", "l2", "l1"))
    variants: tuple[str, ...] = flag(("rand", "det"), "Sets.", choices=("rand", "other", "det"))
    seeds: tuple[int, ...] = flag((0, 1), "Seeds.", kind="natural")
    steps: int = flag(10, "Steps.", kind="count")
    offset: int = flag(0, "Any whole number.")
    step_size: float | None = flag(None, "Step size.", kind="positive")
    momentum: float = flag(0.9, "Momentum.", kind="fraction")
    rate: float = flag(0.1, "Any number.")
    augment: bool = flag(True, "Augment.")

    def validate(self) -> None:
        super().validate()
        flag_checks.check_linf_eps(self.norm, eps=self.eps, eps_grid=self.eps_grid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reduced(Everything):
    """What a dry run reduces of it."""

    SMALLEST = {"steps": 2, "seeds": (0,), "step_size": 0.5, "augment": False}  # noqa: RUF012


@dataclasses.dataclass(frozen=True, kw_only=True)
class Further(Reduced):
    """A subclass adds its own."""

    SMALLEST = {"examples": 50, "eps_grid": (0.0, 1.0), "steps": 3, "sizes": None}  # noqa: RUF012

    examples: int = flag(1000, "Images; 0: all.", kind="natural")
    sizes: tuple[int, ...] | None = flag(None, "Sizes.", kind="count")


@pytest.mark.parametrize(
    ("given", "smallest"),
    [
        ({}, {"steps": 3, "seeds": (1,), "step_size": 0.5, "augment": False, "examples": 50}),
        ({"steps": 1, "examples": 20, "step_size": 0.1}, {"steps": 1, "examples": 20}),
        ({"step_size": 0.1}, {"step_size": 0.1}),
        ({"examples": 0}, {"examples": 50}),
        ({"eps_grid": (0.0, 0.1, 0.2, 0.4)}, {"eps_grid": (0.0, 0.4)}),
        ({"eps_grid": (0.3,)}, {"eps_grid": (0.3,)}),
        ({"seeds": (5, 6, 7)}, {"seeds": (7,)}),
        ({"sizes": (10, 20)}, {"sizes": None}),
        ({"eps": 0.5, "norm": "l1"}, {"eps": 0.5, "norm": "l1", "momentum": 0.9}),
    ],
)
def test_the_smallest_config(given, smallest):
    config = Further(workdir="w", dry_run=True, **given)
    found = config.smallest()
    assert {name: getattr(found, name) for name in smallest} == smallest
    found.validate()
    assert found.smallest() == found
    assert Everything(workdir="w").smallest() == Everything(workdir="w")


def test_a_list_of_choices_names_each_once():
    with pytest.raises(UsageError, match="--variants=det,det: names one twice"):
        read("--variants=det,det")
    assert read("--seeds=0,0").seeds == (0, 0)


def read(*arguments: str) -> Everything:
    return parse(Everything, ["--workdir=w", *arguments])


def test_defaults_are_the_dataclass_defaults():
    assert read() == Everything(workdir="w")


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--eps=0.5", "eps", 0.5),
        ("--eps=8/255", "eps", 8 / 255),
        ("--eps=inf", "eps", math.inf),
        ("--eps=0", "eps", 0.0),
        ("--eps_grid=0,0.25,8/255", "eps_grid", (0.0, 0.25, 8 / 255)),
        ("--eps_grid=1", "eps_grid", (1.0,)),
        ("--eps_grid=0, 1", "eps_grid", (0.0, 1.0)),
        ("--seeds=0,1,2", "seeds", (0, 1, 2)),
        ("--classes=cat,dog", "classes", ("cat", "dog")),
        ("--classes=", "classes", None),
        ("--variants=det", "variants", ("det",)),
        ("--norm=linf", "norm", "linf"),
        ("--offset=-3", "offset", -3),
        ("--rate=1e-3", "rate", 1e-3),
        ("--step_size=0.1", "step_size", 0.1),
        ("--step_size=none", "step_size", None),
        ("--noaugment", "augment", False),
        ("--augment=false", "augment", False),
        ("--dry_run", "dry_run", True),
        ("--data_dir=/some/where", "data_dir", "/some/where"),
    ],
)
def test_values(argument, name, value):
    found = getattr(read(argument), name)
    assert found == value
    assert type(found) is type(value)


WRONG = [
    "--eps=-1",
    "--eps=nan",
    "--eps=abc",
    "--eps=",
    "--eps=8/0",
    "--eps=8/-255",
    "--eps=inf/2",
    "--eps=1/2/3",
    "--eps_grid=",
    "--eps_grid=0,,1",
    "--eps_grid=0,-1",
    "--norm=l3",
    "--variants=det,all",
    "--seeds=0,a",
    "--seeds=-1",
    "--seed=1.5",
    "--seed=-1",
    "--seed=",
    "--steps=0",
    "--steps=ten",
    "--offset=1e3",
    "--step_size=0",
    "--step_size=inf",
    "--momentum=1.1",
    "--rate=nan",
    "--rate=inf",
    "--augment=maybe",
    "--classes=cat",
    "--classes=cat,cat",
    "--classes=cat,dog,cat",
    "--classes=cat,",
    "--dataset=",
    "--workdir=",
]


@pytest.mark.parametrize("argument", WRONG)
def test_wrong_values_name_the_flag_and_the_value(argument):
    with pytest.raises(UsageError) as error:
        read(argument)
    message = str(error.value)
    assert f"flag {argument}: must be" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sead=1"], "sead"),
        (["stray"], "stray"),
        (["--seed"], "seed"),
        (["--dry_run", "false"], "'false'"),
        (["--norm=linf", "--eps=8"], "--eps=8: must be below 1 for linf.*8 grey levels are 8/255"),
        (["--norm=linf", "--eps_grid=0,8"], "--eps_grid=8"),
        (["--norm=linf", "--eps=1"], "--eps=1: must be below 1"),
    ],
)
def test_wrong_command_lines(arguments, message):
    with pytest.raises(UsageError, match=message):
        read(*arguments)


def test_linf_bound_is_for_linf_only():
    assert read("--norm=l2", "--eps=8").eps == 8
    assert read("--norm=linf", "--eps=0.99").eps == 0.99
    assert read("--norm=linf", "--eps=inf").eps == math.inf


def test_workdir_is_required():
    with pytest.raises(UsageError, match="--workdir is missing"):
        parse(Everything, [])


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    config = parse(Everything, ["--workdir=~/runs/w", "--data_dir=a~b"])
    assert (config.workdir, config.data_dir) == ("/home/someone/runs/w", "a~b")


def test_values_are_checked_without_a_command_line_too():
    for wrong in ({"eps": -1.0}, {"steps": 0}, {"norm": "l3"}, {"seeds": ()}, {"seed": True}):
        with pytest.raises(ValueError, match=f"--{next(iter(wrong))}="):
            Everything(workdir="w", **wrong).validate()


@given(eps=st.floats(min_value=0, allow_nan=False, allow_infinity=True))
def test_format_eps_is_read_back_exactly(eps):
    assert parse_eps(format_eps(eps)) == eps


@given(levels=st.integers(0, 255), top=st.integers(1, 1000))
def test_fractions_are_divided_in_double_precision(levels, top):
    assert parse_eps(f"{levels}/{top}") == levels / top


@given(text=st.text(max_size=12))
def test_parse_eps_gives_a_radius_or_a_value_error(text):
    try:
        eps = parse_eps(text)
    except ValueError:
        return
    assert eps >= 0


@given(
    st.builds(
        Everything,
        workdir=st.sampled_from(["w", "a dir/it's"]),
        eps=st.floats(0, 1),
        eps_grid=st.lists(st.floats(0, 1), min_size=1, max_size=3).map(tuple),
        seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple),
        classes=st.sampled_from([None, ("cat", "dog")]),
        step_size=st.none() | st.floats(1e-3, 1),
        augment=st.booleans(),
        seed=st.integers(0, 2**31),
    )
)
def test_command_gives_the_config_back(config):
    words = shlex.split(config.command("experiments.everything"))
    assert words[:3] == ["python", "-m", "experiments.everything"]
    assert parse(Everything, words[3:]) == config


def test_command_leaves_defaults_and_overwrite_out():
    config = Everything(workdir="w", overwrite=True, steps=10, seed=3)
    assert config.command("m") == "python -m m --workdir=w --seed=3"


def test_identity_leaves_out_what_does_not_decide_the_result():
    one, other = Everything(workdir="a"), Everything(workdir="b", overwrite=True)
    assert one.identity() == other.identity()
    assert one.identity() != Everything(workdir="a", seed=1).identity()


def test_help_shows_the_docstring_every_flag_and_its_default(capsys):
    with pytest.raises(SystemExit) as end:
        runner.main(print, Everything, "What it does.", ["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("What it does.\n")
    for field in dataclasses.fields(Everything):
        assert f"--{field.name}\n" in shown.out
    assert "[8/255]" in shown.out
    assert "[required]" in shown.out
    assert "One of linf, l2, l1." in shown.out
    assert "logtostderr" not in shown.out  # absl's own flags
    assert shown.err == ""


def test_help_needs_no_workdir():
    with pytest.raises(HelpRequested):
        parse(Everything, ["-h"])


@pytest.mark.parametrize("arguments", [["--workdir=w", "--eps=-1"], ["--sead=1"], []])
def test_main_answers_with_one_line_and_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        runner.main(print, Everything, "", arguments)
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1


def test_main_ends_quietly_on_interrupt(capsys):
    def run(_):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        runner.main(run, Everything, "", ["--workdir=w"])
    assert end.value.code == 130
    assert "Traceback" not in capsys.readouterr().err


def test_none_is_a_value_where_it_is_a_choice():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Both(config_lib.Config):
        augment: str | None = flag(None, "Of images.", choices=("none", "flip"))
        model: str | None = flag(None, "Architecture.")

    found = parse(Both, ["--workdir=w", "--augment=none", "--model=none"])
    assert (found.augment, found.model) == ("none", None)
    assert parse(Both, ["--workdir=w"]).augment is None
