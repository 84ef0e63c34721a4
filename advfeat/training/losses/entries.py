"""Entries of the registry of objectives: how one is made, and what commands may ask of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from advfeat.attacks.fgsm import fgsm
from advfeat.attacks.pgd import pgd
from advfeat.threats.balls import ThreatModel
from advfeat.training.losses.base import TrainingObjective
from advfeat.training.procedures import PROCEDURES, Procedure, plain
from advfeat.types import Array, LogitLoss

USUAL_STEPS = 7


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of `OBJECTIVES`. Called with the factory's arguments, it makes the objective.

    Attributes:
      factory: `(model, loss, attack, **numbers) -> TrainingObjective`.
      numbers: the objective's own options with their usual values; they can be given as flags.
      attack_steps: usual steps of PGD; 0 for an objective that attacks nothing, None for one that
        makes its own attack (its factory, or its procedure, takes `threat` and `step_size` in place
        of `attack`).
      one_step: whether it trains on a single-step attack, so that it is prone to catastrophic
        overfitting.
      takes_loss: whether the loss can be chosen.
      procedure: name in `PROCEDURES` of the procedure that attacks in place of the objective, to
        which `numbers` belong; None for an objective that any procedure can use.
    """

    factory: Callable[..., TrainingObjective]
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    attack_steps: int | None = USUAL_STEPS
    one_step: bool = False
    takes_loss: bool = True
    procedure: str | None = None

    def __call__(self, *args: Any, **options: Any) -> TrainingObjective:
        """Makes the objective."""
        return self.factory(*args, **options)

    def build(
        self,
        model: Any,
        loss: LogitLoss,
        threat: ThreatModel | None,
        *,
        attack_steps: int = USUAL_STEPS,
        step_size: float | Array | None = None,
        **numbers: float,
    ) -> TrainingObjective:
        """Makes the objective with its attack on a threat model.

        Args:
          model: a flax module.
          loss: logits `[K]`, label `[]` -> `[]`.
          threat: the threat model; None for an objective that attacks nothing.
          attack_steps: steps of PGD; one step of a one-step objective is FGSM from the image.
          step_size: in the threat model's norm; by default that of FGSM, `1.4 eps / steps` for PGD,
            or that of the objective's own attack.
          **numbers: the objective's own options.

        Raises:
          ValueError: without a threat model for an objective that attacks.
        """
        options: dict[str, Any] = {} if self.procedure else dict(numbers)
        if self.takes_loss:
            options["loss"] = loss
        if self.attack_steps == 0:
            return self.factory(model, **options)
        if threat is None:
            raise ValueError("threat must be a threat model for an objective that attacks")
        if self.procedure is not None:
            return self.factory(model, **options)
        if self.attack_steps is None:
            return self.factory(model, threat=threat, step_size=step_size, **options)
        attack: Any
        if self.one_step and attack_steps == 1:
            attack = fgsm(threat, step_size=step_size, keep=None)
        else:
            size = 1.4 * threat.eps / attack_steps if step_size is None else step_size
            attack = pgd(threat, steps=attack_steps, step_size=size, random_start=True, keep=None)
        return self.factory(model, attack=attack, **options)

    def build_procedure(
        self,
        threat: ThreatModel | None,
        *,
        step_size: float | Array | None = None,
        accumulate: int = 1,
        **numbers: float,
    ) -> Procedure:
        """Makes the procedure by which a step uses the objective: `plain`, unless it has its own.

        Args:
          threat: the threat model; None for an objective that attacks nothing.
          step_size: of the procedure's attack, in the threat model's norm; None for its default.
          accumulate: number of parts in which a batch is processed.
          **numbers: the options given to `build`.

        Raises:
          ValueError: without a threat model for a procedure that attacks.
        """
        if self.procedure is None:
            return plain(accumulate=accumulate)
        if threat is None:
            raise ValueError("threat must be a threat model for a procedure that attacks")
        make = PROCEDURES[self.procedure]
        return make(threat, step_size=step_size, accumulate=accumulate, **numbers)
