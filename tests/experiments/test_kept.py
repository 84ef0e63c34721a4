"""What was measured outlives what is drawn of it, and a dry run concludes nothing."""

import ast
import dataclasses
import functools
import importlib
import pathlib
import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from advfeat.runs import runner
from advfeat.runs.config import parse
from experiments.shared.kept import flat, kept, nested

ROOT = pathlib.Path(__file__).resolve().parents[2] / "experiments"
NAMES = sorted(path.parent.name for path in ROOT.glob("*/report.py"))
FLAGS = {"evaluate": ["--checkpoint=zoo:digits_standard", "--norm=linf", "--eps=0.1"]}
FLAGS |= {name: ["--model=mlp", "--width=16"] for name in ("tradeoff", "sample_complexity")}
FLAGS["train"] = ["--model=mlp", "--width=16"]


def config_of(name, path):
    config_class = importlib.import_module(f"experiments.{name}.flags").Config
    return parse(config_class, [f"--workdir={path}", "--dry_run", *FLAGS.get(name, [])])


def drawing_only(work):
    """The same work, in which no network may be applied, let alone trained."""

    def applied(*_, **__):
        raise AssertionError("a network was applied again")

    @functools.wraps(work)
    def forbidden(config, plan, run):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.Module, "apply", applied)
            return work(config, plan, run)

    return forbidden


@pytest.fixture(scope="session")
def drawn_at_the_second_try(tmp_path_factory):
    """Page and recipe of a dry run whose first report failed; the second try measured nothing."""
    pages = {}

    def page(name):
        if name in pages:
            return pages[name]
        path = tmp_path_factory.mktemp(name) / "run"
        report = importlib.import_module(f"experiments.{name}.report")
        run, config = importlib.import_module(f"experiments.{name}.work").run, config_of(name, path)

        given = {}

        def failing(*_, **options):
            given.update(options)
            raise ZeroDivisionError("a figure")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(report, "write_report", failing)
            with pytest.raises(runner.CannotGoOn, match=r"not drawn \(ZeroDivisionError: a figure"):
                run(config)
        assert (path / "kept.json").exists()
        assert not (path / "summary.json").exists()
        jax.clear_caches()  # or what was traced before would not be seen again
        dataclasses.replace(run, work=drawing_only(run.work))(config)
        assert not (path / "kept.json").exists()
        assert (path / "summary.json").exists()
        pages[name] = (path / "report.html").read_text(), given["recipe"]
        return pages[name]

    return page


QUICK = ("train",)
EVERY = [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in NAMES]


@pytest.mark.parametrize("name", EVERY)
def test_a_report_that_failed_is_drawn_without_measuring_again(drawn_at_the_second_try, name):
    assert "Dry run: " in drawn_at_the_second_try(name)[0]


CONCLUDES = re.compile(
    r"is not shown|accuracy is shown|not shown to|decidabl|are broken|to be trusted"
    r"|memorised|this number cannot|train longer|from chance|no effect above|\bahead in\b"
    r"|no defence, by|not monotone|CAUGHT|[✓✗≈]"
)


@pytest.mark.parametrize("name", EVERY)
def test_a_dry_run_concludes_nothing(drawn_at_the_second_try, name):
    page = re.sub(r"<style>.*?</style>|<[^>]*>", " ", drawn_at_the_second_try(name)[0], flags=re.S)
    claims = page.find("Without verdicts")
    text = page if claims < 0 else page[:claims]  # what is claimed is a sentence, not a finding
    assert [match.group() for match in CONCLUDES.finditer(text)] == []


LOADED = {"evaluate", "saliency", "synthesis", "representations", "counterfactual"}
NO_ATTACK = {"saliency", "roar", "sanity"}


def told(recipe):
    for name, value in recipe.items():
        if isinstance(value, dict):
            yield from (f"{name} {line}" for line in told(value))
        else:
            yield f"{name} {value}"


@pytest.mark.parametrize(
    "name", [name for name in EVERY if name.values != ("benchmark",)], ids=lambda name: name
)
def test_a_recipe_holds_what_was_used(drawn_at_the_second_try, name):
    lines = list(told(drawn_at_the_second_try(name)[1]))
    wanted = {"data": "images", "network": "model|network"}
    wanted |= {} if name in LOADED else {"epochs": r"epochs\D*\d"}
    wanted |= {} if name in NO_ATTACK else {"eps": r"\beps\b\D*\d", "steps": r"steps\D*\d|\d steps"}
    for what, pattern in wanted.items():
        there = [line for line in lines if re.search(pattern, line)]
        assert there, (what, lines)
        assert not [line for line in there if "None" in line or "–" in line]


@pytest.mark.parametrize("name", NAMES)
def test_every_report_is_drawn_after_its_summary_was_kept(name):
    tree = ast.parse((ROOT / name / "work.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    written = [node for node in calls if ast.unparse(node.func) == "report.write"]
    keeping = [node for node in calls if ast.unparse(node.func) == "runner.reported"]
    inside = [node for call in keeping for node in ast.walk(call) if node in written]
    assert len(keeping) == len(written) == len(inside) == 1


class Run:
    """As much of a run as `kept` needs: what was written is read."""

    def __init__(self):
        self.files = {}

    def cached(self, name, compute):
        if name not in self.files:
            self.files[name] = compute()[0]
        return self.files[name]


def test_nested_measurements_are_the_same_the_second_time():
    tree = {"a": {0.5: np.arange(3), "b/c": np.True_}, "none": {}, "x": np.float32(2)}
    run, calls = Run(), []
    first, second = (kept(run, "m", lambda: calls.append(1) or tree) for _ in range(2))
    assert len(calls) == 1
    for found in (first, second, nested(flat(tree))):
        assert list(found) == ["a", "none", "x"]
        assert list(found["a"]) == ["0.5", "b/c"]
        assert found["none"] == {}
        np.testing.assert_array_equal(found["a"]["0.5"], [0, 1, 2])
