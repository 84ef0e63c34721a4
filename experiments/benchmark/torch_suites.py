"""AutoAttack as PyTorch has it: torchattacks' and the authors' own."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import torch
from torch import Tensor

from advfeat.threats import ThreatModel

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def torchattacks_suite(
    model: Any,
    classes: int,
    threat: ThreatModel,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    seed: int,
    steps: int | None = None,
) -> Tensor:
    """Attacks by torchattacks' AutoAttack.

    Args:
      model: the network, in evaluation mode.
      classes: K.
      threat: norm and eps.
      x: `[N, C, H, W]`.
      y: `[N]`.
      batch_size: images at a time.
      seed: of the random starts.
      steps: of APGD and FAB; None for torchattacks' default of 10, where AutoAttack has 100.

    Returns:
      `[N, C, H, W]`.
    """
    import torchattacks

    torch.manual_seed(seed)
    where: dict[str, Any] = {
        "norm": NORMS[threat.norm.name],
        "eps": float(threat.eps),
        "seed": seed,
    }
    attack = torchattacks.AutoAttack(model, version="standard", n_classes=classes, **where)
    if steps is not None:
        targeted = {"steps": steps, "n_classes": classes, "n_restarts": 1}
        attack = torchattacks.MultiAttack(
            [
                torchattacks.APGD(model, steps=steps, loss="ce", n_restarts=1, **where),
                torchattacks.APGDT(model, **targeted, **where),
                torchattacks.FAB(model, multi_targeted=True, **targeted, **where),
                torchattacks.Square(model, n_queries=5000, n_restarts=1, **where),
            ]
        )
    parts = [
        attack(x[i : i + batch_size], y[i : i + batch_size]) for i in range(0, len(x), batch_size)
    ]
    return torch.cat(parts)


def authors_suite(
    path: str,
    model: Any,
    classes: int,
    threat: ThreatModel,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    seed: int,
) -> Tensor:
    """Attacks by the AutoAttack authors' code.

    Args:
      path: a clone of fra31/auto-attack.
      model: as above.
      classes: K, which their code reads from the logits.
      threat: norm and eps.
      x: `[N, C, H, W]`.
      y: `[N]`.
      batch_size: images at a time.
      seed: of the random starts.

    Returns:
      `[N, C, H, W]`.
    """
    del classes
    if path not in sys.path:
        sys.path.insert(0, path)
    from autoattack import AutoAttack

    attack = AutoAttack(
        model,
        norm=NORMS[threat.norm.name],
        eps=float(threat.eps),
        version="standard",
        device=str(x.device),
        seed=seed,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        return attack.run_standard_evaluation(x, y, bs=batch_size)
