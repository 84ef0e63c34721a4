"""Value checks at the host boundary: one clear `ValueError` before any work.

Compiled code cannot raise on a value. Code that receives arrays from outside (a loader, an
experiment, `evaluate_epsilons`) therefore calls these checks on concrete arrays first. Callers skip
them inside `jit`; `is_concrete` tells whether a value exists.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def is_concrete(value: Any) -> bool:
    """Tests whether `value` is concrete, i.e. not traced by a JAX transformation."""
    return not isinstance(value, jax.core.Tracer)


def check_images(images: Any, *, name: str = "images") -> None:
    """Checks a batch of images: float32 (or bfloat16, float16), `[N, H, W, C]`, in [0, 1].

    Args:
      images: the array to check.
      name: name in the error message.

    Raises:
      ValueError: for another rank or dtype, an empty batch, NaN, or values outside [0, 1].

    >>> check_images(np.zeros((2, 8, 8, 1), np.float32))
    >>> check_images(np.full((1, 8, 8, 1), 255.0, np.float32))
    Traceback (most recent call last):
    ...
    ValueError: images must lie in [0, 1], got values from 255 to 255; divide 8-bit images by 255
    """
    array = np.asarray(images)
    if array.ndim != 4:
        raise ValueError(f"{name} must have shape [N, H, W, C], got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one image, got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.floating) and array.dtype.name != "bfloat16":
        raise ValueError(
            f"{name} must be floating point in [0, 1], got dtype {array.dtype}; "
            "divide 8-bit images by 255"
        )
    check_range(array, name=name)


def check_range(values: Any, *, name: str = "images", box: bool = True) -> None:
    """Checks that pixel values are finite and, by default, lie in [0, 1].

    Args:
      values: an array of any shape.
      name: name in the error message.
      box: whether values must lie in [0, 1]; otherwise any finite value passes.

    Raises:
      ValueError: for NaN, or values out of range.

    >>> check_range(np.array([0.5, np.nan]))
    Traceback (most recent call last):
    ...
    ValueError: images must not contain NaN
    """
    array = np.asarray(values)
    if not array.size:
        return
    low, high = float(array.min()), float(array.max())
    if np.isnan(low) or np.isnan(high):
        raise ValueError(f"{name} must not contain NaN")
    if not box and not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} must be finite, got values from {low:.9g} to {high:.9g}")
    if box and (low < 0 or high > 1):
        hint = "; divide 8-bit images by 255" if high > 2 else ""
        seen = f"{low:.9g} to {high:.9g}"  # nine digits distinguish any float32 from 1
        raise ValueError(f"{name} must lie in [0, 1], got values from {seen}{hint}")


def check_ids(ids: Any, *, count: int | None = None, below: int = 2**32, name: str = "ids") -> None:
    """Checks example ids: integers `[N]`, by default in `[0, 2**32)`.

    Only 32 bits are folded into a key, so larger ids would repeat the draws of smaller ones.

    Args:
      ids: the array to check; only shape and type if traced.
      count: required number of ids, if there are matching images.
      below: exclusive upper bound; 2**31 for ids stored as int32.
      name: name in the error message.

    Raises:
      ValueError: for another shape or type, or ids out of range.

    >>> check_ids(np.array([2**32]))
    Traceback (most recent call last):
    ...
    ValueError: ids must lie in [0, 2**32), got values from 4294967296 to 4294967296
    """
    array = ids if hasattr(ids, "dtype") else np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape [N], got shape {array.shape}")
    if count is not None and array.shape[0] != count:
        raise ValueError(f"{name} must hold {count} entries, one per image, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got dtype {array.dtype}")
    if not is_concrete(ids) or not getattr(ids, "is_fully_addressable", True) or not array.size:
        return
    values = np.asarray(array)
    if values.min() < 0 or values.max() >= below:
        words = f"must lie in [0, 2**{below.bit_length() - 1})"
        raise ValueError(f"{name} {words}, got values from {values.min()} to {values.max()}")


def check_labels(
    labels: Any, *, num_classes: int, count: int | None = None, name: str = "labels"
) -> None:
    """Checks integer labels `[N]` in `[0, num_classes)`.

    Args:
      labels: the array to check.
      num_classes: number of classes.
      count: required number of labels, if there are matching images.
      name: name in the error message.

    Raises:
      ValueError: for one-hot or floating-point labels, or labels out of range.

    >>> check_labels(np.array([0, 3]), num_classes=3)
    Traceback (most recent call last):
    ...
    ValueError: labels must lie in [0, 3), got values from 0 to 3
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        hint = "; give class indices, not one-hot rows" if array.ndim == 2 else ""
        raise ValueError(f"{name} must have shape [N], got shape {array.shape}{hint}")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got dtype {array.dtype}")
    if count is not None and array.shape[0] != count:
        raise ValueError(f"{name} must hold {count} labels, one per image, got {array.shape[0]}")
    if array.size and (array.min() < 0 or array.max() >= num_classes):
        raise ValueError(
            f"{name} must lie in [0, {num_classes}), got values from {array.min()} to {array.max()}"
        )


