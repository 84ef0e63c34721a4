"""Flags shared by the experiments that compute saliency maps."""

from __future__ import annotations

import dataclasses

from advfeat.runs.config import Config as BaseConfig, flag

from .choices import METHODS

USUAL = tuple(name for name in METHODS.written() if not METHODS.fact(name, "on_host", False))
"""The methods in JAX; the others are slow, and need optional libraries."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapConfig(BaseConfig):
    """The saliency methods and their options."""

    SMALLEST = {"samples": 2, "path_steps": 2}

    methods: tuple[str, ...] = flag(USUAL, "Which methods.", choices=METHODS)
    loss: bool = flag(False, "Differentiate the negated loss at the label, not the score.")
    samples: int = flag(25, "Number of noisy copies (SmoothGrad and variants).", kind="count")
    sigma: float = flag(0.15, "Standard deviation of their noise.", kind="nonnegative")
    path_steps: int = flag(20, "Gradients along the path of integrated gradients.", kind="count")
    layer: str | None = flag(None, "Layer of Grad-CAM. Default: the last with positions.")

    def validate(self) -> None:
        """Also checks flags against each other."""
        super().validate()
        if self.samples < 2 and "vargrad" in self.methods:
            raise ValueError(f"flag --samples={self.samples}: vargrad needs at least 2")
        if "lime" in self.methods:
            check_lime()


def check_lime() -> None:
    """Checks that the library lime is installed.

    Raises:
      ValueError: saying how to install it.
    """
    try:
        import lime.lime_image  # noqa: F401
    except ImportError:
        raise ValueError(
            "flag --methods=lime: needs the library lime, `pip install 'advfeat[lime]'`"
        ) from None
