"""What an evaluation comes to: verdicts by image and attack, and reasons not to believe them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from advfeat.stats import Estimate, rate
from advfeat.threats.balls import ThreatModel

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
      share: `[F]`, of the network's draws that are right about the point; 0 or 1 unless it is
        random. Where the point is not allowed, about the image itself.
      allowed: `[F]` bool, whether the point lies in the threat model.
      x: `[F, H, W, C]`, the points.
      queries: `[F]`, forward passes.
      gradients: `[F]`, backward passes.
      claimed: `[F]` bool, whether the attack says that it fooled: it decides nothing.
    """

    rows: np.ndarray
    share: np.ndarray
    allowed: np.ndarray
    x: np.ndarray
    queries: np.ndarray
    gradients: np.ndarray
    claimed: np.ndarray

    @property
    def fooled(self) -> np.ndarray:
        """`[F]` bool, the point is allowed and most draws are wrong about it."""
        return self.allowed & (self.share < 0.5)

    @property
    def outside(self) -> np.ndarray:
        """`[F]` bool, claimed to be fooled by a point that is not allowed."""
        return self.claimed & ~self.allowed

    @property
    def unconfirmed(self) -> np.ndarray:
        """`[F]` bool, claimed to be fooled by a point that the network gets right."""
        return self.claimed & self.allowed & (self.share >= 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """What one attack of a suite came to.

    Attributes:
      name: as the suite calls it.
      tried: `[N]` bool, the images it was given.
      fooled: `[N]` bool, those it fooled: most of the network's draws are wrong about its point.
      share: `[N]` in [0, 1], of the network's draws that are right about the worst point of this
        attack and, where the attacks go one after the other, of all before it; the image itself is
        such a point. 0 or 1 unless the network is random.
      forward_passes: in all, those of gradients included.
      gradients: backward passes in all.
      seconds: wall time, compilation included.
      claims: images that the attack says it fooled.
      outside: claims that were refused: the point is not allowed.
      unconfirmed: claims that were refused: the network gets the point right.
    """

    name: str
    tried: np.ndarray
    fooled: np.ndarray
    share: np.ndarray
    forward_passes: int
    gradients: int
    seconds: float
    claims: int = 0
    outside: int = 0
    unconfirmed: int = 0

    @property
    def robust(self) -> np.ndarray:
        """`[N]` bool, where most draws are right."""
        return self.share >= 0.5

    @property
    def robust_accuracy(self) -> Estimate:
        """The mean of `share` with its 95 % interval, over images and draws."""
        return rate(self.share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What `evaluate` found.

    Attributes:
      suite: its name.
      threat: the threat model.
      clean_share: `[N]` in [0, 1], of the network's draws that are right about the clean image; 0
        or 1 unless the network is random.
      robust_share: `[N]`, likewise about `adversarial`: the worst case.
      looks: draws that each share is of.
      adversarial: `[N, H, W, C]` float32, the worst point found; the image itself where no point
        was worse.
      distance: `[N]`, of the adversarial example, in the threat model's norm.
      fooled_by: `[N]` int, the first attack that fooled; -1 for none, -2 for wrong without any.
      attacks: in the order they ran.
      warnings: reasons not to believe the number.
      checked: whether such reasons were looked for by further attacks.
    """

    suite: str
    threat: ThreatModel
    clean_share: np.ndarray
    robust_share: np.ndarray
    adversarial: np.ndarray
    distance: np.ndarray
    fooled_by: np.ndarray
    attacks: tuple[AttackOutcome, ...]
    warnings: tuple[Warned, ...]
    looks: int = 1
    checked: bool = True

    @property
    def clean(self) -> np.ndarray:
        """`[N]` bool, right on the clean image (in most draws)."""
        return self.clean_share >= 0.5

    @property
    def robust(self) -> np.ndarray:
        """`[N]` bool, right at the worst point too (in most draws)."""
        return self.robust_share >= 0.5

    @property
    def clean_accuracy(self) -> Estimate:
        """The mean of `clean_share` with its 95 % interval, over images and draws."""
        return rate(self.clean_share)

    @property
    def robust_accuracy(self) -> Estimate:
        """The mean of `robust_share` with its 95 % interval, over images and draws."""
        return rate(self.robust_share)

    @property
    def trusted(self) -> bool | None:
        """Whether no warning speaks against the number; None where none was looked for.

        If not, it is no robust accuracy. Warnings of 8-bit rounding and of replaced attacks leave
        it as it is. Where nothing stands, most others do too: no stronger attack can find less.
        """
        codes = {warned.code for warned in self.warnings} - NOTES
        if codes if self.robust.any() else codes & ALWAYS:
            return False
        return True if self.checked else None

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
        if self.looks > 1:
            lines.append(f"The network is random: means over {self.looks} draws an image.")
        if self.trusted is None:
            lines.append("NOT CHECKED: nobody looked for reasons not to believe the number.")
        elif not self.trusted:
            lines.append("NOT TO BE CALLED ROBUST: the warnings say why the number is too good.")
        return "\n".join(lines)
