"""What an evaluation comes to: verdicts by image and attack, and reasons not to believe them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from advfeat.stats import Estimate, rate
from advfeat.threat import ThreatModel

NOTES = frozenset({"rounding", "replaced"})
"""Codes of warnings that leave the robust accuracy as it is."""
ALWAYS = frozenset({"eps_scale", "randomised"})
"""Codes of warnings that speak against a number even where no image stands."""


class Warned(NamedTuple):
    """A reason not to believe a number as it stands.

    Attributes:
      code: one word for programs, as in `zero_gradients`.
      sentence: what was seen and what it means, for people.
    """

    code: str
    sentence: str


class Part(NamedTuple):
    """What one attack did to some of the images: enough to go on after a kill.

    Attributes:
      rows: `[F]`, which images.
      fooled: `[F]` bool, as verified.
      x: `[F, H, W, C]`, the adversarial examples (of images that stand: what came nearest).
      queries: `[F]`, forward passes.
      gradients: `[F]`, backward passes.
      outside: `[F]` bool, claimed to be fooled by a point that is not allowed.
      unconfirmed: `[F]` bool, claimed to be fooled by a point that the network gets right.
    """

    rows: np.ndarray
    fooled: np.ndarray
    x: np.ndarray
    queries: np.ndarray
    gradients: np.ndarray
    outside: np.ndarray
    unconfirmed: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """What one attack of a suite came to.

    Attributes:
      name: as the suite calls it.
      tried: `[N]` bool, the images it was given.
      fooled: `[N]` bool, those it fooled, verified.
      robust: `[N]` bool, right on the clean image and not fooled by this attack nor, where the
        attacks go one after the other, by any before it.
      forward_passes: in all, those of gradients included.
      gradients: backward passes in all.
      seconds: wall time, compilation included.
      outside: claims of success that were refused: the point is not allowed.
      unconfirmed: claims of success that were refused: the network gets the point right.
    """

    name: str
    tried: np.ndarray
    fooled: np.ndarray
    robust: np.ndarray
    forward_passes: int
    gradients: int
    seconds: float
    outside: int = 0
    unconfirmed: int = 0

    @property
    def robust_accuracy(self) -> Estimate:
        """The rate of `robust` with its 95 % interval."""
        return rate(self.robust)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What `evaluate` found.

    Attributes:
      suite: its name.
      threat: the threat model.
      clean: `[N]` bool, right on the clean image.
      robust: `[N]` bool, right on the clean image and fooled by no attack: the worst case.
      adversarial: `[N, H, W, C]` float32; the image itself where nothing fooled.
      distance: `[N]`, of the adversarial example, in the threat model's norm.
      fooled_by: `[N]` int, the first attack that fooled; -1 for none, -2 for wrong without any.
      attacks: in the order they ran.
      warnings: reasons not to believe the number.
    """

    suite: str
    threat: ThreatModel
    clean: np.ndarray
    robust: np.ndarray
    adversarial: np.ndarray
    distance: np.ndarray
    fooled_by: np.ndarray
    attacks: tuple[AttackOutcome, ...]
    warnings: tuple[Warned, ...]

    @property
    def clean_accuracy(self) -> Estimate:
        """The rate of `clean` with its 95 % interval."""
        return rate(self.clean)

    @property
    def robust_accuracy(self) -> Estimate:
        """The rate of `robust` with its 95 % interval."""
        return rate(self.robust)

    @property
    def trusted(self) -> bool:
        """Whether no warning speaks against the number: if not, it is no robust accuracy.

        Warnings of 8-bit rounding and of replaced attacks leave it as it is. Where nothing stands,
        most others do too: no stronger attack can find less.
        """
        codes = {warned.code for warned in self.warnings} - NOTES
        return not (codes if self.robust.any() else codes & ALWAYS)

    def __str__(self) -> str:
        """A table: one line per attack, then the warnings and what they come to."""

        def line(name: str, value: Estimate, rest: str = "") -> str:
            return f"{name:<20} {value!s:>22}{rest}"

        lines = [line("clean", self.clean_accuracy)]
        for part in self.attacks:
            cost = f"  {part.forward_passes:>12,} forward {part.gradients:>12,} backward"
            lines.append(line(part.name, part.robust_accuracy, cost + f" {part.seconds:8.1f} s"))
        lines.append(line("worst case", self.robust_accuracy))
        lines += [f"warning ({w.code}): {w.sentence}" for w in self.warnings]
        if not self.trusted:
            lines.append("NOT TO BE CALLED ROBUST: the warnings say why the number is too good.")
        return "\n".join(lines)
