"""Tables of counts."""

from __future__ import annotations

import numpy as np


def turned_into(
    sources: np.ndarray, targets: np.ndarray, success: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which class can be turned into which, rows the source, columns the target.

    Args:
      sources: `[N]` the original labels.
      targets: `[N]` what they were perturbed towards.
      success: `[N]` whether that worked.
      num_classes: C.

    Returns:
      `[C, C]` the share of successes, NaN where no example was tried, and `[C, C]` how many were.
    """
    tried = np.zeros((num_classes, num_classes))
    worked = np.zeros((num_classes, num_classes))
    np.add.at(tried, (sources, targets), 1.0)
    np.add.at(worked, (sources, targets), np.asarray(success, np.float64))
    share = np.divide(worked, tried, out=np.full_like(tried, np.nan), where=tried > 0)
    return share, tried.astype(int)
