"""A griffe extension: doctests that stand bare in a docstring become blocks of code."""

import re
from typing import Any

import griffe

# Lines from a `>>> ` to the next empty line, at one indentation.
DOCTEST = re.compile(r"^([ ]*)>>> .*(?:\n\1\S.*|\n\1[ ]+.*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """Puts every doctest of a docstring between fences."""
    return DOCTEST.sub(lambda found: _block(found[0], found[1]), text)


def _block(doctest: str, indent: str) -> str:
    return f"\n{indent}```pycon\n{doctest}\n{indent}```\n"


class Doctests(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Of modules, classes, functions and attributes alike."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
