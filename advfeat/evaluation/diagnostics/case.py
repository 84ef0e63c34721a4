"""Input and output types of the checks, and their shared helpers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from advfeat.attacks import attack_dataset
from advfeat.evaluation.prediction import shares
from advfeat.evaluation.result import DOUBT, SuiteResult
from advfeat.keys import numpy_seed, stream
from advfeat.rows import draw_rows
from advfeat.threats.balls import ThreatModel
from advfeat.types import AttackFn, Key, ModelFn

MOST = 100  # maximum number of images per check
LUCK = 2  # images that a further attack may fool without casting doubt on the suite


class Finding(NamedTuple):
    """Finding of a check.

    Attributes:
      code: code of the warning, if one is raised.
      value: measured value; larger is worse.
      limit: a value above it raises the warning.
      sentence: human-readable description.
      severity: what the warning means for the robust accuracy: `DOUBT` (it is invalid if any image
        survives), `NOTE` (it stays valid) or `ALWAYS` (it is invalid in any case).
    """

    code: str
    value: float
    limit: float
    sentence: str
    severity: str = DOUBT


class Context(NamedTuple):
    """Evaluation that the checks examine.

    Attributes:
      key: a typed key.
      model_fn: the network, a pytree.
      images: `[N, H, W, C]`.
      labels: `[N]`.
      logits: `[N, K]`, logits of the clean images.
      ids: `[N]`, ids of the images.
      result: result of the suite.
      batch_size: images per batch; bounds memory.
    """

    key: Key
    model_fn: ModelFn
    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    ids: np.ndarray
    result: SuiteResult
    batch_size: int

    @property
    def threat(self) -> ThreatModel:
        """The threat model of the suite."""
        return self.result.threat

    def standing(self) -> np.ndarray:
        """Samples at most `MOST` rows among the survivors of all attacks."""
        return self._some(self.result.robust, MOST)

    def sample(self) -> np.ndarray:
        """Samples at most `MOST` correctly classified rows, survivors of all attacks first."""
        first = self.standing()
        room = MOST - len(first)
        return np.concatenate([first, self._some(self.result.clean & ~self.result.robust, room)])

    def anything(self) -> np.ndarray:
        """Samples like `sample`, but from all images if none is classified correctly."""
        rows = self.sample()
        return rows if len(rows) else self._some(np.ones(len(self.images), bool), MOST)

    def _some(self, among: np.ndarray, most: int) -> np.ndarray:
        rows = np.flatnonzero(among) if most else np.zeros(0, int)
        return rows[draw_rows(self.labels[rows], most, seed=numpy_seed(self.key))]

    def fooled(
        self, name: str, attack: AttackFn, rows: np.ndarray, *, via: ModelFn | None = None
    ) -> np.ndarray:
        """Returns which rows an attack fools, `[F]` bool; `via` replaces the network it sees."""
        return self.after(name, attack, rows, via=via) < 0.5

    def after(
        self, name: str, attack: AttackFn, rows: np.ndarray, *, via: ModelFn | None = None
    ) -> np.ndarray:
        """Returns the share of draws that are correct after an attack, `[F]`; see `fooled`."""
        batch, size = self.batch(rows)
        data = (self.images[batch], self.labels[batch])
        seen_by_attack = self.model_fn if via is None else via
        key = stream(self.key, f"checks/{name}")
        ids = self.ids[batch]
        found = attack_dataset(key, attack, seen_by_attack, *data, ids=ids, batch_size=size)
        x = np.where(np.isfinite(found.best.x), found.best.x, data[0]).astype(np.float32)
        return self.right(name, x, batch)[: len(rows)]

    def wrong(self, name: str, x: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Returns whether points of a batch are misclassified in most draws, `[B]` bool."""
        return self.right(name, x, batch) < 0.5

    def right(self, name: str, x: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Returns the share of draws that are correct at points of a batch, `[B]` in [0, 1]."""
        key, size = stream(self.key, f"checks/{name}/looks"), self.batch(batch)[1]
        options: dict[str, Any] = {"ids": self.ids[batch], "batch_size": size}
        return shares(key, self.model_fn, x, self.labels[batch], **options)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, int]:
        """Repeats rows to full batches of one size for all checks, so that each compiles once."""
        size = min(MOST, len(self.images), self.batch_size)
        return np.resize(rows, -(-len(rows) // size) * size), size

    def fall(
        self, rows: np.ndarray, fooled: np.ndarray, after: np.ndarray | None = None
    ) -> tuple[float, str]:
        """Computes the drop of robust accuracy due to an attack on survivors; adds a sentence.

        Args:
          rows: `[F]`, the attacked rows, a sample of the survivors.
          fooled: `[F]` bool.
          after: `[F]`, share of draws that are correct after the attack; 0 by default.
        """
        share = self.result.robust_share
        before = float(share.mean())
        lost = np.where(fooled, share[rows] - (0.0 if after is None else after), 0.0)
        fall = float(self.result.robust.mean() * lost.mean())
        words = (
            f"fools {fooled.sum()} of {len(rows)} images that survived the suite: the robust "
            f"accuracy is at most about {100 * (before - fall):.1f} %, not {100 * before:.1f} %"
        )
        return (fall if fooled.sum() > LUCK else 0.0), words


class Check(NamedTuple):
    """A check of an evaluation.

    Attributes:
      look: the evaluation -> findings, warnings or not.
      free: whether it costs next to nothing; free checks always run, also with `checks=False` and
        where no image is classified correctly.
    """

    look: Callable[[Context], Iterator[Finding]]
    free: bool = False


def percent(share: float) -> str:
    """Formats a share as a percentage with at most 3 digits."""
    return f"{100 * share:.3g} %"
