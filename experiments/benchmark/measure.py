"""Measures one work: every contender's first call, its result, memory, then times in turns."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from . import child, ours, peers
from .check import Comparison, Judge, Outcome
from .flags import Config
from .plan import Plan, Work
from .timing import Contender, PeakMemory, in_turns, once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """The measurement of one work; arrays along contenders that took part, ours first.

    Attributes:
      names: `[C]`.
      first: `[C]` seconds of the first call, which compiles.
      memory: `[C]` bytes that a later call adds at most to the process; NaN if unknown.
      seconds: `[C, R]` of a call, in rounds.
      passes: forward and backward passes of all images together, as ours counts them; NaN if not.
      values: `[C]`, the number that the results are compared by; see `check.MEANING`.
      differing: `[C]`, images whose verdicts differ from ours; NaN where there are no verdicts.
      left_out: peer to the reason why it has no time.
    """

    names: tuple[str, ...]
    first: np.ndarray
    memory: np.ndarray
    seconds: np.ndarray
    passes: float
    values: np.ndarray
    differing: np.ndarray
    left_out: dict[str, str]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the measurement as arrays, to be saved."""
        return {
            "names": np.array(self.names),
            "first": self.first,
            "memory": self.memory,
            "seconds": self.seconds,
            "passes": np.array(self.passes),
            "values": self.values,
            "differing": self.differing,
            "left_out": np.array([*self.left_out.keys()], np.str_),
            "reasons": np.array([*self.left_out.values()], np.str_),
        }

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray]) -> Measured:
        """Restores a measurement from its arrays."""
        absent = zip(arrays["left_out"].tolist(), arrays["reasons"].tolist(), strict=True)
        return cls(
            names=tuple(map(str, arrays["names"])),
            first=arrays["first"],
            memory=arrays["memory"],
            seconds=arrays["seconds"],
            passes=float(arrays["passes"]),
            values=arrays["values"],
            differing=arrays["differing"],
            left_out=dict(absent),
        )


class _Standing(NamedTuple):
    """A contender whose result counts: seconds of its first and of a warm call, bytes, result."""

    contender: Contender
    first: float
    memory: float
    warm: float
    compared: Comparison


def judge_of(work: Work, plan: Plan) -> Judge:
    """Returns what decides whether a peer has done the same work."""
    network = plan.networks[work.network]
    images, labels = plan.points(work.count)
    classes = len(network.spec.class_names)
    return Judge(
        model_fn=network.model_fn(),
        images=images,
        labels=labels,
        threat=plan.threats.get(work.norm),
        targets=(labels + 1) % classes if work.family == "d_det" else None,
    )


def contest(
    work: Work,
    judge: Judge,
    contenders: Sequence[Contender],
    left_out: Mapping[str, str],
    *,
    rounds: int,
    budget: float,
    children: bool = False,
) -> Measured:
    """Lets contenders do the work, keeps those whose result is ours, and times them in turns.

    Args:
      work: the work.
      judge: of the results.
      contenders: ours first.
      left_out: peers that do not take part, with reasons.
      rounds: as `in_turns` takes them.
      budget: as `in_turns` takes it.
      children: whether every call is a process of its own, of which the memory of this one tells
        nothing and whose first call is like any other.
    """
    left_out = dict(left_out)
    standing: list[_Standing] = []
    mine: Outcome | None = None
    for contender in contenders:
        try:
            first, result = once(contender.call)
            found = contender.found(result)
            if mine is None:
                mine = found
                compared = Comparison(judge.value(work.family, mine))
            else:
                compared = judge.compare(work.family, mine, found)
            if compared.wrong:
                left_out[contender.name] = f"not the same result: {compared.wrong}"
                continue
            memory, warm = (math.nan, first) if children else PeakMemory.of(contender.call)
            standing.append(_Standing(contender, first, memory, warm, compared))
        except Exception as error:  # of other people's code; our own must not pass in silence
            if not standing:
                raise
            left_out[contender.name] = peers.failed(error)
    assert mine is not None
    differing = [each.compared.differing for each in standing]
    return Measured(
        names=tuple(each.contender.name for each in standing),
        first=np.array([each.first for each in standing]),
        memory=np.array([each.memory for each in standing]),
        seconds=in_turns(
            [each.contender for each in standing],
            [each.warm for each in standing],
            rounds=rounds,
            budget=budget,
        ),
        values=np.array([each.compared.value for each in standing]),
        differing=np.array([np.nan if n is None else n for n in differing], np.float64),
        passes=math.nan if mine.passes is None else mine.passes,
        left_out=left_out,
    )


def measure(work: Work, plan: Plan, config: Config, place: pathlib.Path, threads: int) -> Measured:
    """Measures a work.

    Args:
      work: the work.
      plan: of the run.
      config: the flags.
      place: folder for what child processes read.
      threads: of PyTorch.
    """
    jax.clear_caches()  # so that the first call compiles, whatever came before
    judge = judge_of(work, plan)
    if work.family == "startup":
        contenders, left_out = _startup(work, plan, config, place, threads)
    else:
        others, left_out = peers.contenders(work, plan, config, threads)
        contenders = [ours.contender(work, plan, config.seed), *others]
    return contest(
        work,
        judge,
        contenders,
        left_out,
        rounds=config.rounds,
        budget=config.budget,
        children=work.family == "startup",
    )


def settings(work: Work, plan: Plan, *, repeats: int, threads: int) -> dict[str, Any]:
    """Returns the settings of an attack in a child process."""
    threat = plan.threats[work.norm]
    return {
        "norm": work.norm,
        "eps": float(threat.eps),
        "steps": work.steps,
        "step_size": ours.step_size(work, threat),
        "repeats": repeats,
        "threads": threads,
    }


def _startup(
    work: Work, plan: Plan, config: Config, place: pathlib.Path, threads: int
) -> tuple[list[Contender], dict[str, str]]:
    folder, images, labels = place / work.name, *plan.points(work.count)
    given = settings(work, plan, repeats=0, threads=threads)
    child.leave(folder, plan.networks[work.network], images, labels, given)

    def contender(name: str, module: str) -> Contender:
        return Contender(
            name,
            lambda: child.start(module, "first_attack", folder),
            lambda _: Outcome(points=np.load(folder / f"{name}.npy")),
        )

    found, absent = [contender(ours.NAME, "child")], peers.missing(config)
    if "torch" in absent:
        return found, {"torch": absent["torch"]}
    from .torch_peers import save_mirror

    try:
        save_mirror(plan.networks[work.network], config.precision, folder / "mirror.pt")
    except Exception as error:  # an architecture without a mirror
        return found, {"torch": peers.failed(error)}
    return [*found, contender("torch", "torch_attacks")], {}
