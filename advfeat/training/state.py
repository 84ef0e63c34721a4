"""What a training carries from step to step."""

from __future__ import annotations

from typing import Any, NamedTuple

from advfeat.types import Array


class TrainState(NamedTuple):
    """Everything a training needs to go on: the step counts, so keys and order follow from it.

    Attributes:
      params: weights, float32.
      model_state: what else the network keeps, such as batch statistics.
      opt_state: the optimiser's.
      step: `[]` int32, minibatches taken (one of replays makes several updates of each).
      extra: what the procedure carries: averaged weights, a perturbation; empty for most.
    """

    params: Any
    model_state: Any
    opt_state: Any
    step: Array
    extra: Any = ()
