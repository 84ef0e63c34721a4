"""Accuracy under PGD against eps, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import stats
from advfeat.evaluation.prediction import EpsilonSweep
from advfeat.threats.norms import Norm
from advfeat.types import Key, ModelFn


def pgd_sweep(
    key: Key,
    fn: ModelFn,
    images: np.ndarray,
    labels: np.ndarray,
    grid: Sequence[float],
    *,
    norm: Norm | str,
    steps: int,
    batch_size: int,
    desc: str,
) -> EpsilonSweep:
    """Attacks images at every eps of a grid.

    Args:
      key: a typed key.
      fn: the network, for ONE example.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      grid: eps, ascending.
      norm: of the threat models.
      steps: PGD steps.
      batch_size: images attacked at a time.
      desc: the bar's words.
    """
    with tqdm(total=len(labels) * sum(eps > 0 for eps in grid), desc=desc, unit="image") as bar:
        return advfeat.evaluate_epsilons(
            key,
            lambda eps: advfeat.pgd(advfeat.threat_model(norm, eps), steps=steps),
            fn,
            images,
            labels,
            grid,
            batch_size=batch_size,
            advance=bar.update,
        )


def by_eps(grid: Iterable[float], robust: np.ndarray) -> list[dict[str, Any]]:
    """Returns the entries of a summary: each eps with its accuracy.

    Args:
      grid: E values.
      robust: `[E, N]` bool.
    """
    return [
        {"eps": float(eps), "accuracy": stats.rate(row)}
        for eps, row in zip(grid, robust, strict=True)
    ]
