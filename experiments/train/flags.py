"""The flags of `experiments.train`, which others read too."""

from ..shared.flags.train import MEANT_FOR, Config

__all__ = ["MEANT_FOR", "Config"]
