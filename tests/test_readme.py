"""The Python of the README and the guide runs, and their commands can be typed in their order."""

import importlib
import importlib.util
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from advfeat import zoo
from advfeat.runs.config import parse

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
# launch.md shows commands with `...`, intervals.md shows numbers.
GUIDE = [
    page
    for page in sorted((ROOT / "docs").glob("*.md"))
    if page.name not in ("launch.md", "intervals.md")
]
PAGES = [README, *GUIDE]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def text(page):
    return page.read_text(encoding="utf-8")


def blocks(page):
    return re.findall(r"```python\n(.*?)```", text(page), re.DOTALL)


def test_pages_have_python():
    assert len(blocks(README)) >= 1
    assert sum(len(blocks(page)) for page in GUIDE) >= 12


@pytest.mark.slow_for("pictures", "primitives", "robustness")
@every_page
def test_blocks_run_one_after_the_other(page):
    names = {}
    for index, block in enumerate(blocks(page)):
        exec(compile(block, f"{page.name} block {index}", "exec"), names)


def commands(page):
    """Command lines of experiments, as they stand there one after the other."""
    found = re.findall(r"python -m experiments\.(\w+) (--[^\n]*)", text(page).replace("\\\n", " "))
    return [(name, shlex.split(flags, comments=True)) for name, flags in found]


def test_pages_have_commands():
    assert len(commands(README)) >= 2
    assert sum(len(commands(page)) for page in GUIDE) >= 15


@every_page
def test_commands_take_their_flags(page):
    for name, flags in commands(page):
        module = importlib.import_module(f"experiments.{name}.flags")
        parse(module.Config, flags)


@every_page
def test_commands_name_what_is_there_by_then(page):
    made = set()
    for _, flags in commands(page):
        given = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags)
        for flag in ("checkpoint", "robust_checkpoint", "standard", "robust"):
            reference = given.get(flag)
            if reference is not None and reference.startswith(zoo.PREFIX):
                assert reference.removeprefix(zoo.PREFIX) in zoo.names()
            elif reference is not None:
                assert reference in made, f"{reference} is taken before it is made"
        if given.get("dataset", "").endswith(".npz"):
            assert str(pathlib.Path(given["dataset"]).parent) in made
        made.add(given.get("workdir"))


def names(package):
    """Every dotted name of a package, in the text, in inline code and in blocks of any page."""
    name = rf"(?<![\w./-]){package}(?:\.(?!md\b)[A-Za-z_]\w*)+"
    return sorted({found for page in PAGES for found in re.findall(name, text(page))})


def test_every_name_is_there_after_import_advfeat():
    found = names("advfeat")
    assert {"advfeat.ATTACKS", "advfeat.zoo.load", "advfeat.models.adapters"} <= set(found)
    # In a wheel, and only there: `python -m advfeat.experiments.NAME`.
    code = "\n".join(["import advfeat", *(n for n in found if n != "advfeat.experiments.NAME")])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-1000:]


def test_every_experiment_is_there():
    found = set(names("experiments"))
    for name in found:
        assert importlib.util.find_spec(name) is not None, name
    page = text(ROOT / "docs" / "experiments.md")
    listed = re.findall(r"^\| `(experiments\.\w+)`", page, re.MULTILINE)
    there = (path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py"))
    assert sorted(listed) == sorted(f"experiments.{name}" for name in there)


def test_every_adapter_is_there():
    from advfeat.models import adapters

    found = {name for page in PAGES for name in re.findall(r"`(from_\w+)`", text(page))}
    assert len(found) >= 5
    for name in found:
        assert callable(getattr(adapters, name)), name


def test_every_figure_is_in_the_gallery():
    shown = set(re.findall(r"\]\(([^)]+\.png)\)", text(ROOT / "docs" / "gallery.md")))
    docs = ROOT / "docs"
    assert shown == {str(path.relative_to(docs)) for path in docs.rglob("*.png")}


def test_every_name_of_a_table_is_there():
    """Backticked names of a table whose head names their module."""
    table = r"^\| \w+ of `(advfeat\.[\w.]+)` .*\n\|-.*\n((?:\|.*\n)+)"
    tables = [found for page in GUIDE for found in re.findall(table, text(page), re.MULTILINE)]
    assert tables
    for module, rows in tables:
        first = "".join(row.split("|")[1] for row in rows.splitlines())
        for name in re.findall(r"`(\w+)`", first):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
