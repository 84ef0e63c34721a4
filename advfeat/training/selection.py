"""The rule by which a robust training is monitored, stopped and its epoch selected.

Robust accuracy on unseen images can fall during training: slowly (robust overfitting, Rice et al.
2020, https://arxiv.org/abs/2002.11569) or within an epoch (catastrophic overfitting, Wong et al.
2020, https://arxiv.org/abs/2001.03994, whose check this is). `runs.selection.Watch` follows the
rule and keeps the weights of a run.
"""

from __future__ import annotations

import dataclasses

MAX_DROP = 0.2  # the threshold of Wong et al.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """The rule by which a robust training is monitored, stopped and its epoch selected.

    Attributes:
      select: `last` or `best`, the epoch whose weights are kept.
      patience: epochs without a new best before the training ends; None disables it.
      max_drop: if the accuracy falls below the best by more than this, the training ends and
        returns to its best epoch; None disables the check.
      steps: of PGD, with a random start and step size `2.5 * eps / steps`.
      examples: maximum number of held-out images, drawn at random; 0 uses all.
    """

    select: str = "last"
    patience: int | None = None
    max_drop: float | None = None
    steps: int = 10
    examples: int = 500

    @property
    def keeps_best(self) -> bool:
        """Whether the best epoch's weights may be needed."""
        return self.select == "best" or self.max_drop is not None
