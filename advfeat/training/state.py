"""The state that a training carries from step to step."""

from __future__ import annotations

from typing import Any, NamedTuple

from advfeat.types import Array


class TrainState(NamedTuple):
    """Everything needed to resume a training; keys and data order follow from the step.

    Attributes:
      params: weights, float32.
      model_state: the network's other collections, such as batch statistics.
      opt_state: the optimiser's state.
      step: `[]` int32, minibatches taken (free training makes several updates on each).
      extra: state of the procedure (averaged weights, a perturbation); empty for most.
    """

    params: Any
    model_state: Any
    opt_state: Any
    step: Array
    extra: Any = ()
