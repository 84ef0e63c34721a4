"""The type of a saliency method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float

from advfeat.types import Array, Key, ModelFn

Saliency = Callable[[Key, ModelFn, Float[Array, "*x"], Any], Float[Array, "*map"]]
"""Key, model, ONE example, class (or any aim) -> map of its shape (or `[H, W]`).

Like an attack, a method is a pytree; `attack_batch` and `attack_dataset` run it over many."""
