"""Losses on logits, objectives for attacks, and scores of features: everything that is ascended."""

from advfeat.objectives.classification import targeted, untargeted
from advfeat.objectives.losses import (
    cross_entropy,
    dlr,
    label_smoothing,
    margin,
    smoothed_cross_entropy,
)

__all__ = [
    "cross_entropy",
    "dlr",
    "label_smoothing",
    "margin",
    "smoothed_cross_entropy",
    "targeted",
    "untargeted",
]
