"""Keeps the result of an evaluation in a run, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from advfeat.evaluation.result import AttackOutcome, SuiteResult, TrustWarning
from advfeat.threats.balls import ThreatModel

VERDICTS = ("clean_share", "robust_share", "distance", "fooled_by")
BY_IMAGE = ("tried", "fooled", "share", "queries")
TOTALS = ("forward_passes", "gradients", "seconds", "claims", "outside", "unconfirmed")
_SETTINGS = ("suite", "looks", "checked", "averages")


def packed(result: SuiteResult) -> dict[str, Any]:
    """Returns the arrays of a result without its images."""
    attacks = result.attacks
    return {
        **{field: getattr(result, field) for field in (*VERDICTS, *_SETTINGS)},
        **{
            field: np.stack([getattr(part, field) for part in attacks])
            for field in (*BY_IMAGE, *TOTALS)
        },
        "attack": np.array([part.name for part in attacks]),
        "warning": np.array(result.warnings, str).reshape(-1, len(TrustWarning._fields)),
    }


def unpacked(
    saved: Mapping[str, np.ndarray], threat: ThreatModel, shape: tuple[int, ...]
) -> SuiteResult:
    """Undoes `packed`; images that were saved beside it, as "adversarial", are taken, too.

    Args:
      saved: as read from the run.
      threat: the threat model.
      shape: of one image, if there are none.
    """
    fields: dict[str, Any] = {
        **{field: saved[field] for field in VERDICTS},
        **{field: saved[field].item() for field in _SETTINGS},
    }
    attacks = tuple(
        AttackOutcome(
            name=str(name),
            **{field: saved[field][row] for field in BY_IMAGE},
            **{field: saved[field][row].item() for field in TOTALS},
        )
        for row, name in enumerate(saved["attack"])
    )
    return SuiteResult(
        threat=threat,
        adversarial=saved.get("adversarial", np.zeros((0, *shape), np.float32)),
        attacks=attacks,
        warnings=tuple(TrustWarning(*map(str, row)) for row in saved["warning"]),
        **fields,
    )
