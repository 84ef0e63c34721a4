"""Sanity checks for saliency: a map must depend on the weights of the network.

Adebayo et al. (2018), https://arxiv.org/abs/1810.03292.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, PyTree, Shaped
from scipy import ndimage

from advfeat.images import quality

Params = Mapping[str, PyTree]

PERCENTILE = 99.0  # scaled to the maximum, a few pixels would turn the rest of a map black


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


RANDOMISED = {"cascading": cascading, "independent": independent}
"""The randomisation tests by name."""


@dataclasses.dataclass(frozen=True)
class Randomisation:
    """The change of maps as weights are randomised.

    Attributes:
      modules: in the order of their randomisation.
      rank: by method `[N, M]`, rank correlation with the trained network's map.
      ssim: by method `[N, M]`, structural similarity of the displayed maps.
      first: by method `[M + 1]` maps of the first image, starting with the trained network's.
    """

    modules: tuple[str, ...]
    rank: dict[str, Float[np.ndarray, "N M"]]
    ssim: dict[str, Float[np.ndarray, "N M"]]
    first: dict[str, list[Shaped[np.ndarray, "H W *C"]]]


def randomisation_test(
    how: str,
    maps_of: Callable[[Any], Mapping[str, Shaped[np.ndarray, "N H W *C"]]],
    variables: Any,
    fresh: Any,
    order: Sequence[str],
    *,
    on_module: Callable[[str], Any] | None = None,
) -> Randomisation:
    """Performs a randomisation test of Adebayo et al.: do maps change when weights are drawn anew?

    Args:
      how: one of `RANDOMISED`.
      maps_of: variables of the network -> maps of some images by method, `[N, H, W, C]` or
        `[N, H, W]`, e.g. by `saliency.maps`.
      variables: of the trained network, `{collection: {module: leaves}}` as flax has them; a
        module's statistics are randomised together with its weights.
      fresh: like `variables`, freshly initialised.
      order: the modules, first to last (`models.module_names`).
      on_module: called with a module's name once its maps are compared.

    Raises:
      ValueError: for an unknown test, or a module missing from the variables.
    """
    if how not in RANDOMISED:
        raise ValueError(f"how must be one of {', '.join(RANDOMISED)}, got {how!r}")
    start = maps_of(variables)
    rank: dict[str, list[Any]] = {name: [] for name in start}
    likeness: dict[str, list[Any]] = {name: [] for name in start}
    first = {name: [values[0]] for name, values in start.items()}
    done = []
    for module, modules in RANDOMISED[how](_by_module(variables), _by_module(fresh), order):
        now = maps_of(_by_collection(modules))
        for name in start:
            pairs = list(zip(start[name], now[name], strict=True))
            rank[name].append([rank_correlation(a, b) for a, b in pairs])
            likeness[name].append([picture_likeness(a, b) for a, b in pairs])
            first[name].append(now[name][0])
        done.append(module)
        if on_module is not None:
            on_module(module)
    return Randomisation(
        tuple(done),
        {name: np.array(values).T for name, values in rank.items()},
        {name: np.array(values).T for name, values in likeness.items()},
        first,
    )


def _by_module(variables: Any) -> dict[str, dict[str, Any]]:
    """Regroups variables by module: statistics are randomised together with a module's weights."""
    found: dict[str, dict[str, Any]] = {}
    for collection, modules in dict(variables).items():
        for module, leaves in dict(modules).items():
            found.setdefault(module, {})[collection] = leaves
    return found


def _by_collection(modules: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for module, collections in modules.items():
        for collection, leaves in collections.items():
            found.setdefault(collection, {})[module] = leaves
    return found


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
    from scipy import stats  # slow to import

    return float(stats.spearmanr(pair[0].ravel(), pair[1].ravel()).statistic)


def magnitude(values: Any) -> Float[np.ndarray, "H W"]:
    """Sums absolute values over channels, `[H, W]` in [0, 1]; the 99th percentile is 1.

    >>> magnitude(np.array([[[1.0, -1.0], [0.0, 0.0]]])).tolist()
    [[1.0, 0.0]]
    """
    size = np.abs(one_map(values)).sum(axis=-1)
    top = np.percentile(size, PERCENTILE) or size.max()
    return np.clip(size / top, 0, 1) if top > 0 else np.zeros_like(size)


def one_map(values: Any) -> Float[np.ndarray, "H W C"]:
    """Returns ONE map as `[H, W, C]` float64.

    Raises:
      ValueError: for another shape, or values that are not finite.
    """
    array = np.asarray(values, float)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or not array.size:
        raise ValueError(f"a map must be [H, W] or [H, W, C], not {np.shape(values)}")
    if not np.isfinite(array).all():
        raise ValueError("a map must be finite")
    return array


def picture_likeness(
    one: Shaped[np.ndarray, "H W *C"], other: Shaped[np.ndarray, "H W *C"]
) -> float:
    """Returns the SSIM of two displayed maps: absolute values, each on its own scale."""
    return quality.ssim(magnitude(one)[..., None], magnitude(other)[..., None])


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
