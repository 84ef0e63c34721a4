"""The README's Python runs as it stands there."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_readme_has_python():
    assert len(blocks()) >= 2


@pytest.mark.parametrize("index", range(len(blocks())))
def test_block_runs(index):
    names = {}
    exec("import advfeat", names)  # a reader goes from block to block
    exec(compile(blocks()[index], f"README block {index}", "exec"), names)
