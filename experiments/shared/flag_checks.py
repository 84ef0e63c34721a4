"""Checks limits of flags that depend on other flags or on the experiment."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence

from advfeat.runs.config import Config, UsageError
from advfeat.runs.kinds import format_eps


def check_linf_eps(norm: str, **eps: float | Sequence[float] | None) -> None:
    """Rejects an L-infinity eps that allows every image, before data are loaded.

    Args:
      norm: name of the norm; any but "linf" passes.
      **eps: flag name to its value or values; None if not given.

    Raises:
      UsageError: for a finite value of 1 or more, which is more likely 8 typed for 8/255.
    """
    if norm == "linf":
        for name, value in _each(eps):
            _refuse(name, value, 1.0, "linf", "pixels lie in [0, 1]")


def check_eps(norm: str, shape: tuple[int, ...], **eps: float | Sequence[float] | None) -> None:
    """Rejects an eps that allows every image; prints a note for one that no network can withstand.

    Mid-grey lies within half the box's diameter of every image, so from that eps on, all images can
    be turned into the same one.

    Args:
      norm: name of the norm.
      shape: of an image.
      **eps: flag name to its value or values; None if not given.

    Raises:
      UsageError: for a finite value of the box's diameter or more.
    """
    from advfeat.threats.norms import NORMS, title  # a slow import, needed only here

    widest = NORMS[norm].diameter(math.prod(shape))
    of = f"{norm} and images of {'x'.join(map(str, shape))}"
    for name, value in _each(eps):
        _refuse(name, value, widest, of, "no two are further apart")
        if widest / 2 <= value < widest:
            shown = format_eps(value)
            print(
                f"note: flag --{name}={shown}: from {title(norm)} eps {widest / 2:.4g} on every "
                f"image of {'x'.join(map(str, shape))} can be turned into the same grey one, which "
                f"no network withstands; {shown} grey levels are {shown}/255",
                file=sys.stderr,
            )


def _each(eps: Mapping[str, float | Sequence[float] | None]) -> Iterator[tuple[str, float]]:
    for name, value in eps.items():
        many = value if isinstance(value, Sequence) else () if value is None else (value,)
        yield from ((name, item) for item in many)


def _refuse(name: str, value: float, widest: float, of: str, why: str) -> None:
    if widest <= value < math.inf:
        shown = format_eps(value)
        raise UsageError(
            f"flag --{name}={shown}: must be below {widest:.4g} for {of}, {why}: it would allow "
            f"every image (inf says so where that is meant); {shown} grey levels are {shown}/255"
        )


def check_least(config: Config, **least: int) -> None:
    """Checks minimum values of flags.

    Raises:
      ValueError: for a flag below its minimum, naming flag and value.
    """
    for name, count in least.items():
        if getattr(config, name) < count:
            raise ValueError(f"flag --{name}={getattr(config, name)}: must be at least {count}")
