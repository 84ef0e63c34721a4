"""Checks of the types that functions are annotated with, shapes included, at every call.

`jaxtyping` decorates the functions of a package as it is imported; `beartype` compares what they
take and return with their annotations.
"""

from typing import Any

import beartype

# A float parameter takes integers, as the type checkers of Python have it (PEP 484).
_check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def after_the_call(function):
    """Checks arguments and result once the function has returned.

    jaxtyping asks for two checks: of the arguments before the call (which promises nothing about
    the result, `Any`), and of everything after it. Only the second is made, so that bad input meets
    the function's own error and not a checker's. What is not public is left alone, functions within
    functions included; so are the fields of dataclasses, for JAX has pytrees hold anything.
    """
    first = function.__annotations__.get("return") is Any
    name = function.__name__
    public = name == "__call__" or not name.startswith("_")
    if first or not public or "<locals>" in function.__qualname__:
        return function
    return _check(function)
