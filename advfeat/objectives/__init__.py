"""What is ascended: losses of logits, objectives of attacks, and scores of features."""

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
