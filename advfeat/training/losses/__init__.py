"""Training objectives: one file and one registry line each.

Every entry makes a `LossFn`, a pure function of key, params, model state and batch.
"""

from __future__ import annotations

from advfeat.training.losses.adversarial import adversarial
from advfeat.training.losses.base import TrainingObjective
from advfeat.training.losses.entries import Entry
from advfeat.training.losses.fast import fast, fast_attack
from advfeat.training.losses.mart import mart
from advfeat.training.losses.mixed import mixed
from advfeat.training.losses.standard import standard
from advfeat.training.losses.trades import trades

OBJECTIVES: dict[str, Entry] = {
    "standard": Entry(standard, attack_steps=0),
    "adversarial": Entry(adversarial),
    "mixed": Entry(mixed, numbers={"alpha": 0.5}, attack_steps=1, one_step=True),  # FGSM
    "trades": Entry(trades, numbers={"beta": 6.0}),
    "mart": Entry(mart, numbers={"beta": 6.0}, takes_loss=False),
    "fast": Entry(fast, numbers={"grad_align": 0.0}, attack_steps=None, one_step=True),
    "free": Entry(
        standard, numbers={"replays": 8}, attack_steps=None, one_step=True, procedure="free"
    ),
}
"""The objectives by name, as flags and records have them. An objective of your own is one more
entry, also from outside of this package: `OBJECTIVES["mine"] = Entry(mine)`."""

__all__ = [
    "OBJECTIVES",
    "Entry",
    "TrainingObjective",
    "adversarial",
    "fast",
    "fast_attack",
    "mart",
    "mixed",
    "standard",
    "trades",
]
