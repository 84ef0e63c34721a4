"""Training objectives: one file and one registry line each.

Every entry is a factory of a `LossFn`, a pure function of key, params, model state and batch.
"""

from __future__ import annotations

from collections.abc import Callable

from advfeat.training.losses.adversarial import adversarial
from advfeat.training.losses.base import Descent
from advfeat.training.losses.fast import fast, fast_attack
from advfeat.training.losses.mart import mart
from advfeat.training.losses.mixed import mixed
from advfeat.training.losses.standard import standard
from advfeat.training.losses.trades import trades

OBJECTIVES: dict[str, Callable[..., Descent]] = {
    "standard": standard,
    "adversarial": adversarial,
    "mixed": mixed,
    "trades": trades,
    "mart": mart,
    "fast": fast,
}
"""The objectives by name, as `experiments.train --objective` takes them."""

__all__ = [
    "OBJECTIVES",
    "Descent",
    "adversarial",
    "fast",
    "fast_attack",
    "mart",
    "mixed",
    "standard",
    "trades",
]
