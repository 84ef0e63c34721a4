"""Flags of `experiments.train`, also read by other modules."""

from ..shared.flags.train import MEANT_FOR, Config

__all__ = ["MEANT_FOR", "Config"]
