"""Flags of `experiments.evaluate`."""

from __future__ import annotations

import dataclasses
from typing import Any

from advfeat.runs.config import flag

from ..shared.flag_checks import check_linf_eps
from ..shared.flags.choices import NORMS, SUITES_AND_ATTACKS, check_attacks
from ..shared.flags.streams import StreamConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StreamConfig):
    """Flags of `experiments.evaluate`."""

    SMALLEST = {"eval_examples": 20, "checks": False}

    checkpoint: str | None = flag(None, "The network: DIR, DIR:NAME or zoo:NAME (required).")
    attack: tuple[str, ...] = flag(
        ("autoattack",),
        "A suite, or attacks in the order of their run.",
        choices=SUITES_AND_ATTACKS,
    )
    attack_steps: int | None = flag(None, "--attack=pgd: steps [40].", kind="count")
    restarts: int | None = flag(None, "--attack=pgd: restarts [1].", kind="count")
    step_size: float | None = flag(
        None, "--attack=pgd: step size [2.5 eps / steps].", kind="positive"
    )
    each: bool = flag(False, "Run each attack on every image, not only on those still standing.")
    norm: str = flag(None, "Norm of the threat model (required).", choices=NORMS)
    eps: float | None = flag(None, "Eps of the threat model, as in 8/255 (required).", kind="eps")
    eval_examples: int = flag(1000, "Test images, drawn by the seed; 0: all.", kind="natural")
    attack_batch_size: int = flag(
        250, "Images attacked at a time, which bounds the memory.", kind="count"
    )
    checks: bool = flag(True, "Check whether the result can be trusted (--nochecks: do not).")
    curves: bool = flag(
        True, "Measure accuracy against eps and loss against steps (--nocurves: do not)."
    )
    sweep_examples: int = flag(
        200, "Number of images for those curves, drawn from the others; 0: all.", kind="natural"
    )

    def validate(self) -> None:
        """Also checks flags against each other."""
        for name in ("checkpoint", "norm", "eps"):
            if getattr(self, name) is None:
                raise ValueError(f"flag --{name} is missing")
        super().validate()
        check_linf_eps(self.norm, eps=self.eps)
        check_attacks(self.attack, self.norm)
        for name, value in self.pgd_options().items():
            if self.attack != ("pgd",):
                raise ValueError(
                    f"flag --{name}={value}: is for --attack=pgd alone, not for "
                    f"--attack={','.join(self.attack)}"
                )

    def pgd_options(self) -> dict[str, Any]:
        """Returns the flags of PGD that were given, by name."""
        given = {name: getattr(self, name) for name in ("attack_steps", "restarts", "step_size")}
        return {name: value for name, value in given.items() if value is not None}
