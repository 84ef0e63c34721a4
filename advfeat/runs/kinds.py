"""Kinds of flags: how a value is read from text, and which values are allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """The parser and the allowed values of a kind of flag.

    Attributes:
      parse: text to value; raises ValueError if the text is invalid.
      allowed: whether a value is allowed.
      words: description of the allowed values, to follow "must be".
    """

    parse: Callable[[str], Any]
    allowed: Callable[[Any], bool]
    words: str


def parse_eps(text: str) -> float:
    """Parses a radius: a number, a fraction of two numbers, or `inf`.

    Args:
      text: for instance `0.5`, `8/255`, `inf`.

    Returns:
      The radius, at least 0.

    Raises:
      ValueError: for anything else, including negative numbers and NaN.

    Example:
      >>> parse_eps("8/255") == 8 / 255
      True
    """
    numerator, slash, denominator = text.partition("/")
    value = float(numerator)
    if slash:
        below = float(denominator)
        if not (math.isfinite(value) and math.isfinite(below) and below > 0):
            raise ValueError(f"{text!r} is not a fraction")
        value /= below
    if not value >= 0:
        raise ValueError(f"{text!r} is negative or no number")
    return value


def format_eps(eps: float) -> str:
    """Formats a radius in its most readable form; `parse_eps` restores it exactly.

    Example:
      >>> format_eps(8 / 255), format_eps(0.5), format_eps(1.0)
      ('8/255', '0.5', '1')
    """
    levels = eps * 255
    exact = math.isfinite(levels) and 0 < round(levels) < 255 and round(levels) / 255 == eps
    if exact and len(repr(eps)) > 6:  # 0.2 is 51/255, but nobody writes it that way
        return f"{round(levels)}/255"
    return str(int(eps)) if math.isfinite(eps) and eps == int(eps) < 1e6 else str(float(eps))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)


def _finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _bool(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


KINDS = {
    "str": Kind(str, lambda v: isinstance(v, str) and v != "", "a text that is not empty"),
    "bool": Kind(_bool, lambda v: isinstance(v, bool), "true or false"),
    "int": Kind(int, _is_int, "a whole number"),
    "natural": Kind(int, lambda v: _is_int(v) and v >= 0, "a whole number >= 0"),
    "count": Kind(int, lambda v: _is_int(v) and v >= 1, "a whole number >= 1"),
    "float": Kind(float, _finite, "a finite number"),
    "positive": Kind(float, lambda v: _finite(v) and v > 0, "a finite number > 0"),
    "nonnegative": Kind(float, lambda v: _finite(v) and v >= 0, "a finite number >= 0"),
    "fraction": Kind(float, lambda v: _finite(v) and 0 <= v <= 1, "a number from 0 to 1"),
    "eps": Kind(
        parse_eps, lambda v: _is_number(v) and v >= 0, "a number >= 0, as in 0.5, 8/255 or inf"
    ),
}
