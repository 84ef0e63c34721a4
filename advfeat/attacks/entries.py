"""Entries of the catalogue of attacks that say more than how to make the attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from advfeat.objectives.losses import margin
from advfeat.threats.balls import ThreatModel

TARGETS = 9  # as in AutoAttack
L1_TARGETS = 5  # of targeted APGD in AutoAttack's standard L1 suite, where FAB keeps nine
L1_RESTARTS = 5  # of untargeted APGD there


class Fitted(NamedTuple):
    """Options of an attack for a problem.

    Attributes:
      options: keyword options of the factory.
      note: the sentence of a warning that the attack deviates from its definition; "" if not.
    """

    options: Mapping[str, Any]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of `ATTACKS` with facts about the attack; called, it makes the attack.

    Attributes:
      factory: `(threat, **options) -> AttackFn`.
      norms: names of the norms for which it is defined; None is all of them.
      fit: `(threat, num_classes, options) -> Fitted`, applied to the options of a suite before
        the attack is made; None leaves them.
    """

    factory: Callable[..., Any]
    norms: tuple[str, ...] | None = None
    fit: Callable[[ThreatModel, int, Mapping[str, Any]], Fitted] | None = None

    def __call__(self, threat: ThreatModel, **options: Any) -> Any:
        """Makes the attack with the given options, as they are."""
        return self.factory(threat, **options)


def fit_restarts(threat: ThreatModel, num_classes: int, options: Mapping[str, Any]) -> Fitted:
    """Restarts APGD in L1 as its authors do, unless gradients are averaged."""
    del num_classes
    if threat.norm.name == "l1" and options.get("eot", 1) == 1:
        return Fitted({**options, "restarts": L1_RESTARTS})
    return Fitted(options)


def fit_dlr(threat: ThreatModel, num_classes: int, options: Mapping[str, Any]) -> Fitted:
    """Replaces the DLR loss of APGD by the margin where there are fewer than three classes."""
    options = fit_restarts(threat, num_classes, options).options
    if num_classes >= 3:
        return Fitted(options)
    return Fitted(
        {**options, "loss": margin},
        "The DLR loss needs 3 classes; APGD ascends the margin instead.",
    )


def fit_apgd_targets(threat: ThreatModel, num_classes: int, options: Mapping[str, Any]) -> Fitted:
    """Limits the targets of APGD; replaces the targeted DLR loss below four classes."""
    usual = L1_TARGETS if threat.norm.name == "l1" else TARGETS
    options = {**options, "targets": min(options.get("targets", usual), num_classes - 1)}
    if num_classes >= 4:
        return Fitted(options)
    return Fitted(
        {**options, "loss": "margin"},
        f"The targeted DLR loss needs 4 classes and there are {num_classes}; targeted APGD ascends "
        "the margin towards each target instead.",
    )


def fit_targets(threat: ThreatModel, num_classes: int, options: Mapping[str, Any]) -> Fitted:
    """Limits the targets of an attack to the other classes."""
    del threat
    return Fitted({**options, "targets": min(options.get("targets", TARGETS), num_classes - 1)})
