"""Formats numbers for readers: estimates with intervals, differences, durations.

An estimate is an object with the attributes, or a mapping with the keys, `mean`, `low`, `high` and
`unit`: "rate" (the default) lies in [0, 1] and is shown in per cent, "points" is a difference of
two rates, "number" is shown unchanged. Interval ends of None mean too few data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def format_rate(rate: Any) -> str:
    r"""Formats a rate with its interval, in per cent; a dash if missing.

    Args:
      rate: an estimate: `mean`, `low` and `high` as attributes or keys, in [0, 1]. Interval ends of
        None mean too few data.

    Example:
      >>> rate = {"mean": 0.878, "low": 0.86, "high": 0.894, "n": 360}
      >>> format_rate(rate).replace("\N{NO-BREAK SPACE}", " ")
      '87.8 % [86.0, 89.4]'
    """
    return _with_interval(rate, lambda end: f"{100 * end:.1f}", unit="%")


def format_number(value: Any, digits: int = 2) -> str:
    r"""Formats a number with its interval, unchanged; a dash if missing.

    Args:
      value: an estimate, as for `format_rate`, of any unit; None if missing.
      digits: digits after the decimal point.

    Example:
      >>> shown = format_number({"mean": 0.878, "low": 0.86, "high": 0.894, "n": 360})
      >>> shown.replace("\N{NO-BREAK SPACE}", " ")
      '0.88 [0.86, 0.89]'
    """
    return _with_interval(value, lambda end: f"{end:.{digits}f}")


def format_difference(value: Any) -> str:
    r"""Formats a signed difference with its interval: of two rates in points, otherwise unchanged.

    Args:
      value: an estimate, as for `format_rate`; its `unit` is "number", or "rate" or "points" for a
        difference of rates (0.05 is five points either way).

    Example:
      >>> shown = format_difference({"mean": 0.768, "low": 0.73, "high": 0.802, "unit": "rate"})
      >>> shown.replace("\N{NO-BREAK SPACE}", " ")
      '+76.8 points [+73.0, +80.2]'
    """
    if field(value, "unit") == "number":
        return _with_interval(value, lambda end: _signed(end, 3))
    return _with_interval(value, lambda end: _signed(100 * end, 1), unit="points")


def _signed(number: float, digits: int) -> str:
    """Formats a number with a true minus sign; a number that rounds to zero has no sign.

    >>> _signed(-2.04, 1), _signed(2.0, 1), _signed(-0.01, 1)
    ('−2.0', '+2.0', '0.0')
    """
    shown = f"{number:+.{digits}f}".replace("-", "−")
    return shown if float(shown[1:]) else shown[1:]


def _with_interval(value: Any, shown: Callable[[float], str], unit: str = "") -> str:
    """Formats a value with its interval; only the space before the interval can break."""
    mean, low, high = (_known(field(value, name)) for name in ("mean", "low", "high"))
    if mean is None:
        return "–"
    middle = f"{shown(mean)}\u00a0{unit}" if unit else shown(mean)
    if low is None or high is None:
        return f"{middle} [too\u00a0few\u00a0to\u00a0tell]"
    return f"{middle} [{shown(low)},\u00a0{shown(high)}]"


def format_seconds(seconds: float) -> str:
    """Formats a duration as it would be spoken.

    Example:
      >>> format_seconds(12.3), format_seconds(203), format_seconds(7384)
      ('12 s', '3 min 23 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_cell(value: Any) -> str:
    """Formats the content of a table cell.

    Args:
      value: text, a number, a list of them, None for a missing value, or an estimate: an object
        with the attributes `mean`, `low`, `high` (and `unit`: "rate", the default, is shown in per
        cent, "points" as a difference of rates, "number" unchanged), or a mapping with these keys.

    Example:
      >>> format_cell(None), format_cell(1797), format_cell(0.123456), format_cell((1, 2))
      ('–', '1797', '0.1235', '1, 2')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if is_estimate(value):
        unit = field(value, "unit")
        if unit == "points":
            return format_difference(value)
        return format_number(value, 3) if unit == "number" else format_rate(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(format_cell(item) for item in value)
    number = float(value)
    if math.isnan(number):
        return "–"
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.4g}"


def format_any(value: Any) -> str:
    """Formats a cell; a mapping is formatted item by item."""
    if isinstance(value, Mapping) and not is_estimate(value):
        words = (f"{name.replace('_', ' ')} {format_any(item)}" for name, item in value.items())
        return "; ".join(words)
    return format_cell(value)


def parts(text: str) -> tuple[str, str]:
    """Splits a cell's text into value and trailing interval, which may be set below it.

    >>> parts("87.8 % [86.0, 89.4]"), parts("a word")
    (('87.8 %', '[86.0, 89.4]'), ('a word', ''))
    """
    middle, space, rest = text.partition(" [")
    return (middle, f"[{rest}") if space and rest.endswith("]") else (text, "")


def is_estimate(value: Any) -> bool:
    """Returns whether a value has a mean and an interval, as attributes or keys."""
    return "low" in value if isinstance(value, Mapping) else hasattr(value, "low")


def field(value: Any, name: str) -> Any:
    """Returns a field of an estimate, whether object or mapping; None if absent."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _known(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
