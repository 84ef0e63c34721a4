"""The README's Python runs as it stands there."""

import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_readme_has_python():
    assert len(blocks()) >= 2


def test_blocks_run_one_after_the_other():
    names = {}
    for index, block in enumerate(blocks()):
        exec(compile(block, f"README block {index}", "exec"), names)
