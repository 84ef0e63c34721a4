"""Judges claims by one rule.

A claim says that an effect exceeds its control. The interval of the difference decides, for or
against:

* **holds**: the interval lies above 0;
* **the other way**: it lies below 0;
* **no effect above M**: it lies below the margin M, which is stated with the claim: equivalence,
  shown by a test of its own (Schuirmann, 1987), not by the failure of another;
* **not decidable at this size**: none of these.

The level is 95 % for a single claim. All claims of a report are corrected together (Holm, 1979), so
that among ten claims without an effect, any "holds" in at most 5 % of reports. A real effect,
however small, "holds" given enough data; the difference says how small it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy  # which imports its parts on their first use, as `import advfeat` wants it

from advfeat.stats.estimate import LEVEL, Estimate, Unit
from advfeat.stats.intervals import apart

Verdict = str
"""What `judge` says of a claim, as words."""
HOLDS, OTHER = "holds", "the other way"
OPEN = "not decidable at this size"
"""The verdict where the interval allows both."""
MARGIN = 0.05
"""Default margin of rates: a difference of five points matters."""
SMALL = 0.1
"""Default margin of correlations and cosines: a correlation that is called small."""
_LEAST = 1e-9  # smaller p values are not distinguished from 0


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim with its evidence and, once judged together with its report's claims, a verdict.

    Attributes:
      claim: a sentence.
      effect: the measurement.
      control: the same quantity without the effect; the highest of several.
      difference: effect minus control; its interval decides.
      margin: M, a difference that would matter, in the difference's unit; None if not stated, in
        which case `judge` refuses the claim: without one, a true lack of an effect could never be
        found.
      p: one-sided p values of three null hypotheses: effect no more than control; no less than
        control; at least M above control. None without an interval.
      verdict: None before `judge`, and in a dry run.
    """

    claim: str
    effect: Estimate
    control: Estimate
    difference: Estimate
    margin: float | None = None
    p: tuple[float, float, float] | None = None
    verdict: Verdict | None = None

    @property
    def holds(self) -> bool:
        """Whether the claim was judged to hold."""
        return self.verdict == HOLDS

    def _asdict(self) -> dict[str, Any]:
        """Returns the fields as stored in summaries."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def claim(
    text: str,
    effect: Estimate,
    *controls: Estimate,
    paired: Estimate | Sequence[Estimate] | None = None,
    margin: float | None = None,
) -> Claim:
    """States that an effect exceeds every one of its controls; not judged yet.

    Args:
      text: the claim, a sentence.
      effect: a rate, or a mean.
      *controls: the same quantity without the effect.
      paired: the differences from the controls, in their order, if effect and control were measured
        on the same points; by default the two intervals are combined.
      margin: a difference that would matter. By default `MARGIN` for rates and none for numbers,
        which have units of their own.

    Returns:
      A claim without a verdict; `judge` assigns verdicts to all claims of a report at once.

    Raises:
      ValueError: for no control, a wrong number of differences, or a margin that is not positive.

    >>> from advfeat.stats import rate
    >>> low, high = rate([0] * 90 + [1] * 10), rate([1] * 90 + [0] * 10)
    >>> [found] = judge([claim("It works.", high, low)])
    >>> found.verdict
    'holds'
    """
    if not controls:
        raise ValueError(f"the claim {text!r} must have at least one control")
    if paired is None:
        gaps = [apart(effect, control) for control in controls]
    else:
        gaps = [paired] if isinstance(paired, Estimate) else list(paired)
    if len(gaps) != len(controls):
        raise ValueError(f"paired must hold {len(controls)} differences, one a control")
    if margin is not None and not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    if margin is None and effect.unit == "rate":
        margin = MARGIN
    nearest = int(np.argmax([control.mean for control in controls]))
    return Claim(text, effect, controls[nearest], gaps[nearest], margin, _all(gaps, margin))


def _all(gaps: Sequence[Estimate], margin: float | None) -> tuple[float, float, float] | None:
    """Combines the three p values over several controls.

    To exceed all controls, the least significant difference must be significant. To fall short of
    one, the most significant may be selected, with a correction for the selection.
    """
    found = [_tails(gap, margin) for gap in gaps]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    more, less, small = zip(*known, strict=True)
    return max(more), min(1.0, len(gaps) * min(less)), min(1.0, len(gaps) * min(small))


def _tails(gap: Estimate, margin: float | None) -> tuple[float, float, float] | None:
    at = gap.at
    if at is None:
        return None
    return (
        _least(lambda level: at(level)[0]),
        _least(lambda level: -at(level)[1]),
        1.0 if margin is None else _least(lambda level: margin - at(level)[1]),
    )


def _least(room: Callable[[float], float]) -> float:
    """Returns the least one-sided p at which the interval excludes the tested value."""

    def at(logarithm: float) -> float:
        return room(1 - 2 * float(np.exp(logarithm)))

    low, high = np.log(_LEAST), np.log(0.4999)
    if not at(high) > 0:
        return 1.0
    if at(low) > 0:
        return _LEAST
    # The interval widens monotonically with the level, so there is one root.
    return float(np.exp(scipy.optimize.brentq(at, low, high, xtol=1e-6)))


def judge(claims: Sequence[Claim], *, level: float = LEVEL) -> list[Claim]:
    """Assigns verdicts to all claims of a report, corrected together.

    Args:
      claims: all claims; those without an interval are not decidable and do not count in the
        correction.
      level: of a single claim, and of the whole report.

    Returns:
      The same claims with verdicts, in order. Judging them again changes nothing.

    Raises:
      ValueError: for a claim without a margin, since no data could show that it has no effect.

    >>> from advfeat.stats import rate
    >>> rates = [rate([1] * 60 + [0] * 40), rate([1] * 45 + [0] * 55)]
    >>> alone = claim("More.", *rates)
    >>> [found.verdict for found in judge([alone])]
    ['holds']
    >>> [found.verdict for found in judge([alone] * 3)][0]
    'not decidable at this size'
    """
    for each in claims:
        if each.margin is None:
            raise ValueError(f"the claim {each.claim!r} must state its margin, got None")
    strongest = {index: 2 * min(each.p) for index, each in enumerate(claims) if each.p is not None}
    verdicts = [OPEN] * len(claims)
    left = len(strongest)
    for index in sorted(strongest, key=strongest.__getitem__):
        threshold = (1 - level) / left
        if strongest[index] > threshold:
            break
        verdicts[index] = _verdict(claims[index], threshold / 2)
        left -= 1
    return [
        dataclasses.replace(each, verdict=verdict)
        for each, verdict in zip(claims, verdicts, strict=True)
    ]


def _verdict(found: Claim, tail: float) -> Verdict:
    assert found.p is not None
    more, less, _ = found.p  # the third can be small only if there is a margin
    if more <= tail:
        return HOLDS
    if less <= tail:
        return OTHER
    assert found.margin is not None
    return f"no effect above {margin_words(found.margin, found.difference.unit)}"


def margin_words(margin: float, unit: Unit) -> str:
    """Formats a margin with its unit.

    >>> margin_words(0.05, "points"), margin_words(0.1, "number")
    ('5 points', '0.1')
    """
    return f"{margin:g}" if unit == "number" else f"{100 * margin:g} points"
