"""Our networks in PyTorch, on the same weights: what peers are compared on."""

from __future__ import annotations

import jax
import numpy as np
import torch
import torch.nn.functional as F


def _pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """SAME as XLA has it: with stride 2 the odd zero comes after the image."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Mirror(torch.nn.Module):
    """A `cnn`, `mlp`, `linear` or post-activation `resnet*` of `advfeat.models`, evaluation mode.

    Takes `[B, C, H, W]` in [0, 1]. The forward pass walks through the flax parameters by name.
    """

    def __init__(self, network):
        super().__init__()
        self.spec, self.module = network.spec, network.spec.build()
        params = jax.tree.map(
            lambda leaf: torch.from_numpy(np.array(leaf, np.float32)), dict(network.variables)
        )
        self.params_tree, self.stats = params["params"], params.get("batch_stats", {})

    def _conv(self, x, tree, stride):
        kernel = tree["kernel"].permute(3, 2, 0, 1)
        top, bottom = _pads(x.shape[2], kernel.shape[2], stride)
        left, right = _pads(x.shape[3], kernel.shape[3], stride)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, kernel, tree.get("bias"), stride=stride)

    def _norm(self, x, params, stats):
        params, stats = params["BatchNorm_0"], stats["BatchNorm_0"]
        return F.batch_norm(
            x, stats["mean"], stats["var"], params["scale"], params["bias"], eps=1e-5
        )

    def _block(self, x, params, stats, stride):
        out = F.relu(
            self._norm(self._conv(x, params["conv1"], stride), params["norm1"], stats["norm1"])
        )
        out = self._norm(self._conv(out, params["conv2"], 1), params["norm2"], stats["norm2"])
        if "project" in params:
            x = self._conv(x, params["project"], stride)
            x = self._norm(x, params["project_norm"], stats["project_norm"])
        return F.relu(out + x)

    def forward(self, x):
        """Logits `[B, K]`."""
        params, stats = self.params_tree, self.stats
        for name, change in (("mean", lambda a, b: a - b), ("std", lambda a, b: a / b)):
            values = getattr(self.spec, name)
            if values is not None:
                x = change(x, torch.tensor(values, dtype=x.dtype).reshape(1, -1, 1, 1))
        if "stem_conv" in params:
            x = self._conv(x, params["stem_conv"], 1)
            x = F.relu(self._norm(x, params["stem_norm"], stats["stem_norm"]))
            for stage, count in enumerate(self.module.blocks, start=1):
                for place in range(1, count + 1):
                    name = f"stage{stage}_{place}"
                    stride = 2 if stage > 1 and place == 1 else 1
                    x = self._block(x, params[name], stats[name], stride)
            x = x.mean(dim=(2, 3))
        else:
            for index, stride in enumerate((1, 2, 2), start=1):
                if f"conv{index}" in params:
                    x = F.relu(self._conv(x, params[f"conv{index}"], stride))
            x = x.permute(0, 2, 3, 1).flatten(1)
            for name in sorted(key for key in params if key.startswith("dense")):
                x = F.relu(x @ params[name]["kernel"] + params[name]["bias"])
        return x @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def to_torch(images: np.ndarray) -> torch.Tensor:
    """`[N, H, W, C]` -> `[N, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1), np.float32))


def from_torch(images: torch.Tensor) -> np.ndarray:
    """`[N, C, H, W]` -> `[N, H, W, C]`."""
    return np.ascontiguousarray(np.moveaxis(images.detach().numpy(), 1, -1))
