"""Whether two contenders did the same work: results come before speed."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat.threats import ThreatModel
from advfeat.types import ModelFn

T = TypeVar("T")

LOGITS = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
"""Largest difference of two networks' logits, relative to the largest logit."""
LOSS = 0.05
"""Largest relative difference of what two attacks add to the mean loss. Implementations differ in
the last bits, and a hundred steps through kinks make different points of them, equally good."""
RATE = 0.02
"""Largest difference of two robust accuracies, or that of two images if it is larger."""
TRAINING = 0.1
"""Largest relative difference of two epochs' mean losses: the order of the images differs."""
COSINE = 0.05
"""By how much a peer's SmoothGrad maps may be less like ours (mean cosine) than ours
with other noise are."""
OUTSIDE = 1e-3
"""By what share of eps a peer's point may lie outside of the ball (rounding), or of the box."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a contender has found; only what its work is compared by.

    Attributes:
      points: `[N, H, W, C]`, adversarial images.
      loss: mean training loss of an epoch.
      maps: `[N, H, W, C]`.
      again: `[N, H, W, C]`, maps with other noise.
      passes: forward and backward passes of all images together; None if it does not count them.
    """

    points: np.ndarray | None = None
    loss: float | None = None
    maps: np.ndarray | None = None
    again: np.ndarray | None = None
    passes: float | None = None


class Comparison(NamedTuple):
    """A peer's outcome beside ours.

    Attributes:
      value: the number that is compared; see `MEANING`.
      differing: images of which the verdicts differ; None where there are none.
      wrong: why the peer's time does not count, or "".
    """

    value: float
    differing: int | None = None
    wrong: str = ""


MEANING = {
    "pgd": "added loss",
    "startup": "added loss",
    "apgd": "robust accuracy",
    "quick": "robust accuracy",
    "standard": "robust accuracy",
    "train": "mean loss",
    "d_det": "share not turned",
    "smoothgrad": "cosine",
}
"""What the number of a family's outcome is. The cosine of ours is that with other noise."""


def same_logits(ours: np.ndarray, theirs: np.ndarray, precision: str = "float32") -> str:
    """Returns what is wrong with a peer's logits, or ""."""
    scale = max(float(np.abs(ours).max()), 1e-30)
    gap = float(np.abs(ours - theirs).max()) / scale
    if gap <= LOGITS[precision]:
        return ""
    return f"its logits differ by {gap:.1e} of the largest (allowed: {LOGITS[precision]:.0e})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """Compares outcomes on the same images with the same network.

    Attributes:
      model_fn: the network, ours.
      images: `[N, H, W, C]`.
      labels: `[N]`.
      threat: where points must lie; None if the work has none.
      targets: `[N]`, what a targeted attack aims at.
    """

    model_fn: ModelFn
    images: np.ndarray
    labels: np.ndarray
    threat: ThreatModel | None = None
    targets: np.ndarray | None = None

    def compare(self, family: str, ours: Outcome, theirs: Outcome) -> Comparison:
        """Compares a peer's outcome with ours.

        Raises:
          ValueError: if an outcome lacks what its family is compared by.
        """
        if theirs.points is not None:
            away = self._outside(theirs.points)
            if away:
                return Comparison(self.value(family, theirs), wrong=away)
        if family == "smoothgrad":
            value, wanted = cosine(ours.maps, theirs.maps), self.value(family, ours) - COSINE
            wrong = f"its maps have a cosine of {value:.3f} with ours (least: {wanted:.3f})"
            return Comparison(value, wrong="" if value >= wanted else wrong)
        value, mine = self.value(family, theirs), self.value(family, ours)
        if family in ("pgd", "startup"):
            return Comparison(value, wrong=_relative("added loss", mine, value, LOSS))
        if family == "train":
            return Comparison(value, wrong=_relative("mean loss", mine, value, TRAINING))
        allowed = max(RATE, 2 / len(self.images))
        wrong = (
            f"{100 * value:.1f} % of the images stand, with ours {100 * mine:.1f} % "
            f"(allowed: {100 * allowed:.0f} points)"
        )
        differing = int(np.sum(self._stand(ours) != self._stand(theirs)))
        return Comparison(value, differing, "" if abs(value - mine) <= allowed else wrong)

    def value(self, family: str, found: Outcome) -> float:
        """Returns the number by which a family's outcomes are compared; see `MEANING`."""
        if family == "train":
            return _given(found.loss)
        if family == "smoothgrad":
            return cosine(found.maps, found.again)
        if family in ("pgd", "startup"):
            return self._gain(_given(found.points))
        return float(np.mean(self._stand(found)))

    def _outside(self, points: np.ndarray) -> str:
        threat = _given(self.threat)
        eps = float(threat.eps)
        far = float(
            jnp.max(jax.vmap(threat.distance)(jnp.asarray(self.images), jnp.asarray(points)))
        )
        beyond = max(0.0, float(points.max()) - 1, -float(points.min()))
        if far <= eps * (1 + OUTSIDE) and beyond <= eps * OUTSIDE:
            return ""
        return f"its points lie {far:.4g} away (eps: {eps:.4g}) and {beyond:.1e} outside of [0, 1]"

    def _gain(self, points: np.ndarray) -> float:
        """Returns what the points add to the mean cross-entropy."""
        before, after = (
            cross_entropies(advfeat.predict(self.model_fn, x), self.labels).mean()
            for x in (self.images, np.clip(points, 0, 1))
        )
        return float(after - before)

    def _stand(self, found: Outcome) -> np.ndarray:
        """Returns which images `[N]` the attack has not turned, by the network's own word."""
        points = np.clip(_given(found.points), 0, 1).astype(np.float32)
        said = advfeat.predict(self.model_fn, points).argmax(axis=1)
        return said == self.labels if self.targets is None else said != self.targets


def _given(value: T | None) -> T:
    if value is None:
        raise ValueError("it returned nothing to compare")
    return value


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the cross-entropy `[N]` of logits `[N, K]`."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=1)
    return top + np.log(np.exp(wide - top[:, None]).sum(1)) - wide[np.arange(len(wide)), labels]


def _relative(what: str, ours: float, theirs: float, allowed: float) -> str:
    if abs(theirs - ours) <= allowed * abs(ours):
        return ""
    return f"its {what} is {theirs:.4g}, ours {ours:.4g} (allowed: {100 * allowed:.0f} %)"


def cosine(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Returns the mean cosine of maps `[N, ...]`."""
    flat = [_given(each).reshape(len(_given(each)), -1).astype(np.float64) for each in (one, other)]
    size = np.linalg.norm(flat[0], axis=1) * np.linalg.norm(flat[1], axis=1)
    return float(np.mean(np.sum(flat[0] * flat[1], axis=1) / np.maximum(size, 1e-30)))
