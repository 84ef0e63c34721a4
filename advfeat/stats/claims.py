"""Claims, judged by one rule.

A claim says that an effect exceeds its control. The interval of the difference decides, for and
against:

* **holds**: it lies above 0;
* **the other way**: it lies below 0;
* **no effect above M**: it lies below the margin M, which is stated with the claim: an equivalence,
  shown by its own test (Schuirmann, 1987), not by the absence of another;
* **not decidable at this size**: none of these.

The level is 95 % for a claim alone. All claims of a report are corrected together (Holm, 1979), so
that of ten claims without an effect one "holds" in at most 5 % of reports. An effect that is there
stays "holds" with more data, however small it is; the difference says how small.
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
"""Five points: a difference of rates that matters, where a claim says nothing else."""
SMALL = 0.1
"""A difference of correlations or cosines that matters: what is called a small correlation."""
_LEAST = 1e-9  # no smaller p is told from 0


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, its evidence and, once a report's claims are judged together, its verdict.

    Attributes:
      claim: a sentence.
      effect: what was measured.
      control: the same without the effect; of several, the highest.
      difference: effect less control; its interval decides.
      margin: M, a difference that would matter, in the difference's unit; None where none is said,
        and then nothing can be said to have no effect.
      p: one-sided, of: no more than the control; no less than it; at least M above it. None where
        there is no interval.
      verdict: None until `judge`d, and in a dry run.
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
        """Whether it was judged to hold."""
        return self.verdict == HOLDS

    def _asdict(self) -> dict[str, Any]:
        """What summaries hold."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def claim(
    text: str,
    effect: Estimate,
    *controls: Estimate,
    paired: Estimate | Sequence[Estimate] | None = None,
    margin: float | None = None,
) -> Claim:
    """A claim that the effect exceeds every one of its controls, not judged yet.

    Args:
      text: the claim, a sentence.
      effect: a rate, or a mean.
      *controls: the same without the effect.
      paired: the differences from the controls, in their order, where effect and control are of
        the same points; by default the two intervals are combined.
      margin: a difference that would matter. By default `MARGIN` for rates and none for numbers,
        which have units of their own.

    Returns:
      A claim without a verdict: `judge` gives it, to all claims of a report at once.

    Raises:
      ValueError: without a control, with another number of differences, or a margin not above 0.

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
    """The three p values against several controls.

    To exceed all, the least clear of the differences must be clear; to fall short of one, the
    clearest may be chosen, and pays for the choice.
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
    """The least one-sided p at which the interval has room to what it is tested against."""

    def at(logarithm: float) -> float:
        return room(1 - 2 * float(np.exp(logarithm)))

    low, high = np.log(_LEAST), np.log(0.4999)
    if not at(high) > 0:
        return 1.0
    if at(low) > 0:
        return _LEAST
    # Wider at every step of the level, so that there is one root.
    return float(np.exp(scipy.optimize.brentq(at, low, high, xtol=1e-6)))


def judge(claims: Sequence[Claim], *, level: float = LEVEL) -> list[Claim]:
    """Gives all claims of a report their verdicts, corrected together.

    Args:
      claims: all of them; those without an interval are not decidable and count for nothing.
      level: of a claim that is alone, and of the whole.

    Returns:
      The same claims with verdicts, in their order. Judging them again changes nothing.

    >>> from advfeat.stats import rate
    >>> rates = [rate([1] * 60 + [0] * 40), rate([1] * 45 + [0] * 55)]
    >>> alone = claim("More.", *rates)
    >>> [found.verdict for found in judge([alone])]
    ['holds']
    >>> [found.verdict for found in judge([alone] * 3)][0]
    'not decidable at this size'
    """
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
    more, less, _ = found.p  # the third is small only where there is a margin
    if more <= tail:
        return HOLDS
    if less <= tail:
        return OTHER
    assert found.margin is not None
    return f"no effect above {margin_words(found.margin, found.difference.unit)}"


def margin_words(margin: float, unit: Unit) -> str:
    """A margin with its unit, as it is read.

    >>> margin_words(0.05, "points"), margin_words(0.1, "number")
    ('5 points', '0.1')
    """
    return f"{margin:g}" if unit == "number" else f"{100 * margin:g} points"
