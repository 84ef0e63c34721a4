"""Limits of flags that their kind does not know: other flags or the experiment set them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.config import Config, UsageError, format_eps


def check_linf_eps(norm: str, **eps: float | Sequence[float]) -> None:
    """Refuse an L-infinity radius above the width of the pixel range.

    Args:
        norm: Name of the norm; any but "linf" passes.
        **eps: Flag name to its value or values.

    Raises:
        UsageError: A value above 1, which is more likely 8 typed for 8/255.
    """
    for name, value in eps.items():
        for item in value if isinstance(value, Sequence) else (value,):
            if norm == "linf" and item > 1:
                shown = format_eps(item)
                hint = f"; for {shown} grey levels write {shown}/255" if math.isfinite(item) else ""
                raise UsageError(
                    f"flag --{name}={shown}: must be at most 1 for linf, pixels lie in [0, 1]{hint}"
                )


def check_least(config: Config, **least: int) -> None:
    """Checks that flags are at least so many.

    Raises:
      ValueError: for one that is below, named with its value.
    """
    for name, count in least.items():
        if getattr(config, name) < count:
            raise ValueError(f"flag --{name}={getattr(config, name)}: must be at least {count}")
