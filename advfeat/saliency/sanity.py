"""Sanity checks for saliency: a map must depend on the weights of the network.

Adebayo et al. (2018), https://arxiv.org/abs/1810.03292.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, PyTree, Shaped
from scipy import ndimage, stats

Params = Mapping[str, PyTree]


def cascading(params: Params, fresh: Params, order: Sequence[str]) -> Iterator[tuple[str, Params]]:
    """Randomises weights cascadingly from the top down, one more module at a time.

    Args:
      params: parameters of a trained network, by module.
      fresh: like `params`, freshly initialised.
      order: the modules, first to last (`models.module_names`).

    Yields:
      The module randomised last, and the parameters.

    Raises:
      ValueError: for a module missing from `params` or `fresh`.

    >>> trained, drawn = {"a": 1, "b": 2}, {"a": -1, "b": -2}
    >>> [(name, list(found.values())) for name, found in cascading(trained, drawn, ["a", "b"])]
    [('b', [1, -2]), ('a', [-1, -2])]
    """
    _check(params, fresh, order)
    found = dict(params)
    for name in reversed(order):
        found = {**found, name: fresh[name]}
        yield name, found


def independent(
    params: Params, fresh: Params, order: Sequence[str]
) -> Iterator[tuple[str, Params]]:
    """Randomises one module at a time and leaves the others trained."""
    _check(params, fresh, order)
    for name in reversed(order):
        yield name, {**params, name: fresh[name]}


def _check(params: Params, fresh: Params, order: Sequence[str]) -> None:
    for name in order:
        if name not in params or name not in fresh:
            raise ValueError(f"unknown module {name!r}; there are {', '.join(params)}")


def rank_correlation(
    one: Shaped[np.ndarray, "*map"], other: Shaped[np.ndarray, "*map"], *, absolute: bool = True
) -> float:
    """Computes Spearman's rank correlation of two maps, by default of their absolute values.

    Returns:
      A number in [-1, 1]; 0 if one of the maps is constant.
    """
    pair = [np.abs(part) if absolute else np.asarray(part) for part in (one, other)]
    if any(np.ptp(part) == 0 for part in pair):
        return 0.0
    return float(stats.spearmanr(pair[0].ravel(), pair[1].ravel()).statistic)


def edges(image: Shaped[np.ndarray, "H W C"]) -> Float[np.ndarray, "H W C"]:
    """Computes the Sobel magnitude per channel, a "saliency map" that needs no network.

    Args:
      image: in any unit.

    Returns:
      float64, in units of the image: 4 times the height of an edge.

    A step in red alone is an edge in red alone:

    >>> edges(np.array([[[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]] * 3))[1].T
    array([[0., 4., 4., 0.],
           [0., 0., 0., 0.]])
    """
    # One channel at a time, since `sobel` smooths along every axis that it does not differentiate.
    planes = np.moveaxis(np.asarray(image, float), -1, 0)
    found = [np.hypot(*(ndimage.sobel(plane, axis=axis) for axis in (0, 1))) for plane in planes]
    return np.stack(found, axis=-1)
