"""Suites: the attacks to run for a given norm and number of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from advfeat.attacks import ATTACKS
from advfeat.attacks.entries import TARGETS, Fitted
from advfeat.evaluation.result import NOTE, TrustWarning
from advfeat.threats.balls import ThreatModel
from advfeat.types import AttackFn

QUICK_GATE = 0.1  # share of the clean margin; chosen in docs/results/evaluation.md


@dataclasses.dataclass(frozen=True)
class Suite:
    """A sequence of attacks in the order they run.

    Attributes:
      name: name of the suite; of a registered one, the name in `SUITES`.
      attacks: attacks by name.
      gates: minimum gate of each attack that receives only contested images; see
        `advfeat.evaluation.triage`.
      notes: a note for every deviation from the standard definition of the suite.
      averages: whether its gradients are means over draws, as a random network needs them.
    """

    name: str
    attacks: dict[str, AttackFn]
    gates: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[TrustWarning] = dataclasses.field(default_factory=list)
    averages: bool = False


class Maker:
    """Makes attacks of `ATTACKS` by name, fitted to a norm and a number of classes.

    Args:
      threat: the threat model.
      num_classes: K.

    Attributes:
      notes: a note for every attack that deviates from its definition.
    """

    def __init__(self, threat: ThreatModel, num_classes: int):
        self._threat, self._classes = threat, num_classes
        self.notes: list[TrustWarning] = []

    def __call__(self, name: str, **options: Any) -> AttackFn:
        """Makes an attack; its entry's `fit` adapts the options."""
        entry, found = ATTACKS[name], Fitted(options)
        fit = getattr(entry, "fit", None)
        if fit is not None:
            found = fit(self._threat, self._classes, options)
        note = TrustWarning("replaced", found.note, NOTE)
        if found.note and note not in self.notes:
            self.notes.append(note)
        return entry(self._threat, **found.options)  # type: ignore[no-any-return]


def listed(*names: str) -> Callable[[ThreatModel, int], Suite]:
    """Returns a suite of attacks in the order they run, for `SUITES`.

    >>> from advfeat.threats.balls import linf
    >>> SUITES["strong"] = listed("pgd", "square")
    >>> list(resolve("strong", linf(0.1), num_classes=10).attacks)
    ['pgd', 'square']
    >>> del SUITES["strong"]
    """

    def suite(threat: ThreatModel, num_classes: int) -> Suite:
        make = Maker(threat, num_classes)
        return Suite("custom", {name: make(name) for name in names}, notes=make.notes)

    return suite


def _standard(threat: ThreatModel, num_classes: int) -> Suite:
    names = ("apgd_ce", "apgd_targeted", "fab_targeted", "square")
    return dataclasses.replace(listed(*names)(threat, num_classes), name="standard")


def _plus(threat: ThreatModel, num_classes: int) -> Suite:
    make = Maker(threat, num_classes)
    attacks = {
        "apgd_ce": make("apgd_ce", restarts=5),
        "apgd_dlr": make("apgd_dlr", restarts=5),
        "fab": make("fab", restarts=5),
        "square": make("square"),
        "apgd_targeted": make("apgd_targeted", targets=TARGETS),
        "fab_targeted": make("fab_targeted"),
    }
    return Suite("plus", attacks, notes=make.notes)


def _rand(threat: ThreatModel, num_classes: int) -> Suite:
    make = Maker(threat, num_classes)
    attacks = {name: make(name, eot=20) for name in ("apgd_ce", "apgd_dlr")}
    return Suite("rand", attacks, notes=make.notes, averages=True)


