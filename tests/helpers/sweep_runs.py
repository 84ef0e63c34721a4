"""The experiments that train many small networks, and the dry runs of them that tests share."""

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.sample_complexity import (
    flags as sample_complexity_flags,
    work as sample_complexity_work,
)
from experiments.tradeoff import flags as tradeoff_flags, work as tradeoff_work

TINY = {"dry_run": True, "model": "mlp", "width": 16}


class Sweep(NamedTuple):
    """One experiment: its command, and what a dry run of it makes."""

    run: Callable[[Any], dict[str, Any]]
    flags: Callable[..., Any]
    networks: int
    words: tuple[str, ...]
    figures: set[str]
    other: dict[str, Any]
    refusal: str

    def config(self, path, **options):
        """A small dry run, unless the options say otherwise."""
        return self.flags(workdir=str(path), **{**TINY, **options})


SWEEPS = {
    "sample_complexity": Sweep(
        run=sample_complexity_work.run,
        flags=sample_complexity_flags.Config,
        networks=12,
        words=("Gaussian model", "Theorem 11", "times as many", "experiments.sample_complexity"),
        figures={"accuracy", "gap", "gaussian", "bernoulli"},
        other={"eps": 0.1},
        refusal=r"--eps=none, not --eps=0\.1",
    ),
    "tradeoff": Sweep(
        run=tradeoff_work.run,
        flags=tradeoff_flags.Config,
        networks=6,  # the standard networks of both norms are trained once
        words=(
            "L2, between training",
            "L∞, between training",
            "Rank correlation",
            "paired difference",
        ),
        figures={"frontier", "sweep_l2", "sweep_linf"},
        other={"seeds": 1},
        refusal=r"--seeds=3, not --seeds=1",
    ),
}
