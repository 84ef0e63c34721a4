"""The README's Python runs as it stands there."""

import importlib.util
import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_readme_has_python():
    assert len(blocks()) >= 2


def test_blocks_run_one_after_the_other():
    names = {}
    for index, block in enumerate(blocks()):
        exec(compile(block, f"README block {index}", "exec"), names)


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