def _quick(threat: ThreatModel, num_classes: int) -> Suite:
    """Lets a shortened version of each standard attack first see every surviving image."""
    make = Maker(threat, num_classes)
    attacks = {
        "apgd_ce": make("apgd_ce"),
        "apgd_targeted_short": make("apgd_targeted", steps=20, targets=3),
        "fab_targeted_short": make("fab_targeted", steps=20, targets=3),
        "square_short": make("square", steps=500, rescale_schedule=True),
        "apgd_targeted": make("apgd_targeted"),
        "fab_targeted": make("fab_targeted"),
        "square": make("square"),
    }
    gates = dict.fromkeys(("apgd_targeted", "fab_targeted", "square"), QUICK_GATE)
    return Suite("quick", attacks, gates=gates, notes=make.notes)


SUITES: dict[str, Callable[[ThreatModel, int], Suite]] = {
    "autoattack": _standard,
    "standard": _standard,
    "plus": _plus,
    "rand": _rand,
    "quick": _quick,
}
"""The suites by name: threat model, number of classes -> `Suite`. A suite of your own is one more
entry, such as `listed("pgd", "square")`."""

_FEW = {"steps": 4, "length": 2, "targets": 2, "restarts": 2, "eot": 2}
"""Upper limits of a shortened attack, by attribute of the attack."""


def resolve(
    suite: str | Iterable[str] | Mapping[str, AttackFn] | Suite,
    threat: ThreatModel,
    *,
    num_classes: int,
) -> Suite:
    """Builds the attacks of a suite for a threat model and a number of classes.

    Args:
      suite: name of a suite or an attack, names of attacks in the order they run, or a mapping from
        your own names to attacks; a `Suite` is returned unchanged.
      threat: the threat model.
      num_classes: K.

    Returns:
      The suite, named as it is registered in `SUITES`; one of attacks is named "custom".

    Raises:
      ValueError: for an unknown or repeated name, no attack at all, or an attack that is undefined
        for the norm.
    """
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, Mapping):
        if not suite:
            raise ValueError("suite must name at least one attack")
        for name, attack in suite.items():
            if not isinstance(name, str):
                raise ValueError(f"suite must map names to attacks, got the name {name!r}")
            if not callable(attack):
                raise ValueError(f"suite[{name!r}] must be an attack, got {attack!r}")
        return Suite("custom", dict(suite))
    if not isinstance(suite, Iterable):
        raise ValueError(
            f"suite must be a name, names, or attacks by name as in {{'mine': attack}}, got a "
            f"{type(suite).__name__}"
        )
    names = [suite] if isinstance(suite, str) else list(suite)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(
                f"suite must list names of attacks, got a {type(name).__name__}; for attacks of "
                "your own write {'mine': attack}"
            )
    if len(names) == 1 and names[0] in SUITES:
        # What builds a suite does not know the name it is registered under.
        return dataclasses.replace(SUITES[names[0]](threat, num_classes), name=names[0])
    if not names:
        raise ValueError("suite must name at least one attack")
    together = [name for name in names if name in SUITES]
    if together:
        raise ValueError(f"suite {together[0]!r} must stand alone, got {', '.join(names)}")
    unknown = [name for name in names if name not in ATTACKS]
    if unknown:
        known = ", ".join((*SUITES, *ATTACKS))
        raise ValueError(f"suite must be one of {known}, got {unknown[0]!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"suite must name each attack once, got {', '.join(names)}")
    return listed(*names)(threat, num_classes)


def shortened(suite: Suite) -> Suite:
    """Returns the same attacks in the same order with few steps, restarts, targets and queries.

    A smoke test of the pipeline; its result does not measure robustness.
    """
    attacks = {name: _short(attack) for name, attack in suite.attacks.items()}
    return dataclasses.replace(suite, attacks=attacks)


def _short(attack: Any) -> Any:
    if not dataclasses.is_dataclass(attack) or isinstance(attack, type):
        return attack  # a user's own function
    there = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    fewer = {name: min(there[name], most) for name, most in _FEW.items() if name in there}
    if fewer.get("targets", 1) > 1:
        fewer["restarts"] = 1  # two rounds in all
    return dataclasses.replace(attack, **fewer)
