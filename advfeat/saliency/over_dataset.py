"""Maps of several methods over a set of images, and the rankings of pixels that they imply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Integer, Shaped

from advfeat.attacks.batch import attack_dataset
from advfeat.edges import one_key
from advfeat.keys import stream
from advfeat.saliency.methods import METHODS, Method, Opened, Options
from advfeat.types import Key, ModelFn

T = TypeVar("T")

EDGES = "edges"
"""Name of the control: an edge map (`saliency.edges`), computed without a network."""
BATCH = 5
"""Images per batch: small, so that few images use the same compiled program as many."""


class _Function:
    """A bare function as `Opened`."""

    def __init__(self, fn: ModelFn):
        self._fn = fn

    def model_fn(self) -> ModelFn:
        return self._fn

    def guided_fn(self) -> ModelFn:
        raise ValueError(
            "network must have a rectifier that can be replaced for guided_backpropagation: give "
            "an advfeat.models.network.Network, not a function"
        )

    def split_fn(self, layer: str | None) -> Any:
        del layer
        return self._fn  # a `Split` already, or the method says what it needs


def opened(network: Opened | ModelFn) -> Opened:
    """Returns a network in the forms that methods need; a function has only its own form."""
    return network if hasattr(network, "model_fn") else _Function(network)  # type: ignore[return-value]


def method(name: str, options: Options, shape: Sequence[int]) -> Any:
    """Makes a method from the common options.

    Args:
      name: one of `METHODS`.
      options: common options.
      shape: `(H, W, C)` of an image.

    Raises:
      ValueError: for an unknown method, or one that lacks an option.
    """
    found = entry(name)
    return found.factory(**found.options(options, tuple(shape)))


def entry(name: str) -> Method:
    """Returns the entry of a method.

    Raises:
      ValueError: for an unknown one.
    """
    if name not in METHODS:
        raise ValueError(f"methods must be among {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def maps(
    key: Key,
    methods: Iterable[str],
    network: Opened | ModelFn,
    images: Float[np.ndarray, "N H W C"],
    labels: Integer[np.ndarray, " N"],
    *,
    options: Options | None = None,
    batch_size: int = BATCH,
) -> dict[str, Float[np.ndarray, "N H W *C"]]:
    """Computes every method's maps of a set of images.

    Args:
      key: a typed key; each method draws from a key of its name.
      methods: names in `METHODS`.
      network: an `advfeat.models.network.Network`, or a function of ONE example `[H, W, C]` in
        [0, 1] -> logits `[K]`, which suffices for all methods but guided backpropagation and
        Grad-CAM (unless it is a `saliency.split`).
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`, the classes to explain.
      options: common options of the methods.
      batch_size: images per batch.

    Returns:
      By method `[N, H, W, C]` or `[N, H, W]`, in the given order.

    Raises:
      ValueError: for an unknown method, an option that a method lacks, or a network without the
        form that a method needs.

    >>> import jax
    >>> found = maps(jax.random.key(0), ["gradient", "vargrad"], lambda x: 2 * x.ravel(),
    ...              np.full((3, 2, 2, 1), 0.5, np.float32), np.array([0, 1, 2]))
    >>> found["gradient"][:, :, :, 0].tolist()[1]
    [[0.0, 2.0], [0.0, 0.0]]
    """
    key, names, options = one_key(key), tuple(methods), options or Options()
    here, shape = opened(network), np.shape(images)[1:]
    made = {name: method(name, options, shape) for name in names}
    views = {name: METHODS[name].view(here, options) for name in names}

    def draw(name: str) -> np.ndarray:
        found = attack_dataset(
            stream(key, name), made[name], views[name], images, labels, batch_size=batch_size
        )
        return np.asarray(found)

    on_host = {name for name in names if METHODS[name].on_host}
    # What runs on the host may redirect stderr (LIME does), which is shared by all threads.
    found = side_by_side(draw, [name for name in names if name not in on_host])
    return {
        name: made[name](key, views[name], images, labels) if name in on_host else found[name]
        for name in names
    }


def side_by_side(work: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
    """Maps a function over names, two at a time, because compiling uses only one core."""
    names = tuple(names)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def total(values: Shaped[np.ndarray, "N H W *C"]) -> Float[np.ndarray, "N H W"]:
    """Sums absolute values over channels, `[N, H, W]`: how much depends on each pixel."""
    size = np.abs(np.asarray(values, np.float64))
    return size.sum(axis=-1) if size.ndim == 4 else size


def ranking(name: str, values: Shaped[np.ndarray, "N H W *C"]) -> Float[np.ndarray, "N H W"]:
    """Ranks pixels, `[N, H, W]`: larger values speak for the class, as far as the method tells.

    Args:
      name: the method: signs of attributions count, those of other maps do not.
      values: the method's maps, `[N, H, W, C]` or `[N, H, W]`.

    >>> maps = np.array([[[[-3.0], [1.0]]]])
    >>> ranking("integrated_gradients", maps).tolist(), ranking("gradient", maps).tolist()
    ([[[-3.0, 1.0]]], [[[3.0, 1.0]]])
    """
    known = METHODS.get(name)
    if known is None or not known.attribution:
        return total(values)
    array = np.asarray(values, np.float64)
    return array.sum(axis=-1) if array.ndim == 4 else array
