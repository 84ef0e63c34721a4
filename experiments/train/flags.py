"""Flags of `experiments.train`, also read by other modules."""

from ..shared.flags.train import Config, fact

__all__ = ["Config", "fact"]
