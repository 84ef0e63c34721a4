"""Results of an evaluation: verdicts by image and attack, and warnings about their validity."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from advfeat.stats import Estimate, rate
from advfeat.threats.balls import ThreatModel

NOTE = "note"
"""Severity of a warning that does not invalidate the robust accuracy."""
DOUBT = "doubt"
"""Severity of a warning that invalidates it if any image survives: a stronger attack could lower
it further."""
ALWAYS = "always"
"""Severity of a warning that invalidates the robust accuracy even if no image survives."""


class TrustWarning(NamedTuple):
    """A warning about the robust accuracy.

    Attributes:
      code: machine-readable code such as `zero_gradients`.
      sentence: human-readable observation and its meaning.
      severity: `NOTE`, `DOUBT` or `ALWAYS`: what it means for the robust accuracy.
    """

    code: str
    sentence: str
    severity: str = DOUBT


class AttackChunk(NamedTuple):
    """Outcome of one attack on some of the images; enough to resume an interrupted evaluation.

    Attributes:
      rows: `[F]`, rows of the images.
      share: `[F]`, share of the network's draws that are correct at the point; 0 or 1 unless it is
        random. If the point is not allowed, at the image itself.
      allowed: `[F]` bool, whether the point lies in the threat model.
      x: `[F, H, W, C]`, the points.
      queries: `[F]`, forward passes.
      gradients: `[F]`, backward passes.
      claimed: `[F]` bool, whether the attack reports success; not used for the verdict.
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
        """`[F]` bool, whether the point is allowed and misclassified in most draws."""
        return self.allowed & (self.share < 0.5)

    @property
    def outside(self) -> np.ndarray:
        """`[F]` bool, claims of success at a point that is not allowed."""
        return self.claimed & ~self.allowed

    @property
    def unconfirmed(self) -> np.ndarray:
        """`[F]` bool, claims of success at a point that the network classifies correctly."""
        return self.claimed & self.allowed & (self.share >= 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """Outcome of one attack of a suite.

    Attributes:
      name: name of the attack in the suite.
      tried: `[N]` bool, the images it received.
      fooled: `[N]` bool, the images it fooled: its point is misclassified in most draws.
      share: `[N]` in [0, 1], share of the network's draws that are correct at the worst point of
        this attack and, in sequential mode, of all attacks before it; the image itself counts as a
        point. 0 or 1 unless the network is random.
      forward_passes: total, including those of gradients.
      gradients: total of backward passes.
      seconds: wall time, including compilation.
      queries: `[N]`, forward passes by image; 0 where it was not tried.
      claims: images for which the attack reports success.
      outside: claims rejected because the point is not allowed.
      unconfirmed: claims rejected because the network classifies the point correctly.
    """

    name: str
    tried: np.ndarray
    fooled: np.ndarray
    share: np.ndarray
    forward_passes: int
    gradients: int
    seconds: float
    queries: np.ndarray
    claims: int = 0
    outside: int = 0
    unconfirmed: int = 0

    @property
    def robust(self) -> np.ndarray:
        """`[N]` bool, whether most draws are correct."""
        return self.share >= 0.5

    @property
    def robust_accuracy(self) -> Estimate:
        """Mean of `share` with its 95 % interval, over images and draws."""
        return rate(self.share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Result of `evaluate`.

    Attributes:
      suite: name of the suite.
      threat: the threat model.
      clean_share: `[N]` in [0, 1], share of the network's draws that are correct on the clean
        image; 0 or 1 unless the network is random.
      robust_share: `[N]`, the same at `adversarial`: the worst case.
      looks: number of draws behind each share.
      adversarial: `[N, H, W, C]` float32, the worst point found; the image itself if no point is
        worse.
      distance: `[N]`, distance of `adversarial` in the threat model's norm.
      fooled_by: `[N]` int, index of the first successful attack; -1 for none, -2 if the clean image
        is misclassified.
      attacks: outcomes in the order the attacks ran.
      warnings: reasons to distrust the robust accuracy.
      checked: whether further attacks looked for such reasons.
      averages: whether the suite's gradients are means over draws of a random network.
    """

    suite: str
    threat: ThreatModel
    clean_share: np.ndarray
    robust_share: np.ndarray
    adversarial: np.ndarray
    distance: np.ndarray
    fooled_by: np.ndarray
    attacks: tuple[AttackOutcome, ...]
    warnings: tuple[TrustWarning, ...]
    looks: int = 1
    checked: bool = True
    averages: bool = False

    @property
    def clean(self) -> np.ndarray:
        """`[N]` bool, correct on the clean image (in most draws)."""
        return self.clean_share >= 0.5

    @property
    def robust(self) -> np.ndarray:
        """`[N]` bool, correct at the worst point too (in most draws)."""
        return self.robust_share >= 0.5

    @property
    def clean_accuracy(self) -> Estimate:
        """Mean of `clean_share` with its 95 % interval, over images and draws."""
        return rate(self.clean_share)

    @property
    def robust_accuracy(self) -> Estimate:
        """Mean of `robust_share` with its 95 % interval, over images and draws."""
        return rate(self.robust_share)

    @property
    def trusted(self) -> bool | None:
        """Whether no warning invalidates the robust accuracy; None if the checks did not run.

        If False, the number is not a robust accuracy. Warnings about 8-bit rounding and replaced
        attacks do not invalidate it. If no image survives, neither do most others, since no
        stronger attack can lower it further.
        """
        grave = {ALWAYS, DOUBT} if self.robust.any() else {ALWAYS}
        if any(warned.severity in grave for warned in self.warnings):
            return False
        return True if self.checked else None

    def __str__(self) -> str:
        """Formats a table: one line per attack, then the warnings and the overall verdict."""

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
            lines.append("NOT CHECKED: the diagnostics that would test this number were skipped.")
        elif not self.trusted:
            lines.append("NOT TO BE CALLED ROBUST: the warnings say why the number is too good.")
        return "\n".join(lines)
