"""Hand-written PyTorch, as fast as we can write it without leaving its usual means."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .torch_mirror import from_torch, to_torch


def pgd(
    model: Any,
    *,
    norm: str,
    eps: float,
    step_size: float,
    steps: int,
    targeted: bool = False,
    compiled: bool = False,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns PGD without a random start: `[B, C, H, W]`, labels or targets `[B]` -> last iterate.

    Args:
      model: the network.
      norm: "linf" or "l2".
      eps: radius.
      step_size: in the norm.
      steps: number of steps.
      targeted: whether to descend the loss of a target.
      compiled: whether loss (with its gradient) and update go through `torch.compile`.
    """
    sign = -1.0 if targeted else 1.0

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return sign * F.cross_entropy(model(x), y, reduction="sum")

    def linf(x: Tensor, x0: Tensor, gradient: Tensor) -> Tensor:
        moved = x + step_size * gradient.sign()
        return torch.minimum(torch.maximum(moved, x0 - eps), x0 + eps).clamp(0, 1)

    def l2(x: Tensor, x0: Tensor, gradient: Tensor) -> Tensor:
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        away = x + step_size * gradient / length - x0
        far = away.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        return (x0 + away * (eps / far).clamp(max=1.0)).clamp(0, 1)

    update: Any = {"linf": linf, "l2": l2}[norm]
    loss: Any = loss_of
    if compiled:
        loss, update = torch.compile(loss), torch.compile(update)

    def attack(x0: Tensor, y: Tensor) -> Tensor:
        x0 = x0.contiguous(memory_format=torch.channels_last)
        x = x0
        for _ in range(steps):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(x, y), x)
            with torch.no_grad():
                x = update(x, x0, gradient)
        return x.detach()

    return attack


def epoch(
    model: Any,
    attack: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    batch: int,
    rate: float,
    seed: int,
    compiled: bool = False,
) -> float:
    """Trains for an epoch on attacked images and returns the mean loss.

    The attack sees the network in evaluation mode, the update in training mode; SGD with Nesterov
    momentum and weight decay, as ours.
    """
    optimiser = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    run = torch.compile(model) if compiled else model
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
    losses = []
    for begin in range(0, len(images) - batch + 1, batch):
        rows = order[begin : begin + batch].to(images.device)
        y = labels[rows]
        model.eval().requires_grad_(False)
        x = attack(images[rows], y)
        model.train().requires_grad_(True)
        loss = F.cross_entropy(run(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def smoothgrad(
    model: Any,
    images: Tensor,
    labels: Tensor,
    *,
    samples: int,
    sigma: float,
    batch: int,
    chunk: int,
) -> Tensor:
    """Returns the mean gradient of the label's logit over noisy copies, `[N, C, H, W]`."""
    maps = []
    for begin in range(0, len(images), batch):
        x, y = images[begin : begin + batch], labels[begin : begin + batch]
        total = torch.zeros_like(x)
        for first in range(0, samples, chunk):
            count = min(chunk, samples - first)
            copies = x.repeat(count, 1, 1, 1)
            copies = (copies + sigma * torch.randn_like(copies)).requires_grad_()
            score = model(copies).gather(1, y.repeat(count)[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, copies)
            total += gradient.view(count, *x.shape).sum(0)
        maps.append(total / samples)
    return torch.cat(maps)


def in_batches(
    attack: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, batch: int
) -> Tensor:
    """Attacks images a batch at a time."""
    parts = [
        attack(images[i : i + batch], labels[i : i + batch]) for i in range(0, len(images), batch)
    ]
    return torch.cat(parts)


def first_attack(folder: str) -> None:
    """Loads what a parent process has left in a folder and attacks it: all of a start-up."""
    place = pathlib.Path(folder)
    given = json.loads((place / "work.json").read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    model = torch.load(place / "mirror.pt", weights_only=False)
    with np.load(place / "points.npz") as arrays:
        x, y = to_torch(arrays["images"]), torch.from_numpy(arrays["labels"].astype(np.int64))
    attack = pgd(model, **{name: given[name] for name in ("norm", "eps", "step_size", "steps")})
    found = from_torch(attack(x, y))
    np.save(place / "torch.npy", found)
    sys.stdout.flush()
