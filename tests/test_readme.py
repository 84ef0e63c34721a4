"""The README's Python runs as it stands there, and its commands can be typed in their order."""

import importlib
import importlib.util
import pathlib
import re
import shlex
import subprocess
import sys

from advfeat import zoo
from advfeat.runs.config import parse

README = pathlib.Path(__file__).parents[1] / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_readme_has_python():
    assert len(blocks()) >= 2


def test_blocks_run_one_after_the_other():
    names = {}
    for index, block in enumerate(blocks()):
        exec(compile(block, f"README block {index}", "exec"), names)


def commands():
    """Command lines of experiments, as they stand there one after the other."""
    text = README.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"python -m experiments\.(\w+) (--[^\n]*)", text)
    return [(name, shlex.split(flags, comments=True)) for name, flags in found]


def test_commands_take_their_flags():
    assert len(commands()) >= 12
    for name, flags in commands():
        module = importlib.import_module(f"experiments.{name}.flags")
        parse(module.Config, flags)


def test_commands_name_what_is_there_by_then():
    made = set()
    for _, flags in commands():
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
    """Every dotted name of a package, in the text, in inline code and in blocks."""
    text = README.read_text(encoding="utf-8")
    return sorted(set(re.findall(rf"(?<![\w./-]){package}(?:\.[A-Za-z_]\w*)+", text)))


def test_every_name_is_there_after_import_advfeat():
    found = names("advfeat")
    assert {"advfeat.ATTACKS", "advfeat.zoo.load", "advfeat.models.adapters"} <= set(found)
    code = "\n".join(["import advfeat", *found])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-1000:]


def test_every_experiment_is_there():
    found = names("experiments")
    assert len(found) > 8
    for name in found:
        assert importlib.util.find_spec(name) is not None, name


def test_every_adapter_is_there():
    from advfeat.models import adapters

    found = set(re.findall(r"`(from_\w+)`", README.read_text(encoding="utf-8")))
    assert len(found) >= 5
    for name in found:
        assert callable(getattr(adapters, name)), name
