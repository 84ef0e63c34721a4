"""The registry of networks by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from advfeat.models.airbench import Airbench
from advfeat.models.base import Architecture
from advfeat.models.resnet import ResNet
from advfeat.models.simple import CNN, MLP, Linear

NETWORKS: dict[str, tuple[type[Architecture], dict[str, Any]]] = {
    "linear": (Linear, {}),
    "mlp": (MLP, {}),
    "cnn": (CNN, {}),
    # Eight weighted layers and two projections: one basic block in each of three stages.
    "resnet9": (ResNet, {"blocks": (1, 1, 1), "width": 32}),
    "resnet20": (ResNet, {"blocks": (3, 3, 3), "width": 16}),
    "resnet56": (ResNet, {"blocks": (9, 9, 9), "width": 16}),
    "resnet18": (ResNet, {"blocks": (2, 2, 2, 2)}),
    "resnet34": (ResNet, {"blocks": (3, 4, 6, 3)}),
    "resnet50": (ResNet, {"blocks": (3, 4, 6, 3), "bottleneck": True}),
    "airbench": (Airbench, {}),
    "wrn_16_4": (ResNet, {"blocks": (2, 2, 2), "width": 16, "widen": 4, "preact": True}),
    "wrn_28_10": (ResNet, {"blocks": (4, 4, 4), "width": 16, "widen": 10, "preact": True}),
}
"""The networks by name: an `Architecture` and the options that make it this one."""


def names() -> tuple[str, ...]:
    """Returns the names that `create` knows.

    Example:
      >>> "resnet18" in names()
      True
    """
    return tuple(NETWORKS)


def create(
    name: str,
    *,
    num_classes: int,
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: Any = jnp.float32,
    **options: Any,
) -> Architecture:
    """Creates a network by name; nothing is computed yet.

    Args:
      name: one of `names()`.
      num_classes: number of logits, at least 2.
      width: scales all layers; None means the network's default.
      mean: per channel (or one for all), subtracted from pixels in [0, 1]; None means 0.
      std: per channel (or one for all), divides the pixels; None means 1.
      dtype: of the computation, `bfloat16` for instance; parameters and logits stay float32.
      **options: the network's own fields, such as `stem="imagenet"` or `norm="group"`.

    Returns:
      A flax module: `model.apply(variables, x, train=False)` is `[B, H, W, C] -> [B, K]`.

    Raises:
      ValueError: for an unknown name or option, or a value out of range.

    Example:
      >>> create("resnet18", num_classes=10, width=16).width
      16
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown model {name!r}; there are {', '.join(names())}")
    network, defaults = NETWORKS[name]
    own = _own_options(network)
    for option in options:
        if option not in own:
            raise ValueError(
                f"model {name!r} has no option {option!r}; it has {', '.join(own) or 'none'}"
            )
    if width is not None:
        options["width"] = width
    # Lists become tuples: a module must be hashable to be a static part of a pytree.
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    model = network(
        **{**defaults, **options},
        num_classes=num_classes,
        mean=None if mean is None else tuple(float(value) for value in mean),
        std=None if std is None else tuple(float(value) for value in std),
        dtype=dtype,
    )
    model.check()
    return model


def _own_options(network: type[Architecture]) -> tuple[str, ...]:
    common = {field.name for field in dataclasses.fields(Architecture)}
    return tuple(f.name for f in dataclasses.fields(network) if f.name not in common)
