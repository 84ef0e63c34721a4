"""Checks of the types that functions are annotated with, shapes included, at every call.

`jaxtyping` decorates the functions of a package as it is imported; `beartype` compares what they
take and return with their annotations.
"""

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

import beartype
import jax
import jaxtyping
import numpy as np

# A float parameter takes integers, as the type checkers of Python have it (PEP 484).
_check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
_UNIONS = (Union, types.UnionType)
_HOLDERS = (tuple, dict, Mapping)


def of_any_library(hint, *others):
    """The same shapes and kinds, of arrays of JAX and of NumPy, or of these other types.

    What takes the one takes the other, and tests use that. What is only a protocol may be anything.
    """
    if getattr(hint, "_is_protocol", False):
        return Any
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        arrays = (hint.dtype[array, hint.dim_str] for array in (jax.Array, np.ndarray))
        return Union[(*arrays, np.generic, *others)]
    if get_origin(hint) in _UNIONS:
        return Union[tuple(of_any_library(part, *others) for part in get_args(hint))]  # noqa: UP007
    if get_origin(hint) in _HOLDERS:
        return get_origin(hint)[tuple(of_any_library(part, *others) for part in get_args(hint))]
    return hint


def after_the_call(function):
    """Checks arguments and result once the function has returned.

    jaxtyping asks for two checks: of the arguments before the call (which promises nothing about
    the result, `Any`), and of everything after it. Only the second is made, so that bad input meets
    the function's own error and not a checker's. What is not public is left alone, functions within
    functions included; so are the fields of dataclasses, for JAX has pytrees hold anything.
    """
    promised, name = function.__annotations__.get("return"), function.__name__
    public = name == "__call__" or not name.startswith("_")
    if promised is Any or not public or "<locals>" in function.__qualname__:
        return function
    hints = function.__annotations__.items()
    function.__annotations__ = {
        name: of_any_library(hint, *([] if name == "return" else [list])) for name, hint in hints
    }
    return _check(function)
