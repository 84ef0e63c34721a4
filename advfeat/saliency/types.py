"""What every method of saliency is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advfeat.types import Array, Key, ModelFn

Saliency = Callable[[Key, ModelFn, Array, Any], Array]
"""Key, model, ONE example `[H, W, C]`, class (or any aim) -> map of its shape (or `[H, W]`).

Itself a pytree, like an attack; `attack_batch` and `attack_dataset` run it over many."""
