"""What a check is given, what it returns, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from advfeat.attacks import attack_dataset
from advfeat.evaluation.prediction import shares
from advfeat.evaluation.result import SuiteResult
from advfeat.keys import numpy_seed, stream
from advfeat.rows import draw_rows
from advfeat.threats.balls import ThreatModel
from advfeat.types import AttackFn, Key, ModelFn

MOST = 100  # images that a check looks at
LUCK = 2  # images that one more attack may fool without any doubt about those before it


class Seen(NamedTuple):
    """What a check saw.

    Attributes:
      code: of the warning, should there be one.
      value: the larger, the worse.
      limit: there is a warning if the value lies above it.
      sentence: for people.
    """

    code: str
    value: float
    limit: float
    sentence: str


class Case(NamedTuple):
    """What the checks look at.

    Attributes:
      key: a typed key.
      model_fn: the network, a pytree.
      images: `[N, H, W, C]`.
      labels: `[N]`.
      logits: `[N, K]`, of the clean images.
      ids: `[N]`, of the images.
      result: what the suite found.
      batch_size: what bounds the memory.
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
        """The suite's."""
        return self.result.threat

    def standing(self) -> np.ndarray:
        """Rows that no attack fooled, at most `MOST`, drawn."""
        return self._some(self.result.robust, MOST)

    def sample(self) -> np.ndarray:
        """Rows right on the clean image, at most `MOST`, those that no attack fooled first."""
        first = self.standing()
        room = MOST - len(first)
        return np.concatenate([first, self._some(self.result.clean & ~self.result.robust, room)])

    def anything(self) -> np.ndarray:
        """Rows as `sample` has them; of any images where none is right."""
        rows = self.sample()
        return rows if len(rows) else self._some(np.ones(len(self.images), bool), MOST)

    def _some(self, among: np.ndarray, most: int) -> np.ndarray:
        rows = np.flatnonzero(among) if most else np.zeros(0, int)
        return rows[draw_rows(self.labels[rows], most, seed=numpy_seed(self.key))]

    def fooled(
        self, name: str, attack: AttackFn, rows: np.ndarray, *, via: ModelFn | None = None
    ) -> np.ndarray:
        """`[F]` bool, which rows an attack fools; `via` is what it sees instead of the network."""
        batch, size = self.batch(rows)
        data = (self.images[batch], self.labels[batch])
        seen_by_attack = self.model_fn if via is None else via
        key = stream(self.key, f"checks/{name}")
        ids = self.ids[batch]
        found = attack_dataset(attack, key, seen_by_attack, *data, ids=ids, batch_size=size)
        x = np.where(np.isfinite(found.best.x), found.best.x, data[0]).astype(np.float32)
        return self.wrong(name, x, batch)[: len(rows)]

    def wrong(self, name: str, x: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """`[B]` bool, whether most of the network's draws are wrong about points of a batch."""
        key, size = stream(self.key, f"checks/{name}/looks"), self.batch(batch)[1]
        options: dict[str, Any] = {"ids": self.ids[batch], "batch_size": size}
        return shares(self.model_fn, x, self.labels[batch], key=key, **options) < 0.5

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, int]:
        """Rows repeated to whole batches of the one size that all checks use: it compiles once."""
        size = min(MOST, len(self.images), self.batch_size)
        return np.resize(rows, -(-len(rows) // size) * size), size

    def fall(self, rows: np.ndarray, fooled: np.ndarray) -> tuple[float, str]:
        """What an attack on standing rows takes off the robust accuracy, and that in words."""
        before = float(self.result.robust.mean())
        fall = before * float(fooled.mean())
        words = (
            f"fools {fooled.sum()} of {len(rows)} images that the suite left standing: the robust "
            f"accuracy is at most about {100 * (before - fall):.1f} %, not {100 * before:.1f} %"
        )
        return (fall if fooled.sum() > LUCK else 0.0), words


Check = Callable[[Case], Iterator[Seen]]


def percent(share: float) -> str:
    """A share the way it is read: 3 digits at most."""
    return f"{100 * share:.3g} %"
