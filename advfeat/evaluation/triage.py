"""Triage: selects the images that are worth an expensive attack, from the progress of earlier ones.

AutoAttack spends nearly all of its time on images that no attack fools, most of which never come
close. The *remaining share* of an image is the smallest margin that any attack has achieved, over
its clean margin: 1 means no progress, 0 fooled. A gated attack receives only the contested images,
those whose share lies below its gate.

The gate adapts. It is at least twice the largest share from which a short attack fooled an image,
not counting the first two attacks, which only measure the shares. Under gradient masking or
shattered gradients a short black-box attack therefore fools images from a share near 1, and every
image becomes contested. An attack that fools an image from beyond half of its gate also receives
the images up to twice that share.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MEASURING = 2  # first attacks, which only measure shares and do not move the gate
SAFETY = 2.0  # gate, over the largest share from which an image was fooled


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Computes the margins `[N]`: logit of the label minus the largest other logit.

    The labels may be any classes, such as the targets of an attack.

    >>> margins(np.array([[3.0, 1.0, 2.0]]), np.array([0])).tolist()
    [1.0]
    """
    rows = np.arange(len(labels))
    others = np.array(logits, np.float64)
    others[rows, labels] = -np.inf
    return np.asarray(logits[rows, labels] - others.max(axis=1))


class MarginGate:
    """Tracks the remaining shares through a suite.

    Attributes:
      share: `[N]`, remaining share of each image's clean margin; 1 if never attacked.
      reached: by attack, the largest share from which it fooled an image; without the attacks that
        only measure.
    """

    def __init__(self, gates: Mapping[str, float], logits: np.ndarray, labels: np.ndarray):
        self._gates, self._labels = gates, labels
        self._clean = np.maximum(margins(logits, labels), np.finfo(np.float32).tiny)
        self._seen: set[str] = set()
        self.share = np.ones(len(labels))
        self.reached: dict[str, float] = {}

    def gate(self, name: str) -> float:
        """Returns the largest share at which the attack still receives an image."""
        short = [far for other, far in self.reached.items() if other not in self._gates]
        far = max([*short, self.reached.get(name, 0.0)], default=0.0)
        return max(self._gates.get(name, np.inf), SAFETY * far)

    def among(self, name: str, standing: np.ndarray) -> np.ndarray:
        """Selects the surviving images that the attack receives, `[N]` bool."""
        return standing & (self.share <= self.gate(name))

    def note(self, name: str, fooled: np.ndarray, logits: np.ndarray, allowed: np.ndarray) -> None:
        """Updates shares and gates with the outcome of an attack.

        Args:
          name: name of the attack.
          fooled: `[N]` bool.
          logits: `[N, K]`, at the best points that it found.
          allowed: `[N]` bool, which of these points lie in the threat model.
        """
        self._seen.add(name)
        if len(self._seen) > MEASURING and fooled.any():
            far = float(self.share[fooled].max())
            self.reached[name] = max(self.reached.get(name, 0.0), far)
        left = np.clip(margins(logits, self._labels) / self._clean, 0.0, 1.0)
        self.share = np.where(allowed, np.minimum(self.share, left), self.share)
