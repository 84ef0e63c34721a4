"""Suites: the attacks to run for a given norm and number of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from advfeat.attacks import ATTACKS
from advfeat.objectives.losses import margin
from advfeat.threats.balls import ThreatModel
from advfeat.types import AttackFn

TARGETS = 9  # as in AutoAttack
QUICK_GATE = 0.1  # share of the clean margin; chosen in docs/results/evaluation.md
L1_TARGETS = 5  # of targeted APGD in AutoAttack's standard L1 suite, where FAB keeps nine


@dataclasses.dataclass(frozen=True)
class Suite:
    """A sequence of attacks in the order they run.

    Attributes:
      name: name of the suite.
      attacks: attacks by name.
      gates: minimum gate of each attack that receives only contested images; see
        `advfeat.evaluation.triage`.
      notes: `(code, sentence)` of every deviation from the standard definition of the suite.
    """

    name: str
    attacks: dict[str, AttackFn]
    gates: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[tuple[str, str]] = dataclasses.field(default_factory=list)


class _Maker:
    """Builds the attacks of the AutoAttack versions; replaces those undefined for the problem."""

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
        """Returns APGD on cross-entropy; in L1 five restarts, like the authors."""
        restarts = 5 if self._l1 and eot == 1 else restarts
        return _make("apgd_ce", self._threat, restarts=restarts, eot=eot)

    def apgd_dlr(self, restarts: int = 1, eot: int = 1) -> AttackFn:
        """Returns APGD on the DLR loss, or on the margin with fewer than three classes."""
        restarts = 5 if self._l1 and eot == 1 else restarts
        if self._classes >= 3:
            return _make("apgd_dlr", self._threat, restarts=restarts, eot=eot)
        self._note("The DLR loss needs 3 classes; APGD ascends the margin instead.")
        return _make("apgd_dlr", self._threat, restarts=restarts, eot=eot, loss=margin)

    def apgd_targeted(self, steps: int = 100, targets: int | None = None) -> AttackFn:
        """Returns targeted APGD; DLR needs four classes. In L1 fewer targets, like the authors."""
        targets = self._targets(targets or (L1_TARGETS if self._l1 else TARGETS))
        if self._classes >= 4:
            return _make("apgd_targeted", self._threat, targets=targets, steps=steps)
        self._note(
            f"The targeted DLR loss needs 4 classes and there are {self._classes}; targeted APGD "
            "ascends the margin towards each target instead."
        )
        return _make("apgd_targeted", self._threat, targets=targets, steps=steps, loss="margin")

    def fab(self, restarts: int = 1) -> AttackFn:
        """Returns untargeted FAB, which linearises every class boundary at every step."""
        return _make("fab", self._threat, restarts=restarts)

    def fab_targeted(self, steps: int = 100, targets: int = TARGETS) -> AttackFn:
        """Returns targeted FAB, which follows one class boundary per round."""
        return _make("fab_targeted", self._threat, targets=self._targets(targets), steps=steps)

    def square(self, steps: int = 5000) -> AttackFn:
        """Returns Square; a shortened attack rescales the schedule of p."""
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
    # The standard attacks; a shortened version of each first sees every surviving image.
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
"""Names of suites; `autoattack` is an alias of `standard`."""

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


def _make(name: str, threat: ThreatModel, **options: Any) -> AttackFn:
    return ATTACKS[name](threat, **options)  # type: ignore[no-any-return]
