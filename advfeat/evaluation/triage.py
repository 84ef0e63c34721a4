"""Which images are still worth an expensive attack, judged by what the attacks before it reached.

Nearly all of AutoAttack's time goes into images that nothing fools, and most of those never come
near to it. An image's *remaining share* is the smallest margin that any attack has brought it to,
over its clean margin: 1 is no progress, 0 is fooled. An attack with a gate is given only the images
whose share lies below it, the contested ones.

The gate is no constant. It is at least twice the largest share from which a short attack fooled an
image, once the suite's first two attacks had measured it; so where gradients lead nowhere (masked,
shattered), a short black-box attack fools images from a share near 1, and then every image is
contested. And an attack that fools from more than half of its gate is given the images up to twice
as far as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MEASURING = 2  # attacks that only measure: what fools before them says nothing of the gate
SAFETY = 2.0  # how much farther than any image fooled so far the gate reaches


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`[N]`, the label's logit less the largest other one.

    >>> margins(np.array([[3.0, 1.0, 2.0]]), np.array([0])).tolist()
    [1.0]
    """
    rows = np.arange(len(labels))
    others = np.array(logits, np.float64)
    others[rows, labels] = -np.inf
    return np.asarray(logits[rows, labels] - others.max(axis=1))


class Contest:
    """Keeps the remaining shares through a suite.

    Attributes:
      share: `[N]`, what is left of each image's clean margin; 1 for an image never attacked.
      reached: by attack, the largest share from which it fooled an image; of the attacks that only
        measure, nothing.
    """

    def __init__(self, gates: Mapping[str, float], logits: np.ndarray, labels: np.ndarray):
        self._gates, self._labels = gates, labels
        self._clean = np.maximum(margins(logits, labels), np.finfo(np.float32).tiny)
        self._seen: set[str] = set()
        self.share = np.ones(len(labels))
        self.reached: dict[str, float] = {}

    def gate(self, name: str) -> float:
        """The share up to which an image is given to the attack."""
        short = [far for other, far in self.reached.items() if other not in self._gates]
        far = max([*short, self.reached.get(name, 0.0)], default=0.0)
        return max(self._gates.get(name, np.inf), SAFETY * far)

    def among(self, name: str, standing: np.ndarray) -> np.ndarray:
        """`[N]` bool, the standing images that the attack is given."""
        return standing & (self.share <= self.gate(name))

    def note(self, name: str, fooled: np.ndarray, logits: np.ndarray, allowed: np.ndarray) -> None:
        """Learns from what an attack came to.

        Args:
          name: of the attack.
          fooled: `[N]` bool.
          logits: `[N, K]`, at the nearest points that it found.
          allowed: `[N]` bool, which of them lie in the threat model.
        """
        self._seen.add(name)
        if len(self._seen) > MEASURING and fooled.any():
            far = float(self.share[fooled].max())
            self.reached[name] = max(self.reached.get(name, 0.0), far)
        left = np.clip(margins(logits, self._labels) / self._clean, 0.0, 1.0)
        self.share = np.where(allowed, np.minimum(self.share, left), self.share)
