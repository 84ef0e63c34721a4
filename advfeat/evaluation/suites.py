"""Which attacks a suite holds, given the norm and the number of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from advfeat.attacks import ATTACKS
from advfeat.objectives.losses import margin
from advfeat.threats.balls import ThreatModel
from advfeat.types import AttackFn

TARGETS = 9  # AutoAttack's
QUICK_GATE = 0.1  # of the clean margin; docs/results/evaluation.md says how it was chosen
L1_TARGETS = 5  # AutoAttack's of targeted APGD in the standard suite in L1; FAB keeps nine there


@dataclasses.dataclass(frozen=True)
class Suite:
    """Attacks in the order they run.

    Attributes:
      name: of the suite.
      attacks: by name.
      gates: for attacks that are given contested images only, the least gate; see
        `advfeat.evaluation.triage`.
      notes: `(code, sentence)` of everything that differs from what the name promises.
    """

    name: str
    attacks: dict[str, AttackFn]
    gates: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[tuple[str, str]] = dataclasses.field(default_factory=list)


class _Maker:
    """Makes the attacks of AutoAttack's versions; what a problem does not define is replaced."""

    def __init__(self, threat: ThreatModel, num_classes: int):
        self._threat, self._classes = threat, num_classes
        self._l1 = threat.norm.name == "l1"
        self.notes: list[tuple[str, str]] = []

    def _note(self, sentence: str) -> None:
        if ("replaced", sentence) not in self.notes:
            self.notes.append(("replaced", sentence))

    def _targets(self, wanted: int = TARGETS) -> int:
        return min(wanted, self._classes - 1)

    def apgd_ce(self, restarts: int = 1, eot: int = 1) -> AttackFn:
        """Cross-entropy; in L1 five restarts, as the authors have it."""
        restarts = 5 if self._l1 and eot == 1 else restarts
        return _make("apgd_ce", self._threat, restarts=restarts, eot=eot)

    def apgd_dlr(self, restarts: int = 1, eot: int = 1) -> AttackFn:
        """DLR needs three classes."""
        restarts = 5 if self._l1 and eot == 1 else restarts
        if self._classes >= 3:
            return _make("apgd_dlr", self._threat, restarts=restarts, eot=eot)
        self._note("The DLR loss needs 3 classes; APGD ascends the margin instead.")
        return _make("apgd_dlr", self._threat, restarts=restarts, eot=eot, loss=margin)

    def apgd_targeted(self, steps: int = 100, targets: int | None = None) -> AttackFn:
        """The targeted DLR needs four classes; in L1 fewer targets, as the authors have it."""
        targets = self._targets(targets or (L1_TARGETS if self._l1 else TARGETS))
        if self._classes >= 4:
            return _make("apgd_targeted", self._threat, targets=targets, steps=steps)
        self._note(
            f"The targeted DLR loss needs 4 classes and there are {self._classes}; targeted APGD "
            "ascends the margin towards each target instead."
        )
        return _make(
            "apgd_targeted", self._threat, targets=targets, steps=steps, loss="margin"
        )

    def fab(self, restarts: int = 1) -> AttackFn:
        """The boundary of every class at every step."""
        return _make("fab", self._threat, restarts=restarts)

    def fab_targeted(self, steps: int = 100, targets: int = TARGETS) -> AttackFn:
        """The boundary of one class after the other."""
        return _make("fab_targeted", self._threat, targets=self._targets(targets), steps=steps)

    def square(self, steps: int = 5000) -> AttackFn:
        """Scores only; in short, the schedule of p is gone through as well."""
        return _make("square", self._threat, steps=steps, rescale_schedule=steps < 5000)


_VERSIONS: dict[str, Callable[[_Maker], dict[str, AttackFn]]] = {
    "standard": lambda make: {
        "apgd_ce": make.apgd_ce(),
        "apgd_targeted": make.apgd_targeted(),
        "fab_targeted": make.fab_targeted(),
        "square": make.square(),
    },
    "plus": lambda make: {
        "apgd_ce": make.apgd_ce(restarts=5),
        "apgd_dlr": make.apgd_dlr(restarts=5),
        "fab": make.fab(restarts=5),
        "square": make.square(),
        "apgd_targeted": make.apgd_targeted(targets=TARGETS),
        "fab_targeted": make.fab_targeted(),
    },
    "rand": lambda make: {
        "apgd_ce": make.apgd_ce(eot=20),
        "apgd_dlr": make.apgd_dlr(eot=20),
    },
    # The standard attacks, each first in short on every image that stands.
    "quick": lambda make: {
        "apgd_ce": make.apgd_ce(),
        "apgd_targeted_short": make.apgd_targeted(steps=20, targets=3),
        "fab_targeted_short": make.fab_targeted(steps=20, targets=3),
        "square_short": make.square(steps=500),
        "apgd_targeted": make.apgd_targeted(),
        "fab_targeted": make.fab_targeted(),
        "square": make.square(),
    },
}
_GATES = {"quick": dict.fromkeys(("apgd_targeted", "fab_targeted", "square"), QUICK_GATE)}
SUITES = ("autoattack", *_VERSIONS)
"""Names of suites; `autoattack` is another one of `standard`."""

_FEW = {"steps": 4, "length": 2, "rounds": 2, "restarts": 2, "eot": 2}
"""By the attacks' own word for it, how many of it a shortened attack has."""


def resolve(
    suite: str | Iterable[str] | Mapping[str, AttackFn] | Suite,
    threat: ThreatModel,
    *,
    num_classes: int,
) -> Suite:
    """A suite's attacks for a threat model and a number of classes.

    Args:
      suite: a suite's name, an attack's, names of attacks in the order they are to run, or attacks
        by names of your own; a `Suite` stays as it is.
      threat: what they may do.
      num_classes: K.

    Raises:
      ValueError: for an unknown name, one named twice, no attack at all, or one that is not defined
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
        name = "standard" if names[0] == "autoattack" else names[0]
        maker = _Maker(threat, num_classes)
        gates = _GATES.get(name, {})
        return Suite(name, _VERSIONS[name](maker), gates=gates, notes=maker.notes)
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
    maker = _Maker(threat, num_classes)
    attacks = {
        name: getattr(maker, name)() if hasattr(maker, name) else _make(name, threat)
        for name in names
    }
    return Suite("custom", attacks, notes=maker.notes)


def shortened(suite: Suite) -> Suite:
    """The same attacks in the same order, each with few steps, restarts, targets and queries.

    For trying out whether everything runs; what it finds is no measure of robustness.
    """
    attacks = {name: _short(attack) for name, attack in suite.attacks.items()}
    return dataclasses.replace(suite, attacks=attacks)


def _short(attack: Any) -> Any:
    if not dataclasses.is_dataclass(attack) or isinstance(attack, type):
        return attack  # a function of somebody's own
    there = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    fewer = {name: min(there[name], most) for name, most in _FEW.items() if name in there}
    return dataclasses.replace(attack, **fewer)


def _make(name: str, threat: ThreatModel, **options: Any) -> AttackFn:
    return ATTACKS[name](threat, **options)  # type: ignore[no-any-return]
