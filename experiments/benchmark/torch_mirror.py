"""Our networks in PyTorch, on the same weights: what peers are compared on.

Imports neither JAX nor advfeat, so that a PyTorch process can start without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SameConv(nn.Module):
    """A convolution that pads as XLA's SAME does: with stride 2, the odd zero comes last."""

    def __init__(self, tree: Mapping[str, Any], stride: int):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(_tensor(tree["kernel"]).permute(3, 2, 0, 1).contiguous())
        self.bias = nn.Parameter(_tensor(tree["bias"])) if "bias" in tree else None

    def forward(self, x: Tensor) -> Tensor:
        """`[B, I, H, W]` -> `[B, O, H', W']`."""
        size = self.weight.shape[2:]
        (top, bottom), (left, right) = (
            _pads(x.shape[2 + axis], size[axis], self.stride) for axis in (0, 1)
        )
        if (top, left) == (bottom, right):
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left))
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride)


class Block(nn.Module):
    """A basic residual block, activation last."""

    def __init__(self, params: Mapping[str, Any], stats: Mapping[str, Any], stride: int):
        super().__init__()
        self.conv1, self.norm1 = SameConv(params["conv1"], stride), _norm(params, stats, "norm1")
        self.conv2, self.norm2 = SameConv(params["conv2"], 1), _norm(params, stats, "norm2")
        self.project: nn.Module | None = None
        if "project" in params:
            norm = _norm(params, stats, "project_norm")
            self.project = nn.Sequential(SameConv(params["project"], stride), norm)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, I, H, W]` -> `[B, O, H', W']`."""
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(out + (x if self.project is None else self.project(x)))


class Mirror(nn.Module):
    """A network of `advfeat.models`: `[B, C, H, W]` in [0, 1] -> logits `[B, K]`.

    Args:
      network: an `advfeat.models.network.Network` of basic residual blocks with batch
        normalisation and the CIFAR stem, or a `cnn`, `mlp` or `linear`.

    Raises:
      ValueError: for another architecture.
    """

    def __init__(self, network: Any):
        super().__init__()
        spec, params = network.spec, network.variables["params"]
        stats = network.variables.get("batch_stats", {})
        options = {key: value for key, value in spec.options.items() if key != "blocks"}
        if not spec.model.startswith(("resnet", "cnn", "mlp", "linear")) or options:
            raise ValueError(f"no mirror in PyTorch of {spec.model} with options {options}")
        self.mean: Tensor | None
        self.std: Tensor | None
        for name in ("mean", "std"):
            values = getattr(spec, name)
            # One value may stand for all channels.
            found = None if values is None else _tensor(values).reshape(1, -1, 1, 1)
            self.register_buffer(name, found)
        self.stem: nn.Module | None = None
        self.convs, self.blocks, self.dense = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        if "stem_conv" in params:
            self.stem = nn.Sequential(
                SameConv(params["stem_conv"], 1), _norm(params, stats, "stem_norm"), nn.ReLU()
            )
            for name in sorted((n for n in params if n.startswith("stage")), key=_place):
                stage, position = _place(name)
                stride = 2 if stage > 1 and position == 1 else 1
                self.blocks.append(Block(params[name], stats[name], stride))
        for index, stride in enumerate((1, 2, 2), start=1):
            if f"conv{index}" in params:
                self.convs.append(SameConv(params[f"conv{index}"], stride))
        self.dense.extend(_linear(params[n]) for n in sorted(params) if n.startswith("dense"))
        self.classifier = _linear(params["classifier"])

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, K]`, float32."""
        if self.mean is not None:
            x = x - self.mean
        if self.std is not None:
            x = x / self.std
        x = x.to(self.classifier.weight.dtype)
        if self.stem is not None:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            x = x.mean(dim=(2, 3))
        else:
            for conv in self.convs:
                x = F.relu(conv(x))
            x = x.permute(0, 2, 3, 1).flatten(1)
            for dense in self.dense:
                x = F.relu(dense(x))
        return self.classifier(x).float()

    def in_bfloat16(self) -> Mirror:
        """Computes in bfloat16 from the pixels to the logits, as ours does; in place."""
        for part in (self.stem, self.convs, self.blocks, self.dense, self.classifier):
            if part is not None:
                part.to(torch.bfloat16)
        return self


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _place(name: str) -> tuple[int, int]:
    stage, position = name.removeprefix("stage").split("_")
    return int(stage), int(position)


def _pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _norm(params: Mapping[str, Any], stats: Mapping[str, Any], name: str) -> nn.BatchNorm2d:
    params, stats = params[name]["BatchNorm_0"], stats[name]["BatchNorm_0"]
    norm = nn.BatchNorm2d(len(params["scale"]), eps=1e-5, momentum=0.1)
    norm.weight, norm.bias = (
        nn.Parameter(_tensor(params["scale"])),
        nn.Parameter(_tensor(params["bias"])),
    )
    norm.running_mean, norm.running_var = _tensor(stats["mean"]), _tensor(stats["var"])
    return norm


def _linear(tree: Mapping[str, Any]) -> nn.Linear:
    weight = _tensor(tree["kernel"]).T.contiguous()
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(_tensor(tree["bias"]))
    return made


def to_torch(images: np.ndarray) -> Tensor:
    """`[N, H, W, C]` -> `[N, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1), np.float32))


def from_torch(images: Tensor) -> np.ndarray:
    """`[N, C, H, W]` -> `[N, H, W, C]`."""
    return np.ascontiguousarray(np.moveaxis(images.detach().float().cpu().numpy(), 1, -1))