def check_logits(logits: Any, *, name: str = "model_fn") -> None:
    """Checks a network's outputs on a data set: finite numbers `[N, K]` with K >= 2.

    Raises:
      ValueError: for another shape, NaN or infinity.

    >>> check_logits(np.array([[0.0, 1.0], [np.nan, 1.0]]))
    Traceback (most recent call last):
    ...
    ValueError: model_fn must return finite logits, got NaN or infinity for 1 of 2 images
    """
    array = np.asarray(logits)
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(
            f"{name} must return logits [K] with K >= 2 classes for ONE image, got shape "
            f"{array.shape[1:]}"
        )
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} must return finite logits, got NaN or infinity for {bad.sum()} of "
            f"{len(array)} images"
        )


def check_eps(eps: Any, *, name: str = "eps", finite: bool = False) -> None:
    """Checks a perturbation size in units of [0, 1] pixels: any eps >= 0, infinity included.

    Traced values are accepted: they have no concrete value to check.

    Args:
      eps: a number or an array of numbers.
      name: name in the error message.
      finite: whether to reject infinity, e.g. for the weight of a loss.

    Raises:
      ValueError: for a negative, NaN or non-numeric eps.

    >>> check_eps(-1.0)
    Traceback (most recent call last):
    ...
    ValueError: eps must be >= 0, got -1
    """
    if not is_concrete(eps):
        return
    values = _numbers(eps)
    if values is None:
        raise ValueError(f"{name} must be a number >= 0, got {eps!r}")
    if np.isnan(values).any():
        raise ValueError(f"{name} must be >= 0, got NaN")
    if (values < 0).any():
        raise ValueError(f"{name} must be >= 0, got {values.min():g}")
    if finite and np.isinf(values).any():
        raise ValueError(f"{name} must be finite, got inf")


def _numbers(value: Any) -> np.ndarray | None:
    """Converts to float64, or returns None for non-numbers (NumPy would turn None into NaN)."""
    try:
        array = np.asarray(value)
        return None if array.dtype.kind in "OSUMm" else np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None


def check_positive(value: Any, *, name: str) -> None:
    """Checks an integer >= 1 such as `steps` or `batch_size`.

    >>> check_positive(0, name="steps")
    Traceback (most recent call last):
    ...
    ValueError: steps must be a whole number >= 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")


def check_norm(norm: str, *, allowed: tuple[str, ...], attack: str) -> None:
    """Checks that an attack supports the norm of its threat model.

    >>> check_norm("linf", allowed=("l2",), attack="ddn")
    Traceback (most recent call last):
    ...
    ValueError: threat must measure in l2 for ddn, got linf
    """
    if norm not in allowed:
        raise ValueError(f"threat must measure in {' or '.join(allowed)} for {attack}, got {norm}")


def check_fraction(value: Any, *, name: str) -> None:
    """Checks a number in [0, 1) such as the relative shrinkage of a radius.

    Traced values are accepted: they have no concrete value to check.

    >>> check_fraction(1.5, name="gamma")
    Traceback (most recent call last):
    ...
    ValueError: gamma must lie in [0, 1), got 1.5
    """
    check_eps(value, name=name)
    if is_concrete(value) and np.max(np.asarray(value, np.float64)) >= 1.0:
        raise ValueError(f"{name} must lie in [0, 1), got {np.max(np.asarray(value)):g}")


def check_between(
    value: Any,
    *,
    name: str,
    low: float = 0.0,
    high: float = np.inf,
    closed: tuple[bool, bool] = (False, True),
) -> None:
    """Checks numbers against an interval; every entry of an array must lie in it, NaN never does.

    Traced values are accepted: they have no concrete value to check.

    Args:
      value: a number or an array of numbers.
      name: name in the error message.
      low: lower end of the interval.
      high: upper end of the interval.
      closed: whether each end belongs to the interval.

    Raises:
      ValueError: for a number outside the interval, or a non-number.

    >>> check_between(0.7, name="bias", high=0.5)
    Traceback (most recent call last):
    ...
    ValueError: bias must lie in (0, 0.5], got 0.7
    """
    if not is_concrete(value):
        return
    words = f"{'[' if closed[0] else '('}{low:g}, {high:g}{']' if closed[1] else ')'}"
    given = _numbers(value)
    if given is None:
        raise ValueError(f"{name} must be a number in {words}, got {value!r}")
    numbers = np.atleast_1d(given)
    above = numbers >= low if closed[0] else numbers > low
    below = numbers <= high if closed[1] else numbers < high
    if not (above & below).all():
        first = numbers[~(above & below)][0]
        raise ValueError(f"{name} must lie in {words}, got {first:g}")


def check_share(value: Any, *, name: str) -> None:
    """Checks a number in [0, 1] such as the weight of one of two losses.

    Traced values are accepted: they have no concrete value to check.

    >>> check_share(-0.5, name="alpha")
    Traceback (most recent call last):
    ...
    ValueError: alpha must lie in [0, 1], got -0.5
    """
    check_between(value, name=name, high=1.0, closed=(True, True))
